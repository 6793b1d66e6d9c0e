"""From a score to events: hysteresis, least and longest duration, hold and cool-down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.clock import from_s
from agent.config import GateConfig

__all__ = ["Gate", "Transition"]

Phase = Literal["start", "update", "end"]
LEAST_RISE = 0.05  # a new peak smaller than this is not news


@dataclass(frozen=True)
class Transition:
    """What the gate has to tell. end_ns: the last evidence so far. peak: highest score so far.
    reason: of an end, "quiet" or "max_duration".
    """

    phase: Phase
    start_ns: int
    end_ns: int
    peak: float
    reason: str = ""


class Gate:
    """One query's decision, fed with (time, score).

    A score at or above `enter` opens it, once it has held (never below `exit`) for
    `min_duration_s`; it stays open until no score has reached `exit` for `hold_s`, so stretches
    that are closer together are one event, or for `max_duration_s`: then it is deaf until no score
    has reached `exit` for `hold_s`. After an end, and never without one, it is silent for
    `cool_down_s`. Time that goes backwards counts as standing still. No two events share a
    nanosecond: each starts after the last evidence of the one before.
    """

    def __init__(self, config: GateConfig, free_ns: int | None = None) -> None:
        """free_ns: the first time that no event of an earlier gate of the query has claimed."""
        self.config = config
        self._state: Literal["idle", "pending", "open", "deaf"] = "idle"
        self._now_ns: int | None = None
        self._start_ns = 0
        self._first_ns = 0
        self._last_ns = 0
        self._told_ns = 0
        self._told_peak = 0.0
        self._peak = 0.0
        self._quiet_until_ns = self._free_ns = free_ns

    @property
    def is_open(self) -> bool:
        """True between a start and its end."""
        return self._state == "open"

    @property
    def is_idle(self) -> bool:
        """True when no score is being followed."""
        return self._state == "idle"

    @property
    def is_quiet(self) -> bool:
        """True when what comes is ordinary, for all that the gate knows."""
        return self._state in ("idle", "deaf")

    @property
    def current(self) -> Transition | None:
        """The event that is open as it stands, told or not; None where none is."""
        if not self.is_open:
            return None
        return Transition("update", self._start_ns, self._last_ns, self._peak)

    def step(self, t_ns: int, score: float, start_ns: int | None = None) -> Transition | None:
        """A score at `t_ns`. start_ns: when its evidence began, where earlier than `t_ns`."""
        t_ns = t_ns if self._now_ns is None else max(t_ns, self._now_ns)
        self._now_ns = t_ns
        config = self.config
        if self._state == "open":
            return self._open(t_ns, score)
        if self._state == "deaf":
            if score >= config.exit:
                self._last_ns = t_ns
            elif t_ns - self._last_ns >= from_s(config.hold_s):
                self._state = "idle"
            return None
        if self._quiet_until_ns is not None and t_ns < self._quiet_until_ns:
            return None
        if self._state == "pending" and score < config.exit:
            self._state = "idle"
        if self._state == "idle" and score >= config.enter:
            self._state = "pending"
            self._start_ns = t_ns if start_ns is None else min(start_ns, t_ns)
            if self._free_ns is not None:
                self._start_ns = max(self._start_ns, self._free_ns)
            self._first_ns, self._peak = t_ns, score
        if self._state == "pending":
            self._last_ns = t_ns
            self._peak = max(self._peak, score)
            if t_ns - self._first_ns >= from_s(config.min_duration_s):
                self._state = "open"
                return self._tell("start", t_ns)
        return None

    def close(self) -> Transition | None:
        """End what is open, at its last evidence: the agent stops or the query is removed."""
        if self.is_open:
            return self._end(self._now_ns or 0, "")
        self._state = "idle"
        return None

    def _open(self, t_ns: int, score: float) -> Transition | None:
        config = self.config
        if score >= config.exit:
            self._last_ns = t_ns
            self._peak = max(self._peak, score)
            if t_ns - self._first_ns >= from_s(config.max_duration_s):
                end = self._end(t_ns, "max_duration")
                self._state = "deaf"
                return end
            due = t_ns - self._told_ns >= from_s(config.update_s)
            if due or self._peak >= self._told_peak + LEAST_RISE:
                return self._tell("update", t_ns)
        elif t_ns - self._last_ns >= from_s(config.hold_s):
            return self._end(t_ns, "quiet")
        return None

    def _end(self, t_ns: int, reason: str) -> Transition:
        self._state = "idle"
        self._free_ns = self._last_ns + 1
        self._quiet_until_ns = max(self._free_ns, t_ns + from_s(self.config.cool_down_s))
        return self._tell("end", t_ns, reason)

    def _tell(self, phase: Phase, t_ns: int, reason: str = "") -> Transition:
        self._told_ns, self._told_peak = t_ns, self._peak
        return Transition(phase, self._start_ns, self._last_ns, self._peak, reason)
