"""Capture times of sound: a device's clock is learnt, ticks are counted and held to it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from agent.clock import NS_PER_S, from_s
from agent.types import Int64Array
from drivers._pacing import ticks_ns

__all__ = ["AudioTimeline", "DeviceClock"]

# Each block takes up 1/50 of the difference: with blocks of 20 ms a time constant of 1 s, which
# averages the jitter of callbacks (ms) away and follows a crystal 100 ppm off to 0.1 ms. The first
# blocks count for as much each: what PulseAudio says of the very first is up to 50 ms out.
SMOOTHING = 50
# A sound server may deliver in bursts that put its times out by 0.2 s; beyond, ticks are missing.
MAX_ERROR_NS = NS_PER_S // 4

# Long enough that a callback in time is among them, short enough for a clock that is being slewed
# (500 ppm at most: 1 ms).
WINDOW_NS = 2 * NS_PER_S
# So many callbacks in a row that are later than this are in time, on a clock that was set back.
SET_BACK_NS, SET_BACK_TIMES = 20_000_000, 10


class DeviceClock:
    """A clock of unknown epoch on the agent's, from readings of both that are never early.

    A callback is told the device's time and reads the agent's some delay later, which is never
    negative: the least difference of the last 2 to 4 s is the offset.
    """

    def __init__(self) -> None:
        self._least_ns: int | None = None
        self._before_ns: int | None = None
        self._since_ns = 0
        self._late = 0

    def observe(self, device_s: float, now_ns: int) -> int:
        """The offset: what is to be added to a time of the device, in ns."""
        offset_ns = now_ns - from_s(device_s)
        known = [o for o in (self._least_ns, self._before_ns) if o is not None]
        self._late = self._late + 1 if known and offset_ns > min(known) + SET_BACK_NS else 0
        if self._late >= SET_BACK_TIMES:
            self._least_ns = self._before_ns = None
        if self._least_ns is None or now_ns - self._since_ns > WINDOW_NS:
            self._before_ns, self._least_ns, self._since_ns = self._least_ns, offset_ns, now_ns
        self._least_ns = min(self._least_ns, offset_ns)
        return self._least_ns if self._before_ns is None else min(self._least_ns, self._before_ns)


class AudioTimeline:
    """Stamps without seams for blocks of `rate_hz`, from one noisy capture time for each."""

    def __init__(self, rate_hz: int) -> None:
        self._step_ns = Fraction(NS_PER_S, rate_hz)
        self._next_ns: int | None = None
        self._last_ns = 0
        self._blocks = 0  # up to SMOOTHING

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
                self._blocks = 0
            else:
                first_ns = expected_ns + error_ns // (self._blocks + 1)
        self._blocks = min(self._blocks + 1, SMOOTHING - 1)
        self._next_ns = first_ns + round(count * self._step_ns)
        t_ns = np.clip(ticks_ns(first_ns, self._step_ns, count), self._last_ns, arrival_ns)
        self._last_ns = int(t_ns[-1])
        return t_ns, lost
