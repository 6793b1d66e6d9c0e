"""What an agent says on the bus, as a picture for people."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.clock import to_s
from agent.publish.client import Message
from agent.wire import EmbeddingMessage, Event, Health, ScoreMessage, SensorStatus, StreamHealth

__all__ = ["WatchView", "bar", "listing", "or_note", "time_ns"]

_STATE_STYLE = {"online": "green", "degraded": "yellow", "offline": "bold red", "ended": "dim"}
_BAR_CELLS = 20
_RECENT_EVENTS = 8


@dataclass
class _Query:
    """What is known of one query: its newest score, and whether it is firing now."""

    label: str
    value: float = 0.0
    threshold: float = 0.0
    has_live_score: bool = False
    open_since_ns: int | None = None
    events: int = 0


class WatchView:
    """What an agent has said so far, as a picture: messages in, a rich renderable out.

    origin_ns: the time that is shown as 0 s; None takes that of the first message. It opens
    nothing and reads no clock. Not thread-safe.
    """

    def __init__(self, origin_ns: int | None = None) -> None:
        self.origin_ns = origin_ns
        self._begin("")

    def _begin(self, boot_id: str) -> None:
        # Of an agent that was restarted nothing holds any more: what was open never gets its end.
        self._boot_id = boot_id
        self._queries: dict[str, _Query] = {}
        self._status: dict[str, SensorStatus] = {}
        self._streams: dict[str, StreamHealth] = {}
        self._health: Health | None = None
        self._events: dict[str, Event] = {}  # the recent and the open ones, by id
        self._recent: deque[str] = deque(maxlen=_RECENT_EVENTS)

    def elapsed_s(self, t_ns: int) -> float:
        """Seconds from the origin to `t_ns`; 0 while there is no origin."""
        return 0.0 if self.origin_ns is None else to_s(t_ns - self.origin_ns)

    def feed(self, message: Message) -> bool:
        """Take in one message; False where it says nothing new (a retained copy)."""
        if self.origin_ns is None:
            self.origin_ns = time_ns(message)
        if message.boot_id != self._boot_id:
            self._begin(message.boot_id)
        if isinstance(message, Event):
            return self._feed_event(message)
        if isinstance(message, ScoreMessage):
            self._feed_score(message).has_live_score = True
        elif isinstance(message, SensorStatus):
            known = self._status.get(message.stream)
            self._status[message.stream] = message
            return known is None or (known.state, known.since) != (message.state, message.since)
        elif isinstance(message, Health):
            self._health = message
            self._streams = {stream.stream: stream for stream in message.streams}
        return True

    def _feed_score(self, message: Event | ScoreMessage) -> _Query:
        query = self._queries.setdefault(message.query.id, _Query(message.query.label))
        query.label = message.query.label
        query.value, query.threshold = message.score.value, message.score.threshold
        return query

    def _feed_event(self, event: Event) -> bool:
        known = self._events.get(event.id)
        if known is not None and known.revision >= event.revision:
            return False
        query = self._feed_score(event)
        query.open_since_ns = None if event.phase == "end" else event.start_time.ns
        if known is None:
            query.events += 1
            self._recent.append(event.id)
        self._events[event.id] = event
        self._events = {
            event_id: kept
            for event_id, kept in self._events.items()
            if kept.phase != "end" or event_id in self._recent
        }
        return True

    def render(self) -> RenderableType:
        """The whole picture: sensors, queries, recent events and a line on the agent's health."""
        parts = (self._sensors(), self._queries_table(), self._events_table(), self._health_line())
        return Group(*(piece for part in parts for piece in (part, "")))

    def _sensors(self) -> Table:
        table = listing("Sensors", "name", "sense", "state", ">rate", ">lost", ">age")
        for name in sorted({*self._status, *self._streams}):
            status, stream = self._status.get(name), self._streams.get(name)
            # The status comes at once, health up to a second later.
            unit = status or stream
            assert unit is not None
            state = Text(unit.state, _STATE_STYLE.get(unit.state, ""))
            if status and status.reason:
                state.append(f"  {status.reason}", "dim")
            rate = lost = age = ""
            if stream is not None:
                rate, lost = f"{stream.rate_hz:.0f} Hz", f"{stream.lost}"
                age = "" if stream.age_ms is None else f"{stream.age_ms:.0f} ms"
                if stream.doubt:
                    state.append(f"  {stream.doubt}", "yellow")
            table.add_row(Text(name), unit.modality, state, rate, lost, age)
        return or_note(table, "none heard of yet")

    def _queries_table(self) -> Table:
        table = listing("Queries", "looking for", "score, | is where it fires", "now", ">events")
        for query in self._queries.values():
            firing = query.open_since_ns is not None
            shown = query.has_live_score or firing
            score = bar(query.value, query.threshold, firing) if shown else Text("-", "dim")
            now = Text("quiet", "dim")
            if query.open_since_ns is not None:
                since_s = self.elapsed_s(query.open_since_ns)
                now = Text(f"FIRING since {since_s:.1f}s", "bold green")
            table.add_row(Text(query.label), score, now, str(query.events))
        return or_note(table, "each shows with its first event (or live score: bus.score_hz)")

    def _events_table(self) -> Table:
        table = listing("Recent events", ">at", "what", "", "seen by", ">score", ">lasted")
        for event in (self._events[event_id] for event_id in reversed(self._recent)):
            state = Text("ended", "dim") if event.phase == "end" else Text("open", "bold green")
            table.add_row(
                f"{self.elapsed_s(event.start_time.ns):.1f}s",
                Text(event.query.label),
                state,
                event.evidence[0].stream if event.evidence else "-",
                f"{event.score.value:.2f}",
                f"{to_s(event.end_time.ns - event.start_time.ns):.1f}s",
            )
        return or_note(table, "nothing has happened yet")

    def _health_line(self) -> Text:
        health = self._health
        if health is None:
            return Text("Agent   no health message yet", "dim")
        parts = [
            f"up {health.uptime_s:.0f} s",
            f"cpu {health.cpu_percent:.0f}%",
            f"memory {health.rss_mb:.0f} MB",
        ]
        if health.latency_ms:
            hop = max(health.latency_ms, key=lambda hop: hop.p95)
            parts.append(f"slowest step: {hop.hop}, p50 {hop.p50:.0f} ms, p95 {hop.p95:.0f} ms")
        if health.temperature_c is not None:
            parts.append(f"{health.temperature_c:.0f} °C")
        if dropped := sum(health.drops.values()):
            parts.append(f"dropped {dropped}")
        if health.recording:
            parts.append(f"recording to {health.recording}")
        return Text.assemble(("Agent   ", "bold"), "   ".join(parts))


def time_ns(message: Message) -> int:
    """When it happened, on the agent's clock."""
    if isinstance(message, Event):
        return message.end_time.ns if message.phase == "end" else message.start_time.ns
    if isinstance(message, SensorStatus):
        return message.since.ns
    return (message.window.end if isinstance(message, EmbeddingMessage) else message.time).ns


def bar(value: float, threshold: float, firing: bool) -> Text:
    """A score of 0..1 as filled cells, with a mark at the threshold."""
    filled = round(value * _BAR_CELLS)
    mark = min(round(threshold * _BAR_CELLS), _BAR_CELLS - 1)
    colour = "green" if firing else "cyan"
    text = Text()
    for cell in range(_BAR_CELLS):
        if cell == mark:
            text.append("|", "bold")
        else:
            text.append("█" if cell < filled else "░", colour if cell < filled else "dim")
    return text.append(f" {value:.2f}")


def listing(title: str, *columns: str) -> Table:
    """A plain table; a column whose name begins with ">" is aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.padding = (0, 3, 0, 0)
    table.header_style = "dim"
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column[:1] == ">" else "left")
    return table


def or_note(table: Table, note: str) -> Table:
    """`table`, or its title with `note` where it has no rows."""
    if not table.row_count:
        table = listing(str(table.title), "")
        table.show_header = False
        table.add_row(Text(note, "dim"))
    return table
