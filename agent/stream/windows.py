"""Which windows of a stream are due, and the one copy that each costs."""

from __future__ import annotations

from dataclasses import dataclass

from agent.clock import from_s
from agent.errors import Overrun
from agent.stream.ring import Ring
from agent.types import Window, WindowSpec

__all__ = ["WindowCounts", "Windows"]


@dataclass
class WindowCounts:
    """Since start. short: too few ticks. overruns: ticks gone before they were read.

    skipped: left out because newer ones were waiting. reused: of those taken, how many were not
    encoded, as nothing had changed; its lane counts them.
    """

    taken: int = 0
    short: int = 0
    overruns: int = 0
    skipped: int = 0
    reused: int = 0


class Windows:
    """Cuts one stream for one tower.

    Windows end on a grid of whole hops since the epoch of the clock, so the cut depends on
    stamps alone and a replay cuts the same. A window is due once a tick at or after its end is
    there (ticks come in order, so it is complete), or `lateness_s` after its end by the clock.

    The hop may be stretched to a multiple: windows are then at least that far apart, still on the
    grid of the hop that was asked for, and what lies between two of them is not skipped.
    """

    def __init__(
        self,
        ring: Ring,
        spec: WindowSpec,
        lateness_s: float = 0.1,
        min_coverage: float = 0.75,
        max_backlog: int | None = None,
    ) -> None:
        """min_coverage: of the ticks that `rate_hz` promises. max_backlog: the newest so many of
        those that are due are given, None gives all.
        """
        self.ring, self.spec = ring, spec
        self.counts = WindowCounts()
        self._length_ns = from_s(spec.length_s)
        self.hop_ns = max(1, from_s(spec.hop_s))
        self._lateness_ns = from_s(lateness_s)
        self._max_backlog = max_backlog
        rate_hz = ring.stream.rate_hz
        expected = spec.length_s * rate_hz if rate_hz and spec.ticks is None else 1.0
        self._min_ticks = max(1, int(expected * min_coverage))
        self._next_end_ns: int | None = None
        self._last_end_ns: int | None = None  # of the newest window given
        self._step_ns = self.hop_ns

    @property
    def step_ns(self) -> int:
        """The hop in force, a multiple of `hop_ns`."""
        return self._step_ns

    def stretch_to(self, factor: int) -> None:
        """Let windows be at least `factor` >= 1 hops apart from now on. The reader's thread."""
        self._step_ns = factor * self.hop_ns
        if self._next_end_ns is not None and self._last_end_ns is not None:
            self._next_end_ns = max(self._next_end_ns, self._last_end_ns + self._step_ns)

    @staticmethod
    def capacity(spec: WindowSpec, rate_hz: float | None, slack_s: float, floor: int = 8) -> int:
        """Ticks a ring needs so that a reader may be `slack_s` late."""
        rate_hz = rate_hz or 100.0
        wanted = spec.length_s * rate_hz if spec.whole else float(spec.ticks or 0)
        return max(floor, int(wanted + (slack_s + spec.hop_s) * rate_hz) + 2)

    def due(self, now_ns: int) -> bool:
        """Whether `take` would look for a window now; cheap."""
        return self._peek(now_ns) is not None

    def take(self, now_ns: int) -> list[Window]:
        """The windows that are due, oldest first, each once. Empty ones are passed over."""
        ends = []
        while (end_ns := self._peek(now_ns)) is not None:
            ends.append(end_ns)
            self._next_end_ns = end_ns + self.hop_ns
        ends = self._chosen(ends)
        if ends and self._next_end_ns is not None:
            self._last_end_ns = ends[-1]
            self._next_end_ns = max(self._next_end_ns, ends[-1] + self._step_ns)
        windows = [self._window(end_ns) for end_ns in ends]
        return [window for window in windows if window is not None]

    def _chosen(self, ends: list[int]) -> list[int]:
        """Of the `ends` that are due, those a step apart; of these as many as may wait, counted
        from the newest end of all, so that what is given is the newest there is.
        """
        from_oldest = _apart(ends, self._step_ns)
        if self._max_backlog is None:
            return from_oldest
        newest = _apart([-end_ns for end_ns in reversed(ends)], self._step_ns)
        chosen = [-end_ns for end_ns in reversed(newest[: self._max_backlog])]
        self.counts.skipped += max(0, len(from_oldest) - len(chosen))
        return chosen

    def _peek(self, now_ns: int) -> int | None:
        """The end of the first window that is due and holds a tick, if there is one yet."""
        newest_ns = self.ring.newest_t_ns
        if newest_ns is None:
            return None
        if self._next_end_ns is None:
            first_ns = self.ring.oldest_t_ns
            if first_ns is None:
                return None
            span_ns = self._length_ns if self.spec.whole else 1
            self._next_end_ns = self._grid(first_ns + span_ns)
        while True:
            end_ns = self._next_end_ns
            seen_ns = self.ring.first_t_ns_from(end_ns - self._length_ns)
            if seen_ns is None or seen_ns > newest_ns:
                return None
            if seen_ns >= end_ns:  # no tick is in it: on, in one step, where there are any
                self._next_end_ns = self._grid(seen_ns + 1)
                self.counts.overruns += self._overrun(end_ns, self._next_end_ns)
                continue
            if end_ns > newest_ns and end_ns + self._lateness_ns > now_ns:
                return None
            return end_ns

    def _overrun(self, end_ns: int, until_ns: int) -> int:
        """How many windows from `end_ns` to before `until_ns` may have held ticks now gone."""
        gone_ns = self.ring.gone_t_ns
        if gone_ns is None:
            return 0
        begun = (gone_ns + self._length_ns - end_ns) // self._step_ns + 1
        return max(0, min(begun, (until_ns - end_ns) // self._step_ns))

    def _window(self, end_ns: int) -> Window | None:
        try:
            window = self.ring.window(
                end_ns - self._length_ns, end_ns, self.spec.ticks, self.spec.spread
            )
        except Overrun:
            self.counts.overruns += 1
            return None
        if len(window.t_ns) < self._min_ticks:
            self.counts.short += 1
            return None
        self.counts.taken += 1
        return window

    def _grid(self, t_ns: int) -> int:
        """The first window end at or after `t_ns`."""
        return -(-t_ns // self.hop_ns) * self.hop_ns


def _apart(ends: list[int], step_ns: int) -> list[int]:
    """The first of `ends`, in rising order, and every next one at least `step_ns` further on."""
    kept: list[int] = []
    for end_ns in ends:
        if not kept or end_ns - kept[-1] >= step_ns:
            kept.append(end_ns)
    return kept
