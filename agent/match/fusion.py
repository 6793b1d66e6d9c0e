"""Hop 5: the newest embedding of each stream against all queries, and what it adds up to.

An embedding with views answers each query by the whole frame and by the best of its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.clock import NS_PER_S, from_s
from agent.config import GateConfig, MatchConfig
from agent.contracts import Space
from agent.errors import SpaceMismatch
from agent.match.calibrated import Calibration, calibration_of
from agent.match.calibration import Float64Array, Null, allowed, gate_of, logistic, rarity
from agent.match.combined import Combined
from agent.match.meaning import DECIMALS, Terms, Together
from agent.match.queries import Query
from agent.match.tail import EXCESS, SHARE, Rows, Tail, bank_tail
from agent.ordinary import nearness
from agent.types import Embedding, StreamInfo
from agent.wire import Evidence, Score, Span, Time

__all__ = ["Fusion"]

KIND = "z_logistic"
RATE_KIND = "false_alarm_rarity"
LEAST_PER_HOUR = 1e-3  # a threshold that nothing reaches is none to learn by
READY = 0.8  # of the weight of a tail is the stream's own: an hour of it


@dataclass
class _Stream:
    """One stream's null and its newest evidence; arrays are (queries,). row: of the embedding's
    `rows`, the one that answers each query best. cosine: nearness as agent.match.meaning has it.
    """

    info: StreamInfo
    hop_ns: int
    terms: list[Terms]
    together: Together
    may: NDArray[np.bool_]
    null: Null
    tail: Tail
    embedding: Embedding | None
    row: NDArray[np.intp]
    cosine: Float64Array
    z: Float64Array
    per_hour: Float64Array  # false alarms as high as z
    score: Float64Array
    limit: Float64Array  # false alarms as high as the threshold


class Fusion:
    """Scores of a fixed list of queries ("rows") over the streams that may answer them."""

    def __init__(
        self,
        config: MatchConfig,
        space: Space,
        rows: list[Query],
        streams: dict[str, tuple[StreamInfo, int]],
        before: Fusion | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """streams: name -> (info, hop_ns). before: its nulls and evidence are taken over.
        calibration: what nulls begin with where there was none before.
        """
        self._calibration: Calibration | None = (
            before._calibration if before is not None else calibration
        )
        self._config, self._space = config, space
        self._max_age_ns = from_s(config.max_age_s)
        self.rows = rows
        self._row_of = {query.null_key: row for row, query in enumerate(rows)}
        rates = [allowed(query.config, config) for query in rows]
        self._rated = np.array([rate is not None for rate in rates], bool)
        asked = [sum(q.may_answer(info) for info, _ in streams.values()) for q in rows]
        self._rates = np.array([rate or 1.0 for rate in rates])
        self._several = self._rated & (np.array(asked, np.intp) >= 2)
        # Whichever is the highest of several streams, and of what they say together, has the false
        # alarms of all of them.
        self._share = self._rates / np.maximum(np.array(asked, np.intp) + self._several, 1)
        self._gates = [gate_of(query.config, query.gate, config) for query in rows]
        enter = np.clip([gate.enter for gate in self._gates], 1e-9, 1 - 1e-9)
        self._enter_z = config.z_mid + config.z_scale * np.log(enter / (1 - enter))
        self._streams = {
            name: self._add(info, hop_ns, before) for name, (info, hop_ns) in streams.items()
        }
        often = sum(NS_PER_S / hop_ns for _, hop_ns in streams.values())
        self._combined = Combined(len(rows), list(streams), 1 / often if often else 1.0)
        old = before._combined if before is not None else None
        if before is not None and old is not None and old.names == self._combined.names:
            self._combined.take(old, *self._kept(before))
        self._together = self._combined_score()

    def observe(self, embedding: Embedding) -> Float64Array:
        """Scores (rows,) of one new embedding; 0 where its stream may not answer.

        Raises SpaceMismatch for a vector of another space.
        """
        if embedding.space != self._space.identity:
            raise SpaceMismatch(
                f"stream {embedding.stream}: embedded in {embedding.space}, "
                f"queries are in {self._space.identity}"
            )
        stream = self._streams[embedding.stream]
        self._see(stream, embedding)
        if not self._several.any():
            return stream.score
        self._combine(embedding.end_ns)
        return np.maximum(stream.score, self._together * stream.may)

    def learn(self, name: str, quiet: NDArray[np.bool_]) -> None:
        """Let the null of `name` take in its newest cosines, of the rows that are `quiet`."""
        stream = self._streams[name]
        wanted = np.maximum(stream.limit, LEAST_PER_HOUR)
        stream.tail.learn(stream.z, quiet & stream.may, wanted)
        # A rate is held to by what is told: what an event hides from the null would come back as
        # the next event, and the next. A threshold that is set knows nothing of that.
        learns = stream.may & (quiet | self._rated)
        stream.null.learn(stream.cosine, quiet & stream.may, learns)
        stream.limit = self._limit(stream)
        if self._several.any():
            self._combined.learn(quiet & self._several, self._share)

    def best(self, row: int, now_ns: int) -> tuple[float, Embedding | None]:
        """The highest score among evidence no older than `max_age_s`, and whose it is."""
        value, of = 0.0, None
        for stream in self._streams.values():
            if self._fresh(stream, now_ns) and stream.may[row] and stream.score[row] > value:
                value, of = float(stream.score[row]), stream.embedding
        fresh = now_ns - self._combined.end_ns <= self._max_age_ns
        if of is not None and self._several[row] and fresh:
            value = max(value, float(self._together[row]))
        return value, of

    def evidence(self, row: int, now_ns: int) -> list[Evidence]:
        """What each stream that may answer says, the strongest first."""
        own = [s for s in self._streams.values() if s.may[row]]
        total = sum(max(0.0, float(s.z[row])) for s in own if self._fresh(s, now_ns))
        parts = [self._evidence(s, row, now_ns, total) for s in own]
        return sorted(parts, key=lambda e: (e.status != "ok", -(e.z or 0.0), e.stream))

    def score(self, row: int, value: float) -> Score:
        """`value` with how far its null has been learned."""
        streams = [s for s in self._streams.values() if s.may[row]]
        hours = (int(s.null.seen[row]) * s.hop_ns / NS_PER_S / 3600 for s in streams)
        learned = max((int(s.null.seen[row]) for s in streams), default=0)
        seen = [s for s in streams if s.embedding is not None]
        confidence = min((s.tail.confidence_of(row) for s in seen), default=0.0)
        state: Literal["prior", "learning", "ready"] = "prior"
        if learned >= self._config.prior_windows:
            state = "ready" if confidence >= READY else "learning"
        return Score(
            value=round(value, 4),
            kind=RATE_KIND if self._rated[row] else KIND,
            threshold=self._gates[row].enter,
            far_per_hour=round(self._at_threshold(row, streams), 6) if streams else None,
            calibration=state,
            confidence=round(confidence, 4),
            quiet_hours=round(max(hours, default=0.0), 4),
        )

    def learned(self) -> Calibration:
        """What the nulls have learned so far; of a query none of whose streams has, nothing."""
        streams = {
            name: (stream.info.modality, stream.null.learned(), stream.tail.learned())
            for name, stream in self._streams.items()
        }
        return calibration_of(self._space.identity, list(self._row_of), streams)

    def gate(self, row: int) -> GateConfig:
        """That of the query, with the thresholds that its score is compared with."""
        return self._gates[row]

    def may_answer(self, name: str) -> NDArray[np.bool_]:
        """(rows,): which queries the stream `name` may answer."""
        return self._streams[name].may

    def said(self, name: str) -> tuple[Float64Array, Float64Array]:
        """(rows,) each, of the newest embedding of `name`: z, and false alarms an hour as high."""
        return self._streams[name].z, self._streams[name].per_hour

    def hop_ns(self, name: str) -> int:
        return self._streams[name].hop_ns

    def _add(self, info: StreamInfo, hop_ns: int, before: Fusion | None) -> _Stream:
        floor = self._config.min_deviation
        old = before._streams.get(info.name) if before is not None else None
        known = dict(zip(before._row_of, old.terms, strict=True)) if before and old else {}
        terms = [
            known.get(query.null_key) or query.terms(self._space, info.modality, floor)
            for query in self.rows
        ]
        mean, deviation = np.array([t.ordinary for t in terms], np.float64).reshape(-1, 2).T
        share, excess = self._prior_tail(terms, info.modality, known).T
        empty = np.zeros(len(self.rows))
        stream = _Stream(
            info,
            hop_ns,
            terms=terms,
            together=Together(terms, self._space.dim),
            may=np.array([query.may_answer(info) for query in self.rows], bool),
            null=Null(self._config, mean, deviation),
            tail=Tail(hop_ns / NS_PER_S, share, excess),
            embedding=None,
            row=np.zeros(len(self.rows), np.intp),
            cosine=empty,
            z=empty,
            per_hour=empty,
            score=empty,
            limit=empty,
        )
        if self._calibration is not None:
            self._calibration.give(info, self._row_of, stream.null, stream.tail)
        if before is not None and old is not None:
            here, there = self._kept(before)
            stream.null.take(old.null.learned(), here, there)
            stream.tail.take(old.tail.learned(), here, there)
            if old.embedding is not None:
                self._see(stream, old.embedding)
                # As it was scored: the null has learned from that very cosine since.
                stream.z[here] = old.z[there]
                stream.per_hour[here] = old.per_hour[there]
                self._score(stream)
        stream.limit = self._limit(stream)
        return stream

    def _prior_tail(
        self, terms: list[Terms], modality: str, known: dict[tuple[str, str], Terms]
    ) -> Float64Array:
        """(rows, 2): share and mean excess, of what the space's bank says of each query's z."""
        bank = self._space.background(modality).astype(np.float64)
        prior = np.tile(np.array([SHARE, EXCESS]), (len(terms), 1))
        for row, (query, each) in enumerate(zip(self.rows, terms, strict=True)):
            # What is known brings its own along; a probe's bank is no measure of anything.
            if query.null_key in known or query.meaning.taught or not len(bank):
                continue
            near = nearness(np.swapaxes(bank @ each.vectors.T, 1, 2))
            near = Together([each], self._space.dim).combine(near)[:, 0]
            mean, deviation = each.ordinary
            prior[row] = bank_tail((near - mean) / max(deviation, self._config.min_deviation))
        return prior

    def _at_threshold(self, row: int, streams: list[_Stream]) -> float:
        """False alarms an hour, of all of `streams`."""
        if self._rated[row]:
            return float(self._rates[row])
        return sum(float(stream.limit[row]) for stream in streams)

    def _combine(self, now_ns: int) -> None:
        streams = list(self._streams.values())
        fresh = np.array([self._fresh(stream, now_ns) for stream in streams], bool)
        may = np.stack([stream.may for stream in streams], axis=1)
        z = np.stack([stream.z for stream in streams], axis=1)
        per_hour = np.stack([stream.per_hour for stream in streams], axis=1)
        high = per_hour <= self._share[:, np.newaxis]
        self._combined.observe(z, may & fresh & self._several[:, np.newaxis], high, now_ns)
        self._together = self._combined_score()

    def _combined_score(self) -> Float64Array:
        """Of what several streams say together; 0 where there are not several."""
        rare = rarity(self._combined.per_hour, self._share)
        return np.where(self._combined.there, rare, 0.0)

    def _kept(self, before: Fusion) -> tuple[Rows, Rows]:
        """Rows of the queries that were there before: here, and there."""
        known = before._row_of
        kept = [(row, known[key]) for key, row in self._row_of.items() if key in known]
        here, there = np.array(kept, np.intp).reshape(-1, 2).T
        return here, there

    def _limit(self, stream: _Stream) -> Float64Array:
        """False alarms an hour of each query's threshold on one stream."""
        if self._rated.all():
            return self._share
        return np.where(self._rated, self._share, stream.tail.per_hour(self._enter_z))

    def _see(self, stream: _Stream, embedding: Embedding) -> None:
        stream.embedding = embedding
        near, stream.row = stream.together.answer(embedding.rows)
        stream.cosine = np.round(near, DECIMALS)
        stream.z = np.round(stream.null.z(stream.cosine), DECIMALS)
        stream.per_hour = stream.tail.per_hour(stream.z)
        self._score(stream)

    def _score(self, stream: _Stream) -> None:
        score = logistic(stream.z, self._config.z_mid, self._config.z_scale)
        rare = rarity(stream.per_hour, self._share)
        stream.score = np.where(self._rated, rare, score) * stream.may

    def _fresh(self, stream: _Stream, now_ns: int) -> bool:
        seen = stream.embedding
        return seen is not None and now_ns - seen.end_ns <= self._max_age_ns

    def _evidence(self, stream: _Stream, row: int, now_ns: int, total_z: float) -> Evidence:
        info, seen = stream.info, stream.embedding
        if seen is None:
            return Evidence(
                stream=info.name, modality=info.modality, frame_id=info.frame_id, status="missing"
            )
        fresh = self._fresh(stream, now_ns)
        return Evidence(
            stream=info.name,
            modality=info.modality,
            frame_id=info.frame_id,
            status="ok" if fresh else "stale",
            cosine=float(stream.cosine[row]),
            z=float(stream.z[row]),
            far_per_hour=round(float(stream.per_hour[row]), 6),
            share=round(max(0.0, float(stream.z[row])) / total_z, 4) if fresh and total_z else None,
            window=Span(start=Time.of(seen.start_ns), end=Time.of(seen.end_ns)),
            age_ms=None if fresh else round((now_ns - seen.end_ns) / 1e6, 3),
            reused=seen.reused,
            region=seen.regions[stream.row[row]],
        )
