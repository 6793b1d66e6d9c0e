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

    skipped: left out because newer ones were waiting.
    """

    taken: int = 0
    short: int = 0
    overruns: int = 0
    skipped: int = 0


class Windows:
    """Cuts one stream for one tower.

    Windows end on a grid of whole hops since the epoch of the clock, so the cut depends on
    stamps alone and a replay cuts the same. A window is due once a tick at or after its end is
    there (ticks come in order, so it is complete), or `lateness_s` after its end by the clock.
    """

    def __init__(
        self,
        ring: Ring,
        spec: WindowSpec,
        lateness_s: float = 0.1,
        min_coverage: float = 0.75,
        max_backlog: int | None = None,
    ) -> None:
        """min_coverage: of the ticks that `rate_hz` promises. max_backlog: None keeps all."""
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

    @staticmethod
    def capacity(spec: WindowSpec, rate_hz: float | None, slack_s: float, floor: int = 8) -> int:
        """Ticks a ring needs so that a reader may be `slack_s` late."""
        rate_hz = rate_hz or 100.0
        wanted = spec.length_s * rate_hz if spec.ticks is None else float(spec.ticks)
        return max(floor, int(wanted + (slack_s + spec.hop_s) * rate_hz) + 2)

    def take(self, now_ns: int) -> list[Window]:
        """The windows that are due, oldest first, each once. Empty ones are passed over."""
        out: list[Window] = []
        newest = self.ring.newest_t_ns
        if newest is None:
            return out
        if self._next_end_ns is None:
            first = self.ring.oldest_t_ns
            assert first is not None
            span = self._length_ns if self.spec.ticks is None else 1
            self._next_end_ns = self._grid(first + span)
        # Over a gap longer than the window, go on where there are ticks again.
        seen = self.ring.first_t_ns_from(self._next_end_ns - self._length_ns)
        if seen is not None and seen >= self._next_end_ns:
            self._next_end_ns = self._grid(seen + 1)
        if self._max_backlog is not None:
            last_due = (newest // self.hop_ns) * self.hop_ns
            skip = (last_due - self._next_end_ns) // self.hop_ns + 1 - self._max_backlog
            if skip > 0:
                self.counts.skipped += skip
                self._next_end_ns += skip * self.hop_ns
        while self._next_end_ns <= newest or (
            self._next_end_ns + self._lateness_ns <= now_ns
            and newest >= self._next_end_ns - self._length_ns
        ):
            end = self._next_end_ns
            self._next_end_ns += self.hop_ns
            try:
                window = self.ring.window(end - self._length_ns, end, self.spec.ticks)
            except Overrun:
                self.counts.overruns += 1
                continue
            if len(window.t_ns) >= self._min_ticks:
                self.counts.taken += 1
                out.append(window)
            elif len(window.t_ns):
                self.counts.short += 1
            else:
                # A gap longer than the window: go on where there are ticks again.
                after = self.ring.first_t_ns_from(end)
                if after is not None:
                    self._next_end_ns = max(self._next_end_ns, self._grid(after + 1))
        return out

    def _grid(self, t_ns: int) -> int:
        """The first window end at or after `t_ns`."""
        return -(-t_ns // self.hop_ns) * self.hop_ns
