"""A device's clock on the agent's clock: offset, drift and how sure we are.

A block reaches the host some delay after the device stamped it, and a delay is never negative.
So over a stretch of time the pairs (device stamp, arrival) lie above a line, and that line is
the mapping. Arrivals are thinned to the least-delayed one in each half second and the line is
the lower convex hull's edge below their centre: the bound of Moon, Skelly and Towsley,
"Estimation and removal of clock skew from network delay measurements" (INFOCOM 1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from agent.clock import NS_PER_S
from agent.types import Int64Array

__all__ = ["ClockEstimate", "ClockSync"]

BIN_NS = NS_PER_S // 2
STEP_NS = NS_PER_S // 2  # a jump of the offset beyond this is a clock that was set, not drift
DRIFT_SPAN_NS = 10 * NS_PER_S  # below this the slope is all jitter
MAX_DRIFT = 500e-6  # crystals are within 100 ppm; five times that is not a clock


@dataclass(frozen=True)
class ClockEstimate:
    """host = device + offset_ns + drift * (device - reference_ns). drift: 1e-6 is 1 ppm.

    uncertainty_ns: spread of the least delays about the line. The constant least delay itself
    (a USB frame, a serial line) cannot be seen from here and is not in it.
    """

    offset_ns: int
    drift: float
    reference_ns: int
    uncertainty_ns: int


class ClockSync:
    """Learns the mapping from (device stamp, arrival) pairs over the last `span_s`."""

    def __init__(self, span_s: float = 120.0) -> None:
        self._bins: list[tuple[int, int]] = []  # (device_ns, arrival - device), oldest first
        self._keep = max(4, round(span_s * NS_PER_S / BIN_NS))
        self._newest_ns = 0  # device stamp; means nothing while there are no bins
        self._estimate: ClockEstimate | None = None
        self.steps = 0

    @property
    def estimate(self) -> ClockEstimate | None:
        """None before the first observation."""
        return self._estimate

    def observe(self, device_ns: int, arrival_ns: int) -> None:
        """One block: the stamp of its last tick and when the host had it."""
        offset = arrival_ns - device_ns
        guess = self._estimate
        if guess is not None:
            ahead = offset < self._offset_at(guess, device_ns) - STEP_NS
            if ahead or device_ns < self._newest_ns - STEP_NS:
                self.reset()
                self.steps += 1
        self._newest_ns = max(device_ns, self._newest_ns) if self._bins else device_ns
        newer = device_ns // BIN_NS - self._bins[-1][0] // BIN_NS if self._bins else 1
        if newer < 0 or (newer == 0 and offset >= self._bins[-1][1]):
            return  # it came late, or is no less delayed than what its bin holds
        if newer == 0:
            self._bins[-1] = (device_ns, offset)
        else:
            self._bins.append((device_ns, offset))
            del self._bins[: -self._keep]
        self._estimate = self._fit()

    def reset(self) -> None:
        """Forget everything: after a reconnect the device may have started its clock again."""
        self._bins.clear()
        self._estimate = None

    def to_host(self, device_ns: Int64Array, arrival_ns: int) -> Int64Array:
        """Capture times on the agent's clock, int64 (n,), never after `arrival_ns`."""
        guess = self._estimate
        if guess is None:
            return np.minimum(device_ns + (arrival_ns - int(device_ns[-1])), arrival_ns)
        drift = np.rint(guess.drift * (device_ns - guess.reference_ns)).astype(np.int64)
        host: Int64Array = np.minimum(device_ns + guess.offset_ns + drift, arrival_ns)
        return host

    def _fit(self) -> ClockEstimate:
        hull: list[tuple[int, int]] = []
        for point in self._bins:
            while len(hull) >= 2 and _not_below(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        newest_ns, newest_offset = self._bins[-1]
        # Differences first: a float64 holds a stamp of today to 256 ns only.
        device = np.array([d - newest_ns for d, _ in self._bins], np.float64)
        offsets = np.array([o - newest_offset for _, o in self._bins], np.float64)
        drift = 0.0
        if newest_ns - self._bins[0][0] >= DRIFT_SPAN_NS:
            centre = newest_ns + round(device.mean())
            a, b = next((a, b) for a, b in pairwise(hull) if b[0] >= centre)
            drift = float(np.clip((b[1] - a[1]) / (b[0] - a[0]), -MAX_DRIFT, MAX_DRIFT))
        # A line of that slope, touching the points from below: no delay is negative.
        delays = offsets - drift * device
        anchor = int(np.argmin(delays))
        return ClockEstimate(
            offset_ns=self._bins[anchor][1],
            drift=drift,
            reference_ns=self._bins[anchor][0],
            uncertainty_ns=int(np.median(delays - delays[anchor])),
        )

    @staticmethod
    def _offset_at(guess: ClockEstimate, device_ns: int) -> int:
        return guess.offset_ns + round(guess.drift * (device_ns - guess.reference_ns))


def _not_below(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
