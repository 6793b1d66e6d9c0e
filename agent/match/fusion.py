"""Hop 5: the newest embedding of each stream against all queries, and what it adds up to.

An embedding with views answers each query by the whole frame and by the best of its parts.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.clock import NS_PER_S, from_s
from agent.config import GateConfig, MatchConfig
from agent.contracts import Space
from agent.errors import SpaceMismatch
from agent.match.answers import Answers, prior_tail
from agent.match.calibrated import Calibration, calibration_of
from agent.match.calibration import Float64Array, Null, allowed, gate_of, logistic, rarity
from agent.match.combined import Combined
from agent.match.meaning import Together
from agent.match.queries import Query
from agent.match.tail import Rows, Tail
from agent.types import Embedding, StreamInfo
from agent.wire import Evidence, Score

__all__ = ["RATE_KIND", "Fusion"]

KIND = "z_logistic"
RATE_KIND = "false_alarm_rarity"
LEAST_PER_HOUR = 1e-3  # a threshold that nothing reaches is none to learn by
READY = 0.8  # of the weight of a tail is the stream's own: an hour of it


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
        self._rates = np.array([rate or 1.0 for rate in rates])
        infos = [info for info, _ in streams.values()]
        may = np.array([[q.may_answer(info) for info in infos] for q in rows], bool)
        may = may.reshape(len(rows), len(infos))
        asked = may.sum(axis=1)
        self._several = self._rated & (asked >= 2)
        weights = self._weights(infos, may)
        self._measured: NDArray[np.bool_] = np.any(weights > 0, axis=1)
        # Whichever is the highest of several streams, and of what they say together, has the false
        # alarms of all of them. What weights were measured for is asked of the sum alone.
        parts = np.where(self._measured, 1, np.maximum(asked + self._several, 1))
        self._share = self._rates / parts
        self._gates = [gate_of(query.config, query.gate, config) for query in rows]
        enter = np.clip([gate.enter for gate in self._gates], 1e-9, 1 - 1e-9)
        self._enter_z = config.z_mid + config.z_scale * np.log(enter / (1 - enter))
        each = np.where(self._measured[:, np.newaxis], weights, 1.0)
        self._streams = {
            info.name: self._add(info, hop_ns, own, weight, before)
            for (info, hop_ns), own, weight in zip(streams.values(), may.T, each.T, strict=True)
        }
        often = sum(NS_PER_S / hop_ns for _, hop_ns in streams.values())
        hop_s = 1 / often if often else 1.0
        self._combined = Combined(len(rows), list(streams), hop_s, weights)
        if self._calibration is not None:
            self._calibration.give_sum(infos, self._row_of, self._combined)
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
        stream.see(embedding)
        self._score(stream)
        if not self._several.any():
            return stream.score
        self._combine(embedding.end_ns)
        return np.maximum(stream.score, self._together * stream.may)

    def learn(
        self, name: str, quiet: NDArray[np.bool_], known: NDArray[np.bool_] | None = None
    ) -> None:
        """Let the null of `name` take in its newest cosines, of the rows that are `quiet`.

        known: (rows,), as Tail.learn.
        """
        stream = self._streams[name]
        wanted = np.maximum(stream.limit, LEAST_PER_HOUR)
        stream.tail.learn(stream.z, quiet & stream.may, wanted, known)
        # A rate is held to by what is told: what an event hides from the null would come back as
        # the next event, and the next. A threshold that is set knows nothing of that.
        learns = stream.may & (quiet | self._rated)
        stream.null.learn(stream.cosine, quiet & stream.may, learns)
        stream.limit = self._limit(stream)
        if self._several.any():
            self._combined.learn(quiet & self._several, self._share, known)

    def best(self, row: int, now_ns: int) -> tuple[float, Embedding | None]:
        """The highest score among evidence no older than `max_age_s`, and whose it is."""
        measured = bool(self._measured[row])
        most, of = -math.inf if measured else 0.0, None
        for stream in self._streams.values():
            if not (self._fresh(stream, now_ns) and stream.may[row] and stream.weight[row] > 0):
                continue
            said = stream.weight[row] * stream.z[row] if measured else stream.score[row]
            if said > most:
                most, of = float(said), stream.embedding
        if of is None:
            return 0.0, None
        value = 0.0 if measured else most
        if self._several[row] and now_ns - self._combined.end_ns <= self._max_age_ns:
            value = max(value, float(self._together[row]))
        return value, of

    def evidence(self, row: int, now_ns: int) -> list[Evidence]:
        """What each stream that may answer says, the strongest first."""
        own = [s for s in self._streams.values() if s.may[row]]
        fresh = [self._fresh(stream, now_ns) for stream in own]
        said = [float(stream.weight[row] * stream.z[row]) for stream in own]
        above = [max(0.0, z) * new for z, new in zip(said, fresh, strict=True)]
        total = sum(above)
        parts = [
            (z, stream.evidence(row, now_ns, new, part / total if new and total else None))
            for stream, z, new, part in zip(own, said, fresh, above, strict=True)
        ]
        parts.sort(key=lambda part: (part[1].status != "ok", -part[0], part[1].stream))
        return [part for _, part in parts]

    def score(self, row: int, value: float) -> Score:
        """`value` with how far its null has been learned."""
        streams = [s for s in self._streams.values() if s.may[row]]
        hours = (int(s.null.seen[row]) * s.hop_ns / NS_PER_S / 3600 for s in streams)
        learned = max((int(s.null.seen[row]) for s in streams), default=0)
        seen = [s for s in streams if s.embedding is not None]
        tails = [self._combined.tail] if self._measured[row] else [s.tail for s in seen]
        confidence = min((tail.confidence_of(row) for tail in tails), default=0.0)
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

    def _weights(self, infos: list[StreamInfo], may: NDArray[np.bool_]) -> Float64Array:
        """(rows, streams): those measured, of queries all of whose streams have one; else 0."""
        if self._calibration is None:
            return np.zeros(may.shape)
        weights = np.where(may, self._calibration.weights(infos, self._row_of), 0.0)
        whole = self._several & ~np.isnan(weights).any(axis=1)
        return np.where(whole[:, np.newaxis], weights, 0.0)

    def _add(
        self,
        info: StreamInfo,
        hop_ns: int,
        may: NDArray[np.bool_],
        weight: Float64Array,
        before: Fusion | None,
    ) -> Answers:
        floor = self._config.min_deviation
        old = before._streams.get(info.name) if before is not None else None
        known = dict(zip(before._row_of, old.terms, strict=True)) if before and old else {}
        terms = [
            known.get(query.null_key) or query.terms(self._space, info.modality, floor)
            for query in self.rows
        ]
        mean, deviation = np.array([t.ordinary for t in terms], np.float64).reshape(-1, 2).T
        share, excess = prior_tail(self._space, info.modality, self.rows, terms, known, floor).T
        stream = Answers(
            info,
            hop_ns,
            terms=terms,
            together=Together(terms, self._space.dim),
            may=may,
            weight=weight,
            null=Null(self._config, mean, deviation),
            tail=Tail(hop_ns / NS_PER_S, share, excess),
        )
        if self._calibration is not None:
            self._calibration.give(info, self._row_of, stream.null, stream.tail)
        if before is not None and old is not None:
            here, there = self._kept(before)
            stream.null.take(old.null.learned(), here, there)
            stream.tail.take(old.tail.learned(), here, there)
            if old.embedding is not None:
                stream.see(old.embedding)
                # As it was scored: the null has learned from that very cosine since.
                stream.z[here] = old.z[there]
                stream.per_hour[here] = old.per_hour[there]
                self._score(stream)
        stream.limit = self._limit(stream)
        return stream

    def _at_threshold(self, row: int, streams: list[Answers]) -> float:
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

    def _limit(self, stream: Answers) -> Float64Array:
        """False alarms an hour of each query's threshold on one stream."""
        if self._rated.all():
            return self._share
        return np.where(self._rated, self._share, stream.tail.per_hour(self._enter_z))

    def _score(self, stream: Answers) -> None:
        score = logistic(stream.z, self._config.z_mid, self._config.z_scale)
        rare = rarity(stream.per_hour, self._share)
        stream.score = np.where(self._rated, rare, score) * (stream.may & ~self._measured)

    def _fresh(self, stream: Answers, now_ns: int) -> bool:
        return stream.is_fresh(now_ns, self._max_age_ns)
