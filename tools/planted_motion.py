"""A watch that lies still, is turned, shaken, fidgeted with, and worn by someone who moves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.types import Sample, StreamInfo
from encoders.bind.sources import Record
from encoders.bind.sources_motion import GRAVITY, basic_motions, watch
from tools.make_validation import MOTION_TEXTS
from tools.planting import Float32Array, Plant, Planted, Rng

__all__ = ["IMU", "TEXTS", "kinds", "motion", "samples"]

HZ = 50
BLOCK = 25  # 0.5 s
PLANTED_S = 12.0
STRETCH_S = 30  # how long it lies, is turned or shaken at a time
TEXTS = MOTION_TEXTS

IMU = StreamInfo(
    "watch",
    "imu",
    "float32",
    (6,),
    float(HZ),
    "m/s^2,rad/s",
    channels=("ax", "ay", "az", "gx", "gy", "gz"),
)


def kinds(aeon: Path, seglearn: Path) -> dict[str, list[Planted]]:
    """By label, motions of people and series that no tower was trained on."""
    found: dict[str, list[Planted]] = {}
    for record in (*basic_motions(aeon), *watch(seglearn)):
        if record.held_out:
            found.setdefault(record.label, []).append(_planted(record))
    return found


def motion(plants: Sequence[Plant], seconds: float, rng: Rng) -> Float32Array:
    """float32 (n, 6). What is planted takes the place of what was; its level is that of its
    deviation over the vibration that goes on under it.
    """
    count = round(seconds * HZ)
    out = np.concatenate([_ordinary(rng) for _ in range(-(-count // (STRETCH_S * HZ)))])[:count]
    for plant in plants:
        own = np.asarray(plant.what.data, np.float64)
        first = round(plant.from_s * HZ)
        shaken = rng.normal(size=own.shape) * own.std(axis=0) * 10 ** (-(plant.db + 12) / 20)
        out[first : first + len(own)] = own + shaken
    return out.astype(np.float32)


def samples(data: Float32Array, start_ns: int) -> Iterator[Sample]:
    """Blocks of half a second, that arrive 2 ms after their last tick."""
    for first in range(0, len(data), BLOCK):
        part = data[first : first + BLOCK]
        t_ns = start_ns + np.arange(first, first + len(part), dtype=np.int64) * NS_PER_S // HZ
        yield Sample(IMU, first, t_ns, int(t_ns[-1]) + 2_000_000, part)


def _ordinary(rng: Rng) -> NDArray[np.float64]:
    ticks = STRETCH_S * HZ
    down = rng.normal(size=3)
    gravity = np.broadcast_to(down / np.linalg.norm(down) * GRAVITY, (ticks, 3))
    shaken = rng.normal(size=(ticks, 6)) * np.repeat([0.03, 0.003], 3)
    what = rng.integers(0, 4)
    if what == 1:  # turned slowly
        turn = rng.normal(size=3) * 0.02
        angles = np.outer(np.arange(ticks) / HZ, turn)
        gravity = gravity + np.cross(gravity, angles)
        shaken[:, 3:] += turn
    elif what == 2:  # carried by a vehicle
        shaken *= 10 ** rng.uniform(0.3, 1.5)
    elif what == 3:  # fidgeted with: slow noise, of no period
        size = np.repeat([1.0, 0.4], 3) * rng.uniform(0.3, 2)
        slow = rng.normal(size=(ticks // 25 + 2, 6)) * size
        at = np.arange(ticks) / 25
        shaken += np.stack([np.interp(at, np.arange(len(slow)), one) for one in slow.T], axis=1)
    whole: NDArray[np.float64] = np.hstack([gravity, np.zeros((ticks, 3))]) + shaken
    return whole


def _planted(record: Record) -> Planted:
    window = record.window()
    assert window.stream.rate_hz is not None
    data = window.data.astype(np.float64)
    if window.stream.rate_hz != HZ:
        data = soxr.resample(data, window.stream.rate_hz, HZ)
    data = np.resize(data, (round(PLANTED_S * HZ), 6)) if len(data) < PLANTED_S * HZ else data
    data = data[: round(PLANTED_S * HZ)].astype(np.float32)
    return Planted(record.label, record.recording, data, len(data) / HZ)
