"""What an agent hears now: the live scores of all its queries, the highest first."""

from __future__ import annotations

from collections import deque

from rich.console import RenderableType
from rich.text import Text

from agent.clock import to_s
from agent.publish.client import Message
from agent.wire import Event, Evidence, Health, Score, ScoreMessage
from tools.watch_view import bar, listing, or_note, time_ns

__all__ = ["ScoresView"]

# All scores of a round have one time. A message may be dropped on its way; a query that several
# rounds are without has been removed or switched off.
_ROUNDS = 3

_Scored = ScoreMessage | Event


class ScoresView:
    """The newest score of each query: messages in, a rich renderable or a line of text out.

    top: how many to show, >= 1. A `when` has no live score and is here while its event is open.
    It opens nothing and reads no clock. Not thread-safe.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self.origin_ns: int | None = None  # the time that is shown as 0 s: of the first message
        self._begin("")

    def _begin(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._scores: dict[str, ScoreMessage] = {}  # by query id, as are the open events
        self._open: dict[str, Event] = {}
        self._rounds: deque[int] = deque(maxlen=_ROUNDS)
        self._healths: deque[Health] = deque(maxlen=2)

    @property
    def round_ns(self) -> int | None:
        """Time of the newest round of scores; None before the first."""
        return self._rounds[-1] if self._rounds else None

    @property
    def note(self) -> str:
        """Why there are no scores, for people; "" while it is too early to say."""
        if len(self._healths) < 2:
            return ""
        if not self._healths[-1].queries:
            return 'nothing is asked for yet: python -m tools.query add "a dog barking"'
        return "no live scores yet: the agent sends them with --set bus.score_hz=2, say"

    def feed(self, message: Message) -> None:
        """Take in one message."""
        if self.origin_ns is None:
            self.origin_ns = time_ns(message)
        if message.boot_id != self._boot_id:
            self._begin(message.boot_id)  # of an agent that was restarted nothing holds any more
        if isinstance(message, ScoreMessage):
            self._feed_score(message)
        elif isinstance(message, Event):
            self._open.pop(message.query.id, None)
            if message.phase != "end":
                self._open[message.query.id] = message
        elif isinstance(message, Health):
            self._healths.append(message)

    def _feed_score(self, message: ScoreMessage) -> None:
        if self.round_ns is None or message.time.ns > self.round_ns:
            self._rounds.append(message.time.ns)
            self._scores = {
                query: kept
                for query, kept in self._scores.items()
                if kept.time.ns >= self._rounds[0]
            }
        self._scores[message.query.id] = message

    def render(self) -> RenderableType:
        """A table of the highest; what is firing is green."""
        rows, top = self._highest(), self._top
        title = f"Now, at {self._elapsed_s():.1f} s" if rows else "Now"
        if len(rows) > top:
            title += f"  (the first {top} of {len(rows)}: --top)"
        table = listing(
            title,
            "looking for",
            "score, | is where it fires",
            ">at",
            ">alarms/h",
            "senses, in z",
        )
        for column in table.columns[1:-1]:
            column.no_wrap = True  # the others, of any length, give way
        for row in rows[:top]:
            firing, score = row.query.id in self._open, row.score
            table.add_row(
                _cut(row.query.label, "bold green" if firing else ""),
                bar(score.value, score.threshold, firing),
                f"{score.threshold:.2f}",
                _often(score),
                _cut("  ".join(_sense(each) for each in row.evidence)),
            )
        return or_note(table, self.note or "no score yet")

    def line(self) -> str:
        """The highest in one line: score, label, the strongest sense; "*" is firing."""
        parts = []
        for row in self._highest()[: self._top]:
            mark = "*" if row.query.id in self._open else ""
            strongest = f" {_sense(row.evidence[0])}" if row.evidence else ""
            parts.append(f'{row.score.value:.2f}{mark} "{row.query.label}"{strongest}')
        return f"{self._elapsed_s():.1f}s {', '.join(parts) or '-'}"

    def _elapsed_s(self) -> float:
        return to_s((self.round_ns or 0) - (self.origin_ns or 0))

    def _highest(self) -> list[_Scored]:
        scored: dict[str, _Scored] = {**self._open, **self._scores}
        return sorted(
            scored.values(),
            key=lambda row: (
                -row.score.value,
                -max((each.z or 0.0 for each in row.evidence), default=0.0),
                row.query.id,
            ),
        )


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _often(score: Score) -> str:
    """False alarms an hour; with ~ while the streams themselves have said too little of it."""
    often = score.far_per_hour
    if often is None:
        return "-"
    known = "" if score.calibration == "ready" else "~"
    return f"{known}{often:.0f}" if often >= 10 else f"{known}{often:.2g}"


def _sense(each: Evidence) -> str:
    said = each.status if each.status != "ok" or each.z is None else f"{each.z:+.1f}"
    named = f"{each.query}: " if each.query else ""  # which of those that a `when` names
    return f"{named}{each.stream} {said}"
