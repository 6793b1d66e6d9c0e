"""Made windows of each sense."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.types import StreamInfo, Window

__all__ = ["SENSES", "made_windows", "window"]

SENSES = ("image", "audio", "depth", "thermal", "imu")


def window(
    modality: str,
    data: NDArray,
    rate_hz: float | None = None,
    t_ns: NDArray[np.int64] | None = None,
    start_ns: int = 0,
) -> Window:
    """A window of `data`, one tick a row, stamped at `rate_hz` unless `t_ns` is given."""
    if t_ns is None:
        t_ns = np.rint(np.arange(len(data)) * NS_PER_S / (rate_hz or 1.0)).astype(np.int64)
    info = StreamInfo(f"made_{modality}", modality, str(data.dtype), data.shape[1:], rate_hz, "")
    end_ns = start_ns + int(t_ns[-1] if len(t_ns) else 0) + 1
    return Window(info, start_ns, end_ns, data, t_ns + start_ns, arrival_ns=end_ns + 5)


def made_windows(modality: str, count: int, seed: int = 0) -> list[Window]:
    """`count` windows as a live stream gives them, each of another scene."""
    rng = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 160), indexing="ij")
    made = []
    for i in range(count):
        bump = np.exp(-4 * ((rows - rng.uniform(-1, 1)) ** 2 + (columns - i / count) ** 2))
        if modality == "image":
            colour = bump[..., None] * rng.integers(60, 255, 3)
            data = colour.astype(np.uint8)[None]
        elif modality == "depth":
            data = (500 + 4000 * bump).astype(np.uint16)[None]
        elif modality == "thermal":
            data = (7000 + 500 * bump + rng.integers(0, 50, bump.shape)).astype(np.uint16)[None]
        elif modality == "audio":
            t_s = np.arange(96_000) / 48_000
            tone = np.sin(2 * np.pi * 200 * (i + 1) * t_s) * 8000
            data = (tone[:, None] + rng.normal(0, 200, (96_000, 2))).astype(np.int16)
        else:
            t_s = np.arange(500)[:, None] / 100
            data = np.sin(2 * np.pi * (i + 1) * t_s + np.arange(6)).astype(np.float32) * 5
        rate_hz = {"audio": 48_000.0, "imu": 100.0}.get(modality)
        made.append(window(modality, data, rate_hz, start_ns=i * NS_PER_S))
    return made
