"""A file of a sense that nobody planned as one Window: columns of numbers, or one frame of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.clock import NS_PER_S
from agent.errors import ConfigError
from agent.types import StreamInfo, Window, slug

__all__ = ["read_signal"]


def read_signal(path: str, modality: str) -> Window:
    """The whole of a file: start_ns 0. CSV, with a header or without: the first column t in seconds
    and rising, the others channels (float64). NPY: one frame (rows, columns) of numbers.

    Raises ConfigError for a file that is missing, or no such numbers.
    """
    file = Path(path)
    try:
        if file.suffix == ".npy":
            frame = np.load(file, allow_pickle=False)
            data, t_ns, rate_hz = frame[np.newaxis], np.zeros(1, np.int64), None
        else:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            filled = [line for line in lines[_is_header(lines[0]) :] if line.strip()]
            if len(filled) < 2:
                raise ConfigError(f"{path}: {len(filled)} rows of numbers, expected at least 2")
            rows = np.loadtxt(filled, delimiter=",", ndmin=2)
            data = rows[:, 1:]
            t_ns = np.rint((rows[:, 0] - rows[0, 0]) * NS_PER_S).astype(np.int64)
            steps = np.diff(t_ns)
            if not data.size or (steps < 0).any() or not np.median(steps):
                raise ConfigError(
                    f"{path}: {rows.shape[1]} columns, expected rising t and channels"
                )
            rate_hz = NS_PER_S / float(np.median(steps))
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be read ({exc.strerror or exc}), expected CSV or NPY"
        ) from exc
    except (ValueError, IndexError) as exc:
        raise ConfigError(f"{path}: not numbers ({exc}), expected CSV or NPY") from exc
    if data.dtype.kind not in "uif" or not np.isfinite(data).all():
        raise ConfigError(f"{path}: {data.dtype} or not finite, expected numbers")
    info = StreamInfo(
        name=slug(file.stem),
        modality=modality,
        dtype=str(data.dtype),
        shape=data.shape[1:],
        rate_hz=rate_hz,
        unit="",
        topic=path,
    )
    return Window(info, 0, int(t_ns[-1]) + 1, data, t_ns)


def _is_header(line: str) -> bool:
    try:
        float(line.split(",")[0])
    except ValueError:
        return True
    return False
