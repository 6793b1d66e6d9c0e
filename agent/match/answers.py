"""What one stream says of each query: its null, its tail and its newest evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.contracts import Space
from agent.match.calibration import Float64Array, Null
from agent.match.meaning import DECIMALS, Terms, Together
from agent.match.queries import Query
from agent.match.tail import EXCESS, SHARE, Tail, bank_tail
from agent.ordinary import nearness
from agent.types import Embedding, StreamInfo
from agent.wire import Evidence, Span, Time

__all__ = ["Answers", "prior_tail"]


@dataclass
class Answers:
    """Of one stream; arrays are (queries,). row: of the embedding's `rows`, the one that answers
    each query best. cosine: nearness as agent.match.meaning has it.
    """

    info: StreamInfo
    hop_ns: int
    terms: list[Terms]
    together: Together
    may: NDArray[np.bool_]
    weight: Float64Array  # of z in what several streams say; 1 where none was measured
    null: Null
    tail: Tail
    embedding: Embedding | None = None
    row: NDArray[np.intp] = field(init=False)
    cosine: Float64Array = field(init=False)
    z: Float64Array = field(init=False)
    per_hour: Float64Array = field(init=False)  # false alarms as high as z
    score: Float64Array = field(init=False)
    limit: Float64Array = field(init=False)  # false alarms as high as the threshold

    def __post_init__(self) -> None:
        self.row = np.zeros(len(self.terms), np.intp)
        self.cosine = self.z = self.per_hour = self.score = self.limit = np.zeros(len(self.terms))

    def see(self, embedding: Embedding) -> None:
        """The newest embedding: all but `score` and `limit` follow."""
        self.embedding = embedding
        near, self.row = self.together.answer(embedding.rows)
        self.cosine = np.round(near, DECIMALS)
        self.z = np.round(self.null.z(self.cosine), DECIMALS)
        self.per_hour = self.tail.per_hour(self.z)

    def is_fresh(self, now_ns: int, max_age_ns: int) -> bool:
        seen = self.embedding
        return seen is not None and now_ns - seen.end_ns <= max_age_ns

    def evidence(self, row: int, now_ns: int, fresh: bool, share: float | None) -> Evidence:
        """What is told of it for one query. share: 0..1, or None where it has none."""
        info, seen = self.info, self.embedding
        if seen is None:
            return Evidence(
                stream=info.name, modality=info.modality, frame_id=info.frame_id, status="missing"
            )
        return Evidence(
            stream=info.name,
            modality=info.modality,
            frame_id=info.frame_id,
            status="ok" if fresh else "stale",
            cosine=float(self.cosine[row]),
            z=float(self.z[row]),
            far_per_hour=round(float(self.per_hour[row]), 6),
            share=None if share is None else round(share, 4),
            window=Span(start=Time.of(seen.start_ns), end=Time.of(seen.end_ns)),
            age_ms=None if fresh else round((now_ns - seen.end_ns) / 1e6, 3),
            reused=seen.reused,
            region=seen.regions[self.row[row]],
        )


def prior_tail(
    space: Space,
    modality: str,
    queries: Sequence[Query],
    terms: Sequence[Terms],
    known: Mapping[tuple[str, str], Terms],
    min_deviation: float,
) -> Float64Array:
    """(queries, 2): share and mean excess, of what the space's bank says of each query's z.

    known: queries by null_key that bring their own along; a probe's bank is no measure of anything.
    """
    bank = space.background(modality).astype(np.float64)
    prior = np.tile(np.array([SHARE, EXCESS]), (len(terms), 1))
    for row, (query, each) in enumerate(zip(queries, terms, strict=True)):
        if query.null_key in known or query.meaning.taught or not len(bank):
            continue
        near = nearness(np.swapaxes(bank @ each.vectors.T, 1, 2))
        near = Together([each], space.dim).combine(near)[:, 0]
        mean, deviation = each.ordinary
        prior[row] = bank_tail((near - mean) / max(deviation, min_deviation))
    return prior
