"""How much of the time a tower may have: the hop is stretched before anything is dropped."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Literal

from agent.clock import NS_PER_S

__all__ = ["GRACE_NS", "Budget", "HopReason"]

HopReason = Literal["", "max_hz", "max_duty"]

SPAN_NS = 60 * NS_PER_S  # of the duty that is told
WEIGHT = 0.2  # of the newest run in the running mean of the cost of a window
GRACE_NS = NS_PER_S // 10  # of lateness that a run makes up for
HEADROOM = 1.25  # how much dearer windows may get before a shorter hop would be too short again


class Budget:
    """Of one tower: `factor` is the hop in force over the hop that was asked for, a whole number.

    `max_hz` sets the least factor at once. `max_duty` raises it as soon as a running mean of the
    seconds a window takes asks for it, and lowers it only where the mean leaves a headroom, so
    that it does not flap. Besides, after a run of c seconds the next one may start c / max_duty
    seconds after its start at the earliest (`ready_ns`), less up to a tenth of a second that it
    started late: so over any stretch of time the tower is busy for at most max_duty of it and that
    tenth, and one run more, however wrong the mean is.

    `spent` and what it sets belong to the lane's thread; `duty` is for any.
    """

    def __init__(
        self, hop_ns: int, max_hz: float | None = None, max_duty: float | None = None
    ) -> None:
        self._hop_ns, self._max_duty = hop_ns, max_duty
        # A rate that was meant to be the hop's own must not be over it by rounding.
        self._least = max(1, math.ceil(NS_PER_S / max_hz / hop_ns - 1e-6)) if max_hz else 1
        self.factor = self._least
        self.ready_ns = 0
        self._window_ns: float | None = None
        self._first_ns: int | None = None  # start of the first run of all
        self._runs: deque[tuple[int, int]] = deque()  # (start, end) of the last minute's
        self._lock = threading.Lock()

    @property
    def step_ns(self) -> int:
        """The hop in force."""
        return self.factor * self._hop_ns

    @property
    def reason(self) -> HopReason:
        """What stretches the hop; empty where nothing does."""
        if self.factor > self._least:
            return "max_duty"
        return "max_hz" if self.factor > 1 else ""

    def spent(self, started_ns: int, ended_ns: int, windows: int, streams: int) -> None:
        """A run over `windows` >= 1 windows, of a tower that `streams` streams share."""
        with self._lock:
            self._first_ns = started_ns if self._first_ns is None else self._first_ns
            self._runs.append((started_ns, ended_ns))
            while self._runs[0][1] < ended_ns - SPAN_NS:
                self._runs.popleft()
        if self._max_duty is None:
            return
        busy_ns = ended_ns - started_ns
        # From when it was ready, and not from when it started: starting a poll late each time
        # would add up until a hop is passed over.
        since_ns = max(self.ready_ns, started_ns - GRACE_NS)
        self.ready_ns = since_ns + math.ceil(busy_ns / self._max_duty)
        before = busy_ns / windows if self._window_ns is None else self._window_ns
        self._window_ns = before + WEIGHT * (busy_ns / windows - before)
        hops = streams * self._window_ns / (self._max_duty * self._hop_ns)
        raised = max(self.factor, math.ceil(hops))
        self.factor = max(self._least, min(raised, math.ceil(HEADROOM * hops)))

    def duty(self, now_ns: int) -> float:
        """Share of the last minute, or of the time since the first run, that was busy: 0..1."""
        with self._lock:
            if self._first_ns is None:
                return 0.0
            since_ns = max(self._first_ns, now_ns - SPAN_NS)
            busy_ns = sum(end - max(start, since_ns) for start, end in self._runs if end > since_ns)
        return min(1.0, busy_ns / max(1, now_ns - since_ns))
