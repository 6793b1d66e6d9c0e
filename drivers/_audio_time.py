"""Capture times of sound: ticks are counted, and the count is held to the clock."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from agent.clock import NS_PER_S
from agent.types import Int64Array
from drivers._pacing import ticks_ns

__all__ = ["AudioTimeline"]

# Each block takes up 1/50 of the difference: with blocks of 20 ms a time constant of 1 s, which
# averages the jitter of callbacks (ms) away and follows a crystal 100 ppm off to 0.1 ms.
SMOOTHING = 50
# A sound server may deliver in bursts that put its times out by 0.2 s; beyond, ticks are missing.
MAX_ERROR_NS = NS_PER_S // 4


class AudioTimeline:
    """Stamps without seams for blocks of `rate_hz`, from one noisy capture time for each."""

    def __init__(self, rate_hz: int) -> None:
        self._step_ns = Fraction(NS_PER_S, rate_hz)
        self._next_ns: int | None = None
        self._last_ns = 0

    def stamp(
        self, count: int, capture_ns: int, arrival_ns: int, dropped: int, overflow: bool
    ) -> tuple[Int64Array, int]:
        """Stamps int64 (count,) of the next block, and how many ticks are missing before it.

        capture_ns: measured, of its first tick. arrival_ns: when the host had it; no stamp is
        later, and none is earlier than one before it. dropped: ticks known to be missing.
        overflow: the device has lost some, and did not say how many.
        """
        first_ns, lost = capture_ns, dropped
        if self._next_ns is not None:
            expected_ns = self._next_ns + round(dropped * self._step_ns)
            error_ns = capture_ns - expected_ns
            if overflow or abs(error_ns) > MAX_ERROR_NS:
                lost += max(int(overflow), round(error_ns / self._step_ns))
            else:
                first_ns = expected_ns + error_ns // SMOOTHING
        self._next_ns = first_ns + round(count * self._step_ns)
        t_ns = np.clip(ticks_ns(first_ns, self._step_ns, count), self._last_ns, arrival_ns)
        self._last_ns = int(t_ns[-1])
        return t_ns, lost
