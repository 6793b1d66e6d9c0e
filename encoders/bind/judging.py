"""What a tower that was bound is worth, on recordings it never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from agent.errors import ConfigError
from agent.types import Array, Int64Array
from encoders.bind.examples import Examples
from encoders.bind.scoring import (
    INTERVAL,
    RESAMPLES,
    SEED,
    Estimate,
    RetrievalScores,
    relevant_ranks,
    score_retrieval,
)
from encoders.preprocess.base import Float32Array
from encoders.session import unit

__all__ = [
    "KS",
    "MIN_RECORDINGS",
    "Calibration",
    "Judgement",
    "check_enough",
    "judge",
    "retrieval",
]

KS = (1, 5, 10)  # of recall@k
MAX_QUERIES = 2000
SAME = 1 - 1e-5  # cosine of two anchors that are one, within rounding

# With fewer an interval says nothing: five hits in a row at a chance of a half are luck in 3 %.
MIN_RECORDINGS = 5


class Calibration(NamedTuple):
    """Of the cosine of what belongs together and what does not: means, deviations, and area: the
    chance that a matched pair scores over a mismatched one (ROC area, ties half).
    """

    matched: tuple[float, float]
    mismatched: tuple[float, float]
    area: float


@dataclass(frozen=True)
class Judgement:
    """tasks: by "sense to anchor". asking: those that ask by the new sense, and of each query
    whether it found the right one first (0 or 1), beside its recording. gap: distance of the mean
    vectors of the sense and of its anchors, 0..2. cosines: matched and mismatched.
    """

    tasks: Mapping[str, RetrievalScores]
    asking: Mapping[str, tuple[Array, Int64Array]]
    recordings: int
    gap: float
    calibration: Calibration
    cosines: tuple[Array, Array]

    @property
    def beats_chance(self) -> bool:
        """Whether the interval of recall@1 lies above chance, in every task that asks by the
        sense.
        """
        return all(
            self.tasks[name].recall[1].low > self.tasks[name].chance[1] for name in self.asking
        )

    def gains(self, before: Judgement) -> dict[str, Estimate]:
        """Of recall@1 over another tower's on the same examples, in every task that asks by the
        sense: the interval is of the difference, recording by recording.
        """
        return {
            name: _by_group(found - before.asking[name][0], groups)
            for name, (found, groups) in self.asking.items()
        }


def retrieval(
    queries: Float32Array, pool: Float32Array, relevant: Array, left_out: Array, groups: Int64Array
) -> RetrievalScores:
    """Recall@1, 5 and 10 and mean average precision, with 95 % intervals by bootstrap over groups.

    queries: (q, dim), pool: (p, dim), unit vectors. relevant, left_out: bool (q, p); what is left
    out is no candidate of that query. groups: (q,), the recording of each query: queries of one
    are no independent trials, and are drawn together. Raises ConfigError where a query has nothing
    relevant.
    """
    return _retrieved(queries, pool, relevant, left_out, groups)[0]


def _retrieved(
    queries: Float32Array, pool: Float32Array, relevant: Array, left_out: Array, groups: Int64Array
) -> tuple[RetrievalScores, Array]:
    """The figures, and of each query 1 where it found what is relevant first, else 0."""
    scores = queries.astype(np.float64) @ pool.T.astype(np.float64)
    kept = ~left_out | relevant
    ranks = [
        relevant_ranks(row[keep], wanted[keep])
        for row, wanted, keep in zip(scores, relevant, kept, strict=True)
    ]
    result = score_retrieval(ranks, kept.sum(axis=1).tolist(), KS)
    first = np.array([own[0] for own in ranks])
    precision = np.array([np.mean(np.arange(1, len(own) + 1) / own) for own in ranks])
    result = replace(
        result,
        recall={k: _by_group((first <= k).astype(np.float64), groups) for k in KS},
        map=_by_group(precision, groups),
    )
    return result, (first == 1).astype(np.float64)


def judge(
    sense: str, anchor: str, vectors: Float32Array, examples: Examples, seed: int = SEED
) -> Judgement:
    """Of the vectors (n, dim) that a tower makes of examples it was not trained on.

    Labelled ones ask one label of all by the unit mean of a recording; chance is then no less than
    always answering the most frequent label. Paired ones ask one anchor of all by a view; anchors
    of the same recording are no candidates, as those next to it in time show the same; chance is
    then no less than always pointing into the longest recording. Raises ConfigError for fewer than
    MIN_RECORDINGS recordings.
    """
    recordings = check_enough(examples)
    tasks: dict[str, RetrievalScores] = {}
    asking: dict[str, tuple[Array, Int64Array]] = {}
    cosines: list[tuple[Array, Array]] = []
    for kind, chosen in (("label", examples.labels >= 0), (anchor, examples.labels < 0)):
        if not chosen.any():
            continue
        rows = np.flatnonzero(chosen)
        if len(rows) > MAX_QUERIES and kind != "label":
            rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_QUERIES, replace=False))
        part, own = examples.take(rows), vectors[rows]
        found = _labelled(own, part) if kind == "label" else _paired(own, part)
        forth, back, split, asking[f"{sense} to {kind}"] = found
        tasks[f"{sense} to {kind}"], tasks[f"{kind} to {sense}"] = forth, back
        cosines.append(split)
    matched, mismatched = (np.concatenate(side) for side in zip(*cosines, strict=True))
    gap = float(np.linalg.norm(vectors.mean(axis=0) - examples.anchors.mean(axis=0)))
    return Judgement(
        tasks, asking, recordings, gap, _calibration(matched, mismatched), (matched, mismatched)
    )


def check_enough(examples: Examples) -> int:
    """How many recordings there are. Raises ConfigError for fewer than MIN_RECORDINGS."""
    recordings = len(np.unique(examples.groups))
    if recordings < MIN_RECORDINGS:
        raise ConfigError(
            f"dev examples: {recordings} recordings, expected at least {MIN_RECORDINGS} "
            "to tell a tower from chance: give more pairs, or shorter stretches"
        )
    return recordings


def _labelled(
    vectors: Float32Array, examples: Examples
) -> tuple[RetrievalScores, RetrievalScores, tuple[Array, Array], tuple[Array, Int64Array]]:
    keys, inverse = np.unique(
        np.stack([examples.groups, examples.labels]), axis=1, return_inverse=True
    )
    inverse = inverse.reshape(-1)
    means = np.stack([unit(vectors[inverse == i].mean(axis=0)) for i in range(keys.shape[1])])
    labels, first = np.unique(examples.labels, return_index=True)
    pool = examples.anchors[first]
    relevant = keys[1][:, np.newaxis] == labels
    none = np.zeros_like(relevant)
    forth, found = _retrieved(means, pool, relevant, none, keys[0])
    shares = np.sort(relevant.mean(axis=0))[::-1]
    forth = replace(
        forth, chance={k: max(c, float(shares[:k].sum())) for k, c in forth.chance.items()}
    )
    back = retrieval(pool, means, relevant.T, none.T, np.arange(len(pool)))
    scores = means @ pool.T
    return forth, back, (scores[relevant], scores[~relevant]), (found, keys[0])


def _paired(
    vectors: Float32Array, examples: Examples
) -> tuple[RetrievalScores, RetrievalScores, tuple[Array, Array], tuple[Array, Int64Array]]:
    groups, anchors = examples.groups, examples.anchors
    own = np.eye(len(groups), dtype=bool)
    left_out = (groups[:, np.newaxis] == groups) | (anchors @ anchors.T > SAME)
    forth, found = _retrieved(vectors, anchors, own, left_out, groups)
    back = retrieval(anchors, vectors, own, left_out, groups)
    _, counts = np.unique(groups, return_counts=True)
    share = float(counts.max() / len(groups))
    forth, back = (
        replace(way, chance={k: max(c, share) for k, c in way.chance.items()})
        for way in (forth, back)
    )
    scores = vectors @ anchors.T
    return forth, back, (scores[own], scores[~left_out]), (found, groups)


def _by_group(values: Array, groups: Int64Array) -> Estimate:
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=values)
    draws = np.random.default_rng(SEED).integers(0, len(counts), (RESAMPLES, len(counts)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, INTERVAL)
    return Estimate(float(values.mean()), float(low), float(high))


def _calibration(matched: Array, mismatched: Array) -> Calibration:
    ordered = np.sort(mismatched)
    below = np.searchsorted(ordered, matched, "left") + np.searchsorted(ordered, matched, "right")
    area = float(below.mean() / (2 * len(ordered))) if len(ordered) else 0.5
    spread = [(float(c.mean()), float(c.std())) if len(c) else (0.0, 0.0)
              for c in (matched, mismatched)]  # fmt: skip
    return Calibration(spread[0], spread[1], area)
