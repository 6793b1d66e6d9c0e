"""How well queries find what belongs to them: recall@k and mean average precision, with intervals.

Definitions as in Manning, Raghavan and Schuetze, Introduction to Information Retrieval (2008),
chapter 8, except that recall@k is 1 where any of a query's relevant candidates is among the first
k, as ImageBind and most of its field report it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from agent.ordinary import nearness

__all__ = [
    "INTERVAL",
    "RESAMPLES",
    "SEED",
    "Estimate",
    "Pool",
    "RetrievalScores",
    "relevant_ranks",
    "score_retrieval",
]

Float64Array = NDArray[np.float64]

RESAMPLES = 1000
INTERVAL = (2.5, 97.5)  # percentiles
SEED = 0

# Equal vectors may differ in the last bit of a product, by where in a matrix they stand; what is
# closer than this counts as equal.
DECIMALS = 6


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, and the 95 % interval of it by bootstrap over the queries."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RetrievalScores:
    """queries: how many. recall: by k. map: mean average precision. chance: recall by k of a
    random order.
    """

    queries: int
    recall: Mapping[int, Estimate]
    map: Estimate
    chance: Mapping[int, float]


LEAST_DEVIATION = 1e-6  # of a part to which all candidates are as near


class Pool:
    """The vectors of candidates, each of one or several views, to be scored against queries."""

    def __init__(self, candidates: Sequence[NDArray[np.float32]]) -> None:
        """candidates: float32 (k >= 1, dim) unit vectors each, the whole's first, copied. Raises
        ConfigError: none.
        """
        if not candidates:
            raise ConfigError("pool: 0 candidates, expected at least 1")
        self._views = np.concatenate(candidates).astype(np.float64)
        self._starts = np.cumsum([0, *(len(views) for views in candidates[:-1])])

    def __len__(self) -> int:
        return len(self._starts)

    def scores(self, parts: NDArray[np.float32], usual: Float64Array | None = None) -> Float64Array:
        """float64 (n,): of a query of one or several parts, float32 (p, dim) unit vectors.

        Each part's nearness to a candidate is the mean of its cosines with the whole and with the
        best of the views (agent.ordinary.nearness), so that with several views each part may find
        its own. Of several parts each is counted in deviations over the candidates, and their mean
        is the score: the cosines of one sense spread less than those of another, and would have no
        say (docs/queries.md; the agent counts in deviations of what is ordinary). usual: (p, n, 2),
        mean and deviation of how near each candidate is to what is ordinary of a part's sense, from
        which its nearness is counted.
        """
        cosines = parts.astype(np.float64) @ self._views.T
        best = np.maximum.reduceat(cosines, self._starts, axis=1)
        near = nearness(np.stack([cosines[:, self._starts], best], axis=-1))
        if usual is not None:
            near = (near - usual[..., 0]) / np.maximum(usual[..., 1], LEAST_DEVIATION)
        if len(near) > 1:
            near = (near - near.mean(axis=1, keepdims=True)) / np.maximum(
                near.std(axis=1, keepdims=True), LEAST_DEVIATION
            )
        scores: Float64Array = near.mean(axis=0)
        return scores


def relevant_ranks(scores: Float64Array, relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """int64 (number of relevant,), rising: where the relevant candidates stand, 1 the first.

    scores: (n,), higher is nearer. relevant: (n,). Of equal scores the relevant come last, so that
    vectors which are all the same find nothing.
    """
    order = np.lexsort((relevant, -np.round(scores, DECIMALS)))
    ranks: NDArray[np.int64] = np.flatnonzero(relevant[order]) + 1
    return ranks


def score_retrieval(
    ranks: Sequence[NDArray[np.int64]], pools: Sequence[int], ks: Sequence[int] = (1, 5)
) -> RetrievalScores:
    """From each query's `relevant_ranks` and the number of candidates it had.

    Raises ConfigError for no query, or one without a relevant candidate.
    """
    if not ranks or not all(map(len, ranks)):
        raise ConfigError("queries: none, or one with nothing relevant, expected at least 1 each")
    first = np.array([own[0] for own in ranks])
    precision = np.array([np.mean(np.arange(1, len(own) + 1) / own) for own in ranks])
    # The same resamples for every figure, so that figures of one table go together.
    rng = np.random.default_rng(SEED)
    draws = rng.integers(0, len(ranks), (RESAMPLES, len(ranks)))
    sizes = [(len(own), size) for own, size in zip(ranks, pools, strict=True)]
    return RetrievalScores(
        queries=len(ranks),
        recall={k: _estimate((first <= k).astype(np.float64), draws) for k in ks},
        map=_estimate(precision, draws),
        chance={k: float(np.mean([_chance(*size, k) for size in sizes])) for k in ks},
    )


def _estimate(values: Float64Array, draws: NDArray[np.int64]) -> Estimate:
    low, high = np.percentile(values[draws].mean(axis=1), INTERVAL)
    return Estimate(float(values.mean()), float(low), float(high))


def _chance(relevant: int, size: int, k: int) -> float:
    """Of any of `relevant` among `size` in k draws without return: 1 - C(n - r, k) / C(n, k)."""
    others = size - relevant
    if others < k:
        return 1.0
    missed = np.prod([(others - i) / (size - i) for i in range(k)])
    return float(1 - missed)
