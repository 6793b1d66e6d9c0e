"""Accelerometer and gyroscope of one device, made one stream at the gyroscope's stamps."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

import numpy as np

from agent.types import Array

__all__ = ["MAX_GAP_NS", "ImuMerger", "Reading"]

# The slowest accelerometer of a RealSense gives 62.5 readings a second: of 250 ms 15 are missing.
MAX_GAP_NS = 250_000_000


@dataclass(frozen=True)
class Reading:
    """One reading: device and arrival stamps in ns, float32 values; lost: missing before it."""

    device_ns: int
    arrival_ns: int
    values: Array
    lost: int = 0


class ImuMerger:
    """Gives each gyroscope reading once, with the acceleration of its moment, in order.

    The acceleration is interpolated linearly between the readings on either side; where there is
    one on one side only (the ends of a recording) it is that one's. So a reading waits for the
    accelerometer's next, for MAX_GAP_NS of the device's time at most. Where no acceleration is
    known within MAX_GAP_NS nothing true can be told of it: it counts as lost.
    """

    def __init__(self) -> None:
        self._gyro: deque[Reading] = deque()
        self._accel: list[Reading] = []
        self._lost = 0

    def add_accel(self, reading: Reading) -> list[Reading]:
        """What can be told now: float32 (6,), acceleration first, with the gyroscope's stamps."""
        if self._accel and reading.device_ns <= self._accel[-1].device_ns:
            self._accel.clear()  # the device's clock was set back: nothing older can be compared
        self._accel.append(reading)
        return self._ready(end=False)

    def add_gyro(self, reading: Reading) -> list[Reading]:
        """See add_accel."""
        self._gyro.append(reading)
        return self._ready(end=False)

    def flush(self) -> list[Reading]:
        """All that still waits: there is no more to come."""
        return self._ready(end=True)

    def _ready(self, end: bool) -> list[Reading]:
        told: list[Reading] = []
        while self._gyro:
            first, newest = self._gyro[0], self._gyro[-1]
            answered = bool(self._accel) and self._accel[-1].device_ns >= first.device_ns
            if not (answered or end or newest.device_ns - first.device_ns > MAX_GAP_NS):
                break
            self._gyro.popleft()
            values = self._acceleration(first.device_ns)
            if values is None:
                self._lost += 1 + first.lost
                continue
            merged = np.concatenate([values, first.values]).astype(np.float32)
            lost, self._lost = self._lost + first.lost, 0
            told.append(Reading(first.device_ns, first.arrival_ns, merged, lost))
        return told

    def _acceleration(self, device_ns: int) -> Array | None:
        """At a moment; forgets what lies before the reading that precedes it."""
        index = bisect_left(self._accel, device_ns, key=lambda reading: reading.device_ns)
        sides = self._accel[max(0, index - 1) : index + 1]
        if index > 1:
            del self._accel[: index - 1]
        near = [r for r in sides if abs(r.device_ns - device_ns) <= MAX_GAP_NS]
        if not near:
            return None
        if len(near) == 1:
            return near[0].values
        before, after = near
        # In whole ns first: stamps of today do not fit a float.
        share = (device_ns - before.device_ns) / (after.device_ns - before.device_ns)
        return before.values + share * (after.values - before.values)
