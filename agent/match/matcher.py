"""Hop 6: scores through gates, events out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from agent.clock import Clock, from_s
from agent.config import MatchConfig
from agent.contracts import Space
from agent.match.calibrated import Calibration
from agent.match.doubts import Doubts
from agent.match.fusion import Fusion
from agent.match.gate import Gate, Transition
from agent.match.queries import QuerySet
from agent.match.whens import Whens
from agent.types import Embedding, StreamInfo
from agent.wire import (
    ClockState,
    Event,
    Evidence,
    Latency,
    Model,
    QueryRef,
    Score,
    ScoreMessage,
    Time,
)

__all__ = ["EventContext", "Matcher"]

NO_EVIDENCE = -1.0  # a score below any exit threshold
MAX_ENDED = 10_000  # queries, also such as are gone, of which the last event's end is remembered


@dataclass(frozen=True)
class EventContext:
    """What every event says of the agent it came from."""

    agent: str
    boot_id: str
    clock: Clock
    clock_state: Callable[[], ClockState]
    model: Callable[[], Model]
    drops: Callable[[], dict[str, int]]


class Matcher:
    """Scores each new embedding against every query and follows each query's gate.

    One thread. `observe`, `tick` and `close` return the events to publish, in order. Queries may
    change between calls; what a stream's null has learned of an unchanged query is kept.
    """

    def __init__(
        self,
        config: MatchConfig,
        queries: QuerySet,
        space: Space,
        context: EventContext,
        calibration: Calibration | None = None,
    ) -> None:
        """calibration: what the nulls begin with."""
        self.queries = queries
        self._config, self._space, self._context = config, space, context
        self._streams: dict[str, tuple[StreamInfo, int]] = {}
        self._fusion = Fusion(config, space, [], {}, calibration=calibration)
        self._doubts = Doubts()
        self._gates: list[Gate] = []
        self._whens = Whens([], {}, {}, {})
        self._open: dict[str, tuple[str, int]] = {}  # query id -> (event id, revision)
        # By query id, the first time that no event has claimed: another definition of it, or the
        # same that was off, may be given evidence that an event was already told of.
        self._free_ns: dict[str, int] = {}
        self._version = -1

    @property
    def open_events(self) -> int:
        return len(self._open)

    def add_stream(self, info: StreamInfo, hop_ns: int) -> None:
        """A stream that will give embeddings every `hop_ns`."""
        self._streams[info.name] = (info, hop_ns)
        self._doubts.add_stream(info)
        self._version = -1

    def observe(self, embedding: Embedding) -> list[Event]:
        """Score one embedding; the events it starts, updates or ends.

        Raises SpaceMismatch for a vector of another space.
        """
        events = self._refresh()
        scores = self._fusion.observe(embedding)
        may = self._fusion.may_answer(embedding.stream)
        self._doubts.observe(embedding, *self._fusion.said(embedding.stream), may)
        for row, gate in enumerate(self._gates):
            if not may[row] or (gate.is_idle and scores[row] < gate.config.enter):
                continue
            value, best = self._fusion.best(row, embedding.end_ns)
            t_ns, began = embedding.end_ns, None
            if best is not None and value >= gate.config.exit:
                # What holds an event open holds it to its own end, not to that of another
                # stream's; and its newest hop is what it has that its predecessor had not.
                t_ns = best.end_ns
                began = max(best.start_ns, t_ns - self._fusion.hop_ns(best.stream))
            told = gate.step(t_ns, value, began)
            events += self._tell(row, told, embedding.end_ns)
        quiet = np.array([gate.is_quiet for gate in self._gates], bool)
        self._fusion.learn(embedding.stream, quiet)
        return events + self._follow(embedding.end_ns)

    def tick(self, now_ns: int) -> list[Event]:
        """Time has passed: what no fresh evidence holds open comes to its end."""
        events = self._refresh()
        for row, gate in enumerate(self._gates):
            if gate.is_idle or self._fusion.best(row, now_ns)[1] is not None:
                continue
            told = gate.step(now_ns, NO_EVIDENCE)
            events += self._tell(row, told, now_ns, "stale")
        return events + self._follow(now_ns)

    def close(self, reason: str = "shutdown") -> list[Event]:
        """End everything that is open."""
        now = self._context.clock.now_ns()
        ends = [(row, gate.close()) for row, gate in enumerate(self._gates)]
        events = [event for row, told in ends for event in self._tell(row, told, now, reason)]
        return events + self._close_whens(self._whens.keys(), reason)

    def doubts(self, now_ns: int) -> dict[str, str]:
        """By stream, why it may be no good though it runs, for people; those that seem well left
        out.
        """
        return self._doubts.sentences(now_ns)

    def learned(self) -> Calibration:
        """What the nulls have learned so far."""
        return self._fusion.learned()

    def scores(self, now_ns: int) -> list[ScoreMessage]:
        """The live score of every enabled query."""
        self._refresh()
        return [
            ScoreMessage(
                agent=self._context.agent,
                boot_id=self._context.boot_id,
                query=query.ref,
                time=Time.of(now_ns),
                score=self._fusion.score(row, self._fusion.best(row, now_ns)[0]),
                evidence=self._fusion.evidence(row, now_ns),
            )
            for row, query in enumerate(self._fusion.rows)
            if query.config.enabled
        ]

    def _refresh(self) -> list[Event]:
        """Take up changed queries and streams; the ends of events whose query is gone."""
        if self._version == self.queries.version:
            return []
        rows = self.queries.scored()
        gates = {q.key: g for q, g in zip(self._fusion.rows, self._gates, strict=True)}
        now = self._context.clock.now_ns()
        keys = {query.key for query in rows}
        ended = []
        loud = {query.key for query in rows if query.config.enabled}
        for row, query in enumerate(self._fusion.rows):
            if query.key not in keys:
                told = gates[query.key].close()
                ended += self._tell(row, told, now, "query_changed")
            elif query.key not in loud and query.ref.id in self._open:
                current = gates[query.key].current  # it goes on for a `when`, untold
                if current is not None:
                    told = replace(current, phase="end")
                    ended.append(self._event_of(row, told, now, "query_changed"))
        self._fusion = Fusion(self._config, self._space, rows, self._streams, self._fusion)
        self._doubts.ask([query.null_key for query in rows])
        self._gates = [
            gates.get(query.key) or Gate(self._fusion.gate(row), self._free_ns.get(query.ref.id))
            for row, query in enumerate(rows)
        ]
        ended += self._refresh_whens()
        self._version = self.queries.version
        return ended

    def _refresh_whens(self) -> list[Event]:
        before, rows = self._whens, self._fusion.rows
        hops = {
            query.key: max(
                (hop for info, hop in self._streams.values() if query.may_answer(info)), default=0
            )
            + from_s(gate.config.min_duration_s)
            for query, gate in zip(rows, self._gates, strict=True)
        }
        atoms = {query.ref.id: query for query in rows}
        whens = self.queries.whens()
        ended = self._close_whens(before.gone(whens, atoms), "query_changed")
        self._whens = Whens(whens, atoms, hops, self._free_ns, before)
        return ended

    def _tell(self, row: int, told: Transition | None, t_ns: int, reason: str = "") -> list[Event]:
        """What a gate says, as an event of its query and to each `when` that names it."""
        query, gate = self._fusion.rows[row], self._gates[row]
        news = told or gate.current
        if news is not None and self._whens.names(query.key):
            score, evidence = self._fusion.score(row, news.peak), self._fusion.evidence(row, t_ns)
            self._whens.hear(query.key, news, score, evidence)
        if told is None or not (told.phase == "start" or query.ref.id in self._open):
            return []
        if told.phase == "start" and not query.config.enabled:
            return []
        return [self._event_of(row, told, t_ns, reason)]

    def _event_of(self, row: int, told: Transition, t_ns: int, reason: str) -> Event:
        query = self._fusion.rows[row].ref
        score, evidence = self._fusion.score(row, told.peak), self._fusion.evidence(row, t_ns)
        return self._event(query, told, score, evidence, self._fusion.best(row, t_ns)[1], reason)

    def _follow(self, t_ns: int) -> list[Event]:
        return [
            self._event(query.ref, told, *self._whens.says(query.key, told), None, "")
            for query, told in self._whens.step(t_ns)
        ]

    def _close_whens(self, keys: list[tuple[str, str]], reason: str) -> list[Event]:
        ends = [(key, self._whens.close(key)) for key in keys]
        refs = self._whens.refs()
        return [
            self._event(refs[key], told, *self._whens.says(key, told), None, reason)
            for key, told in ends
            if told is not None
        ]

    def _event(
        self,
        query: QueryRef,
        told: Transition,
        score: Score,
        evidence: list[Evidence],
        seen: Embedding | None,
        reason: str,
    ) -> Event:
        context = self._context
        now = context.clock.now_ns()
        event_id, revision = self._open.get(query.id) or (
            _ulid(query, context.agent, told.start_ns),
            -1,
        )
        if told.phase == "end":
            self._open.pop(query.id, None)
            self._free_ns.pop(query.id, None)  # the newest is the last
            self._free_ns[query.id] = told.end_ns + 1
            if len(self._free_ns) > MAX_ENDED:
                del self._free_ns[next(iter(self._free_ns))]
        else:
            self._open[query.id] = (event_id, revision + 1)
        return Event(
            id=event_id,
            revision=revision + 1,
            phase=told.phase,
            agent=context.agent,
            boot_id=context.boot_id,
            query=query,
            start_time=Time.of(told.start_ns),
            end_time=Time.of(told.end_ns),
            clock=context.clock_state(),
            score=score,
            evidence=evidence,
            latency_ms=Latency(
                capture_to_embed=_ms(seen.encoded_ns - seen.end_ns) if seen else 0.0,
                embed_to_event=_ms(now - seen.encoded_ns) if seen else 0.0,
                total=_ms(now - seen.end_ns) if seen else 0.0,
            ),
            model=context.model(),
            drops=context.drops(),
            reason=(reason or told.reason or "quiet") if told.phase == "end" else "",
        )


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)


# Crockford's base 32, as in https://github.com/ulid/spec: 48 bits of ms, 80 bits of the rest.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _ulid(query: QueryRef, agent: str, start_ns: int) -> str:
    """A ULID whose random part is a hash of what the event is, so that a replay gives it again."""
    rest = hashlib.sha256(f"{agent}/{query.id}/{query.rev}/{start_ns}".encode()).digest()[:10]
    number = (start_ns // 1_000_000 & (1 << 48) - 1) << 80 | int.from_bytes(rest, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
