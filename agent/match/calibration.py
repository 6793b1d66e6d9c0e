"""What cosine is ordinary for a query on a stream: a running null, and scores above it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.config import MatchConfig

__all__ = ["Null", "logistic"]

Float64Array = NDArray[np.float64]
CLIP_Z = 3.0  # what an event may add to the null; its tail is not ordinary


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
    """

    def __init__(self, config: MatchConfig, mean: Float64Array, deviation: Float64Array) -> None:
        """mean, deviation: (queries,), the priors."""
        self._config = config
        self.mean = mean.astype(np.float64)
        self.variance = np.maximum(deviation, config.min_deviation) ** 2
        self.weight = np.full(len(mean), float(config.prior_windows))
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

    def learn(self, cosine: Float64Array, quiet: NDArray[np.bool_]) -> None:
        """One observation of every query; only where `quiet` (no event open) does it count."""
        deviation = self.deviation
        offset = np.clip(cosine - self.mean, -CLIP_Z * deviation, CLIP_Z * deviation)
        weight = np.minimum(self.weight + 1, self._config.memory_windows)
        mean = self.mean + offset / weight
        variance = self.variance + (offset * (offset * (1 - 1 / weight)) - self.variance) / weight
        self.mean = np.where(quiet, mean, self.mean)
        self.variance = np.where(quiet, variance, self.variance)
        self.weight = np.where(quiet, weight, self.weight)
        self.seen += quiet

    def copy_from(self, other: Null, here: int, there: int) -> None:
        """Take over what `other` has learned of one query."""
        for name in ("mean", "variance", "weight", "seen"):
            getattr(self, name)[here] = getattr(other, name)[there]
