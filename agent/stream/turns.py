"""Whose turn it is: lanes share the cores, and none is starved by another."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from agent.clock import NS_PER_S, Clock

__all__ = ["LONG_RATIO", "Turns", "slots_for"]

POLL_S = 0.05  # how soon a lane that waits sees that the agent stops
LONG_RATIO = 4.0  # a turn so many times as long as the shortest lane's is a long one
ACTIVE_NS = 10 * NS_PER_S  # a lane that has not asked for so long keeps no slot free for itself
FADE = 0.99  # how much of a lane's longest turn is remembered from turn to turn


@dataclass
class _Lane:
    """tag_ns, finish_ns: virtual start and finish of its newest turn. longest_ns: fading."""

    tag_ns: int = 0
    finish_ns: int = 0
    asked_ns: int = 0
    order: int | None = None  # among those that wait; None while it does not
    started_ns: int | None = None
    longest_ns: float = 0.0


class Turns:
    """At most `slots` lanes run at once; of those that wait, the one with the least busy time.

    Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): a turn's tag is the virtual
    time at which it is asked for, or the finish of the lane's last turn if that is later; the
    least tag goes first, and virtual time is the newest tag that has started. So a lane gives way
    to those that have had less, and one that was idle banks no credit.

    With two slots or more, long turns never hold all: one is left to the lanes whose turns are
    short, so that a tower of a second does not make one of a millisecond wait. Each lane asks for
    one turn at a time. Thread-safe.
    """

    def __init__(self, slots: int, clock: Clock) -> None:
        self._slots, self._clock = slots, clock
        self._lanes: dict[str, _Lane] = {}
        self._now_ns = 0  # virtual
        self._orders = count()
        self._changed = threading.Condition()

    @property
    def waiting(self) -> int:
        """How many lanes wait for a turn."""
        with self._changed:
            return sum(state.order is not None for state in self._lanes.values())

    @contextmanager
    def turn(self, lane: str, stop: threading.Event) -> Iterator[bool]:
        """Wait for a turn and hold it for the block; False, and no turn, once `stop` is set."""
        with self._changed:
            self.ask(lane)
            while not self.try_start(lane):
                if stop.is_set():
                    self._lanes[lane].order = None
                    break
                self._changed.wait(POLL_S)
        started = self._lanes[lane].started_ns is not None
        try:
            yield started
        finally:
            if started:
                self.done(lane)

    def ask(self, lane: str) -> None:
        """`lane` waits for a turn."""
        with self._changed:
            state = self._lanes.setdefault(lane, _Lane())
            state.tag_ns = max(self._now_ns, state.finish_ns)
            state.asked_ns = self._clock.now_ns()
            state.order = next(self._orders)

    def try_start(self, lane: str) -> bool:
        """Start the turn of `lane`, which has asked, if it is the next and a slot is free."""
        with self._changed:
            if self._next() != lane:
                return False
            state = self._lanes[lane]
            state.order = None
            state.started_ns = self._clock.now_ns()
            self._now_ns = max(self._now_ns, state.tag_ns)
            self._changed.notify_all()  # there may be a slot for the one behind it too
            return True

    def done(self, lane: str) -> None:
        """The turn of `lane` is over."""
        with self._changed:
            state = self._lanes[lane]
            assert state.started_ns is not None
            busy_ns = self._clock.now_ns() - state.started_ns
            state.started_ns = None
            state.finish_ns = state.tag_ns + busy_ns
            state.longest_ns = max(float(busy_ns), FADE * state.longest_ns)
            self._changed.notify_all()

    def _next(self) -> str | None:
        """The lane that may start now."""
        running = [name for name, state in self._lanes.items() if state.started_ns is not None]
        if len(running) >= self._slots:
            return None
        long = self._long()
        full = self._slots > 1 and len(long.intersection(running)) >= self._slots - 1
        waiting = [
            (state.tag_ns, state.order, name)
            for name, state in self._lanes.items()
            if state.order is not None and not (full and name in long)
        ]
        return min(waiting)[2] if waiting else None

    def _long(self) -> set[str]:
        """Lanes whose turns are long beside those of the shortest lane that is in use."""
        now = self._clock.now_ns()
        known = {name: state for name, state in self._lanes.items() if state.longest_ns}
        in_use = [s.longest_ns for s in known.values() if now - s.asked_ns < ACTIVE_NS]
        limit_ns = LONG_RATIO * min(in_use, default=0.0)
        return {name for name, state in known.items() if in_use and state.longest_ns > limit_ns}


def slots_for(threads: int) -> int:
    """Towers of `threads` threads each that this process's cores can run at once, at least 2."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(2, cores // threads)
