"""When a `when` is true: intervals of its atoms in, intervals of it out, told as they are certain.

What is known of an atom at some moment is two sets of intervals: when it was on for certain, and
when it may have been, as far as anybody can say by now: an open event may go on, and until its
streams have been heard an atom may have begun. Each operator makes of those of its operands the
same of its own, so that what is certain only grows. A start is told once it is certain and nothing
may come before it, an end once nothing may follow: what is told depends on the intervals alone,
and not on which of two streams was encoded first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.match.gate import Transition
from agent.match.grammar import And, Atom, For, Node, Or, Unless, reach_ns

__all__ = ["EVER", "Follower", "Known", "Span", "Track", "evaluate"]

EVER = 1 << 62  # ns; the end of what may go on
MAX_SPANS = 256  # of one atom; the oldest is forgotten


@dataclass(frozen=True)
class Span:
    """True for start <= t < end, in ns. peak: of the score, the lower where two have to hold."""

    start: int
    end: int
    peak: float


@dataclass(frozen=True)
class Known:
    """Of one atom: when it was on for certain, and when it may have been; in order, disjoint."""

    sure: Sequence[Span]
    may: Sequence[Span]


class Track:
    """The intervals of one atom, from the transitions of its gate."""

    def __init__(self, settle_ns: int) -> None:
        """settle_ns: how long after it begins an interval may be told."""
        self.settle_ns = settle_ns
        self._closed: deque[Span] = deque(maxlen=MAX_SPANS)
        self._open: Span | None = None

    @property
    def spans(self) -> int:
        """How many are remembered."""
        return len(self._closed) + (self._open is not None)

    @property
    def open_since_ns(self) -> int | None:
        """When the interval that is open began."""
        return self._open.start if self._open is not None else None

    def tell(self, told: Transition) -> None:
        """A start, an update or an end. end_ns is of the last evidence, and counts as on."""
        span = Span(told.start_ns, told.end_ns + 1, told.peak)
        if told.phase == "end":
            self._closed.append(span)
            self._open = None
        else:
            self._open = span

    def forget(self, before_ns: int) -> None:
        """Drop what ended before."""
        while self._closed and self._closed[0].end < before_ns:
            self._closed.popleft()

    def known(self, now_ns: int) -> Known:
        closed = list(self._closed)
        if self._open is not None:
            own = self._open
            return Known([*closed, own], [*closed, Span(own.start, EVER, own.peak)])
        heard = max(now_ns - self.settle_ns, closed[-1].end if closed else -EVER)
        return Known(closed, _merged([*closed, Span(heard, EVER, 0.0)]))


def evaluate(node: Node, atoms: Mapping[Atom, Known]) -> Known:
    """When `node` was true for certain, and when it may have been."""
    if isinstance(node, Atom):
        return atoms[node]
    if isinstance(node, For):
        inner = evaluate(node.inner, atoms)
        return _both(lambda spans: _lasting(spans, node.least_ns), inner)
    left, right = evaluate(node.left, atoms), evaluate(node.right, atoms)
    if isinstance(node, Or):
        return Known(_merged([*left.sure, *right.sure]), _merged([*left.may, *right.may]))
    if isinstance(node, And):
        within = node.within_ns
        return Known(_near(left.sure, right.sure, within), _near(left.may, right.may, within))
    if isinstance(node, Unless):
        within = node.within_ns
        return Known(
            _without(left.sure, _widened(right.may, within, within)),
            _without(left.may, _widened(right.sure, within, within)),
        )
    return _then(left, right, node.within_ns)


class Follower:
    """One `when` as events: each start once, one end, and no two that share a nanosecond."""

    def __init__(self, node: Node, update_ns: int, free_ns: int = -EVER) -> None:
        """update_ns: least time between updates of an open event. free_ns: the first time that no
        event of an earlier follower of the query has claimed.
        """
        self._node, self._update_ns = node, update_ns
        self._reach_ns = reach_ns(node)
        self._free_ns = free_ns
        self._open: Transition | None = None
        self._told_ns = 0

    @property
    def is_open(self) -> bool:
        return self._open is not None

    def step(self, now_ns: int, tracks: Mapping[Atom, Track]) -> list[Transition]:
        """What has become certain by `now_ns`, in order of time."""
        if not any(track.spans for track in tracks.values()):
            return []
        known = evaluate(self._node, {atom: t.known(now_ns) for atom, t in tracks.items()})
        told: list[Transition] = []
        while True:
            if self._open is None:
                span = next((s for s in known.sure if s.end > self._free_ns), None)
                before = next((s for s in known.may if s.end > self._free_ns), None)
                if span is None or (before is not None and before.start < span.start):
                    break
                start_ns = max(span.start, self._free_ns)
                told.append(self._tell("start", now_ns, start_ns, span.end - 1, span.peak))
            told += self._follow(now_ns, known)
            if self._open is not None:
                break
        self._forget(now_ns, tracks)
        return told

    def close(self) -> Transition | None:
        """End what is open: the agent stops or the query is removed."""
        if self._open is None:
            return None
        open_ = self._open
        return self._tell("end", self._told_ns, open_.start_ns, open_.end_ns, open_.peak)

    def _follow(self, now_ns: int, known: Known) -> list[Transition]:
        open_ = self._open
        assert open_ is not None  # by `step`
        span = _at(known.sure, open_.end_ns)
        end_ns = open_.end_ns if span is None else span.end - 1
        peak = open_.peak if span is None else max(span.peak, open_.peak)
        if _at(known.may, end_ns + 1) is None:
            return [self._tell("end", now_ns, open_.start_ns, end_ns, peak)]
        if end_ns > open_.end_ns and now_ns - self._told_ns >= self._update_ns:
            return [self._tell("update", now_ns, open_.start_ns, end_ns, peak)]
        return []

    def _tell(self, phase: str, now_ns: int, start_ns: int, end_ns: int, peak: float) -> Transition:
        told = Transition(phase, start_ns, end_ns, peak)  # type: ignore[arg-type]  # one of its phases
        self._open = None if phase == "end" else told
        self._told_ns = now_ns
        if phase == "end":
            self._free_ns = end_ns + 1
        return told

    def _forget(self, now_ns: int, tracks: Mapping[Atom, Track]) -> None:
        """What no event that is open or may yet come can depend on."""
        open_ns = [t.open_since_ns for t in tracks.values() if t.open_since_ns is not None]
        own = [self._open.start_ns] if self._open is not None else []
        settle_ns = max(track.settle_ns for track in tracks.values())
        # What is true at a time hangs on no more than `reach` around it, and is settled by then.
        settled_ns = min([now_ns, *open_ns, *own]) - self._reach_ns - 2 * settle_ns
        self._free_ns = max(self._free_ns, settled_ns)
        # What began before that and still goes on hangs on where it began: it is kept whole.
        spans = [span for track in tracks.values() for span in track.known(now_ns).sure]
        alive = _widened(spans, 0, self._reach_ns + settle_ns)
        cut_ns = settled_ns - self._reach_ns
        cut_ns = min([cut_ns, *(span.start for span in alive if span.end >= cut_ns)])
        for track in tracks.values():
            track.forget(cut_ns)


def _both(change: Callable[[Sequence[Span]], list[Span]], known: Known) -> Known:
    return Known(change(known.sure), change(known.may))


def _at(spans: Sequence[Span], t_ns: int) -> Span | None:
    number = bisect_right([span.start for span in spans], t_ns) - 1
    return spans[number] if number >= 0 and spans[number].end > t_ns else None


def _merged(spans: Sequence[Span]) -> list[Span]:
    """In order, with those that overlap or touch made one."""
    out: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, s.end)):
        if out and span.start <= out[-1].end:
            last = out[-1]
            out[-1] = Span(last.start, max(last.end, span.end), max(last.peak, span.peak))
        else:
            out.append(span)
    return out


def _widened(spans: Sequence[Span], before_ns: int, after_ns: int) -> list[Span]:
    return _merged([Span(s.start - before_ns, min(s.end + after_ns, EVER), s.peak) for s in spans])


def _crossed(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    out, n, m = [], 0, 0
    while n < len(left) and m < len(right):
        a, b = left[n], right[m]
        start, end = max(a.start, b.start), min(a.end, b.end)
        if start < end:
            out.append(Span(start, end, min(a.peak, b.peak)))
        n, m = (n + 1, m) if a.end <= b.end else (n, m + 1)
    return out


def _near(left: Sequence[Span], right: Sequence[Span], within_ns: int) -> list[Span]:
    """Either, while the other is on or went off no longer ago than that."""
    return _merged(
        [
            *_crossed(left, _widened(right, 0, within_ns)),
            *_crossed(right, _widened(left, 0, within_ns)),
        ]
    )


def _without(left: Sequence[Span], right: Sequence[Span]) -> list[Span]:
    out, ends = [], [other.end for other in right]
    for span in left:
        start = span.start
        for number in range(bisect_right(ends, start), len(right)):
            other = right[number]
            if other.start >= span.end:
                break
            if other.start > start:
                out.append(Span(start, other.start, span.peak))
            start = other.end
        if start < span.end:
            out.append(Span(start, span.end, span.peak))
    return out


def _lasting(spans: Sequence[Span], least_ns: int) -> list[Span]:
    return [Span(s.start + least_ns, s.end, s.peak) for s in spans if s.end - s.start > least_ns]


def _then(left: Known, right: Known, within_ns: int) -> Known:
    """Each interval of `right` that begins after one of `left` began, and soon after it ended."""

    sure, may = [], []
    first_sure = _first_open_after(left.sure, within_ns)
    first_may = _first_open_after(left.may, within_ns)
    for whole in right.may:
        start = whole.start
        # Its beginning is certain where it surely is on from there.
        own = _at(right.sure, start)
        if own is not None and own.start == start:
            before = first_may(start)
            if before is not None and before.start < start:
                may.append(whole)
            first = first_sure(start)
            if first is not None and first.start < start:
                sure.append(Span(start, own.end, min(first.peak, own.peak)))
            if may and may[-1] is whole:
                continue
            start = own.end  # and then another one may begin
        before = first_may(start)
        if start < whole.end and before is not None and before.start < whole.end:
            may.append(Span(start, whole.end, whole.peak))
    return Known(sure, may)


def _first_open_after(spans: Sequence[Span], within_ns: int) -> Callable[[int], Span | None]:
    """Of a time, the first that is over no more than `within_ns` before it."""
    ends = [span.end + within_ns for span in spans]

    def first(t_ns: int) -> Span | None:
        number = bisect_right(ends, t_ns)
        return spans[number] if number < len(spans) else None

    return first
