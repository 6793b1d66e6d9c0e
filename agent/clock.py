"""The only module that reads time.

Every stamp in the project is an integer of nanoseconds on one clock: monotonic, and anchored to
UTC once when the process starts. So a stamp can be subtracted from any other, is never set back
by NTP, and still reads as a UTC time in a log or an event. How far UTC has moved away since the
anchor is `utc_offset_ns`, which health and every event report.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

__all__ = ["NS_PER_S", "Clock", "ManualClock", "SystemClock", "from_s", "to_s"]

NS_PER_S = 1_000_000_000


def from_s(seconds: float) -> int:
    """Seconds to whole nanoseconds, rounded to nearest."""
    return round(seconds * NS_PER_S)


def to_s(duration_ns: int) -> float:
    """A duration in nanoseconds to float seconds (exact to 1 ns up to 104 days)."""
    return duration_ns / NS_PER_S


class Clock(Protocol):
    """What the agent needs of time. Injected, so that a replay can move it by hand."""

    @property
    def replay(self) -> bool:
        """True where time is moved by a log and not by the world."""

    @property
    def uncertainty_ns(self) -> int:
        """How far the clock's anchor may be from UTC, as it was read."""

    def now_ns(self) -> int:
        """Nanoseconds on the agent's clock; never decreases."""

    def utc_offset_ns(self) -> int:
        """UTC now minus `now_ns()`: what the wall clock has been stepped by since start."""

    def wait_until_ns(self, t_ns: int, stop: threading.Event | None = None) -> bool:
        """Sleep until `t_ns`, or until `stop` is set. True when the time was reached."""


class SystemClock:
    """CLOCK_MONOTONIC, shifted once to UTC at birth.

    anchor: the `anchor` of another process's clock; then both give the same stamps, as
    CLOCK_MONOTONIC is one for the whole machine.
    """

    replay = False

    def __init__(self, anchor: tuple[int, int] | None = None) -> None:
        self.anchor = anchor or self._read_anchor()
        self.uncertainty_ns, self._anchor_ns = self.anchor

    @staticmethod
    def _read_anchor() -> tuple[int, int]:
        """(uncertainty, UTC minus CLOCK_MONOTONIC), in ns."""
        # The anchor is the tightest of a few readings: a preemption between the two clock
        # reads would otherwise become a constant error of every stamp's UTC meaning.
        best = None
        for _ in range(5):
            before = time.monotonic_ns()
            utc = time.time_ns()
            after = time.monotonic_ns()
            if best is None or after - before < best[0]:
                best = (after - before, utc - (before + after) // 2)
        assert best is not None
        return best

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._anchor_ns

    def utc_offset_ns(self) -> int:
        return time.time_ns() - self.now_ns()

    def wait_until_ns(self, t_ns: int, stop: threading.Event | None = None) -> bool:
        while True:
            left_s = to_s(t_ns - self.now_ns())
            if left_s <= 0:
                return True
            if stop is None:
                time.sleep(left_s)
            elif stop.wait(left_s):
                return False


class ManualClock:
    """A clock that a replay or a test moves. It never goes backwards."""

    replay = True
    uncertainty_ns = 0

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def utc_offset_ns(self) -> int:
        return 0

    def advance_to_ns(self, t_ns: int) -> None:
        """Move to `t_ns`; an earlier time is ignored, as arrivals may tie or cross."""
        self._now_ns = max(self._now_ns, t_ns)

    def wait_until_ns(self, t_ns: int, stop: threading.Event | None = None) -> bool:
        if stop is not None and stop.is_set() and t_ns > self._now_ns:
            return False
        self.advance_to_ns(t_ns)
        return True
