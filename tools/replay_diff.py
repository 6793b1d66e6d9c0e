"""Two replays of one log side by side: which events appear, vanish and move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from agent.clock import to_s
from agent.wire import Event

__all__ = ["Change", "Told", "changes", "table", "told"]

MOVED_S = 0.001  # a start or an end that differs by more has moved


@dataclass(frozen=True)
class Told:
    """One event from start to end. Seconds into the replay. value: its highest score."""

    query: str
    from_s: float
    to_s: float
    value: float


@dataclass(frozen=True)
class Change:
    """before, after: None where the event is only in the other."""

    what: Literal["appears", "vanishes", "moves", "stays"]
    before: Told | None
    after: Told | None

    @property
    def at_s(self) -> float:
        return min(each.from_s for each in (self.before, self.after) if each is not None)

    def as_dict(self) -> dict[str, Any]:
        either = self.after or self.before
        assert either is not None  # one of the two is there
        spans = {
            name: one and {"from_s": one.from_s, "to_s": one.to_s, "value": one.value}
            for name, one in (("before", self.before), ("after", self.after))
        }
        return {"what": self.what, "query": either.query, **spans}


def told(events: Sequence[Event], began_ns: int) -> list[Told]:
    """What a replay told, of its events in all phases. began_ns: arrival of its first sample."""
    ended = [event for event in events if event.phase == "end"]
    return [
        Told(
            event.query.id,
            round(to_s(event.start_time.ns - began_ns), 3),
            round(to_s(event.end_time.ns - began_ns), 3),
            event.score.value,
        )
        for event in ended
    ]


def changes(before: Sequence[Told], after: Sequence[Told]) -> list[Change]:
    """By time. Two events of one query are the same where they overlap, the earliest first."""
    found: list[Change] = []
    left = sorted(after, key=lambda one: (one.from_s, one.query))
    for old in sorted(before, key=lambda one: (one.from_s, one.query)):
        new = next((one for one in left if one.query == old.query and _overlap(one, old)), None)
        if new is None:
            found.append(Change("vanishes", old, None))
            continue
        left.remove(new)
        shift_s = max(abs(new.from_s - old.from_s), abs(new.to_s - old.to_s))
        found.append(Change("moves" if shift_s > MOVED_S else "stays", old, new))
    found += [Change("appears", None, new) for new in left]
    return sorted(found, key=lambda change: change.at_s)


def table(found: Sequence[Change]) -> Table:
    """For people: what changed; what stays is counted only."""
    counts = dict.fromkeys(("appears", "vanishes", "moves", "stays"), 0)
    for change in found:
        counts[change.what] += 1
    title = ", ".join(f"{count} {what}" for what, count in counts.items())
    drawn = Table("", "query", "before s", "after s", "score", title=title, title_justify="left")
    for change in found:
        if change.what != "stays":
            sides = (change.before, change.after)
            scores = " to ".join("-" if one is None else f"{one.value:.2f}" for one in sides)
            either = change.after or change.before
            assert either is not None  # one of the two is there
            drawn.add_row(change.what, either.query, *map(_span, sides), scores)
    return drawn


def _overlap(one: Told, other: Told) -> bool:
    return one.from_s <= other.to_s and other.from_s <= one.to_s


def _span(one: Told | None) -> str:
    return "-" if one is None else f"{one.from_s:.2f} to {one.to_s:.2f}"
