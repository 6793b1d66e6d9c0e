"""What cosine is ordinary for a query on a stream: a running null, and scores above it.

How often the ordinary comes as high is of agent/match/tail.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.config import GateConfig, MatchConfig, QueryConfig
from agent.match.tail import Rows
from agent.types import Array

__all__ = ["Null", "allowed", "gate_of", "logistic", "rarity"]

Float64Array = NDArray[np.float64]
CLIP_Z = 3.0  # what an event may add to the null; its tail is not ordinary
SHIFT_WINDOWS = 120  # of the running mean of z that tells a change of the stream
SHIFT_SPREAD = 2.5  # of its square, which is 1
SHIFT_Z = 1.0  # four of its deviations where a window has 0.8 of the one before
ENTER, EXIT = 0.5, 0.1  # rarity at the allowed rate, and at nine times as often


def allowed(query: QueryConfig, config: MatchConfig) -> float | None:
    """False alarms an hour that a query may give; None where its gate's thresholds decide."""
    if query.max_false_alarms_per_hour is None and query.gate is None:
        return config.max_false_alarms_per_hour
    return query.max_false_alarms_per_hour


def gate_of(query: QueryConfig, gate: GateConfig, config: MatchConfig) -> GateConfig:
    """`gate`, with the thresholds of `rarity` where the query has an allowed rate."""
    if allowed(query, config) is None:
        return gate
    return msgspec.structs.replace(gate, enter=ENTER, exit=EXIT)


def rarity(per_hour: Float64Array, wanted: Float64Array) -> Float64Array:
    """Scores 0..1: 0.5 where false alarms as high come `wanted` times an hour, 0.9 where they
    come a ninth as often.
    """
    score: Float64Array = wanted / (wanted + per_hour)
    return score


def logistic(z: Float64Array, z_mid: float, z_scale: float) -> Float64Array:
    """Scores 0..1 of shape (n,): 0.5 at `z_mid`, 0.73 one `z_scale` above it."""
    exponent = np.clip((z - z_mid) / z_scale, -50.0, 50.0)
    score: Float64Array = 1.0 / (1.0 + np.exp(-exponent))
    return score


class Null:
    """Mean and deviation of the cosine of many queries on one stream, learned as it runs.

    Starts from each query's prior (its cosines with the space's background bank) with the weight
    of `prior_windows` observations, then follows the stream: West's incremental update of a
    weighted mean and variance (D. H. D. West, CACM 22(9), 1979), forgetting with a memory of
    `memory_windows`. An observation counts at most CLIP_Z deviations, so one event cannot move it.
    Where over SHIFT_WINDOWS the mean of z is off by SHIFT_Z, or that of its square over
    SHIFT_SPREAD, the stream has changed, be it to another room: it forgets down to the weight of
    the prior, and follows so much faster.
    """

    LEARNED = ("mean", "variance", "weight", "recent", "spread", "seen")

    def __init__(self, config: MatchConfig, mean: Float64Array, deviation: Float64Array) -> None:
        """mean, deviation: (queries,), the priors."""
        self._config = config
        self.mean = mean.astype(np.float64)
        self.variance = np.maximum(deviation, config.min_deviation) ** 2
        self.weight = np.full(len(mean), float(config.prior_windows))
        self.recent = np.zeros(len(mean))  # running mean of z
        self.spread = np.ones(len(mean))  # and of its square
        self.seen = np.zeros(len(mean), np.int64)

    @property
    def deviation(self) -> Float64Array:
        """(queries,), never below `min_deviation`."""
        floor: Float64Array = np.maximum(np.sqrt(self.variance), self._config.min_deviation)
        return floor

    def z(self, cosine: Float64Array) -> Float64Array:
        """Deviations above the null's mean, (queries,)."""
        z: Float64Array = (cosine - self.mean) / self.deviation
        return z

    def learn(
        self,
        cosine: Float64Array,
        quiet: NDArray[np.bool_],
        learns: NDArray[np.bool_] | None = None,
    ) -> None:
        """One observation of every query. quiet: no event of it is open. learns: whose mean and
        deviation follow, those that are quiet where it is None; that a stream has changed is told
        by what is quiet alone.
        """
        learns = quiet if learns is None else learns
        deviation = self.deviation
        offset = np.clip(cosine - self.mean, -CLIP_Z * deviation, CLIP_Z * deviation)
        recent = self.recent + (offset / deviation - self.recent) / SHIFT_WINDOWS
        spread = self.spread + ((offset / deviation) ** 2 - self.spread) / SHIFT_WINDOWS
        changed = quiet & ((np.abs(recent) > SHIFT_Z) | (spread > SHIFT_SPREAD))
        memory = np.where(changed, self._config.prior_windows, self._config.memory_windows)
        weight = np.minimum(self.weight + 1, memory)
        mean = self.mean + offset / weight
        variance = self.variance + (offset * (offset * (1 - 1 / weight)) - self.variance) / weight
        self.mean = np.where(learns, mean, self.mean)
        self.variance = np.where(learns, variance, self.variance)
        self.weight = np.where(learns, weight, self.weight)
        self.recent = np.where(quiet, recent, self.recent)
        self.spread = np.where(quiet, spread, self.spread)
        self.seen += quiet

    def learned(self) -> dict[str, Array]:
        """All that it has, by name; (queries,), its own and not to be written to."""
        return {name: getattr(self, name) for name in self.LEARNED}

    def take(self, learned: Mapping[str, Array], here: Rows, there: Rows) -> None:
        """Of what another has `learned`, its queries `there` for those `here`."""
        for name in self.LEARNED:
            getattr(self, name)[here] = learned[name][there]
