"""What several streams say together of a query: Stouffer's sum, weighted by what each has been
worth, or was measured to be, with their correlation counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agent.match.calibration import CLIP_Z
from agent.match.tail import CLUSTER_S, EXCESS, SHARE, Rows, Tail
from agent.types import Array

__all__ = ["Combined", "weighted_sum"]

Float64Array = NDArray[np.float64]
MEMORY = 4800.0  # observations of the running correlation
PRIOR = 240.0  # observations that weigh as much as its prior, which is none
WEIGHED = 3  # streams that are there, at least, for weights
WORTH = 2.0  # z of any stream while any other is high, at first
PRIOR_TIMES = 8.0  # that a stream was, over all others, that weigh as much as that
MOST_TIMES = 100.0  # that are remembered
LEAST_WORTH = 0.02
STEPS = 8  # of the fit


class Combined:
    """Of `n` queries on the streams `names`, told whenever one of them is.

    z is their `weighted_sum` over the streams that are there, c the running correlation of the z of
    each two while nothing is going on; a stream that is missing or stale is left out. How often it
    comes as high is of a tail of its own. It finds what each stream has too little of to say it
    alone. Where weights were measured with labels (tools/calibrate.py) it is asked in place of the
    streams, one alone that is there among them; else beside them, where two are there or more:
    what is in one sense alone it would lose.

    Else w, the worth of a stream to a query, is its mean z where the thing is there, times how
    often it is there when the stream is as high as its threshold. No label tells that; the other
    streams do. Of each two the mean z of either while the other is high, less what their
    correlation accounts for, is measured; the geometric mean of the two is sqrt(w_i w_j), and three
    streams or more determine each w by that. Two do not: they weigh the same (docs/adr/0016).
    """

    def __init__(
        self, n: int, names: Sequence[str], hop_s: float, weights: Float64Array | None = None
    ) -> None:
        """hop_s: from one observation of any of the streams to the next, on average. weights: (n,
        streams) >= 0, as measured; a row of zeros has none, and None is all such.
        """
        self.names = tuple(names)
        self.weights = np.zeros((n, len(names))) if weights is None else weights
        self.measured: NDArray[np.bool_] = np.any(self.weights > 0, axis=1)
        self.z = np.zeros(n)
        self.per_hour = np.zeros(n)
        self.there = np.zeros(n, bool)
        self.end_ns = 0
        self.correlation = np.tile(np.eye(len(names)), (n, 1, 1))
        self.seen = np.zeros((n, len(names), len(names)))
        self.tail = Tail(hop_s, np.full(n, SHARE), np.full(n, EXCESS))
        self.worth = np.full((n, len(names)), WORTH)
        # By query, stream that is high, and other stream: mean z, of so many times.
        self.mean = np.full((n, len(names), len(names)), WORTH)
        self.times = np.zeros((n, len(names), len(names)))
        # The present time: sum of z, number of observations, and for how many it was not high.
        self._sum = np.zeros((n, len(names), len(names)))
        self._steps = np.zeros((n, len(names), len(names)))
        self._gap = np.zeros((n, len(names)))
        self._run = max(2, math.ceil(CLUSTER_S / hop_s))
        self._z = np.zeros((n, len(names)))
        self._fresh = np.zeros((n, len(names)), bool)

    def observe(
        self, z: Float64Array, fresh: NDArray[np.bool_], high: NDArray[np.bool_], end_ns: int
    ) -> None:
        """z, fresh, high: (n, streams), the newest of each, whether it counts, and whether it is as
        high as the threshold of its stream.
        """
        self._z, self._fresh, self.end_ns = z, fresh, end_ns
        streams = fresh.sum(axis=1)
        if len(self.names) >= WEIGHED:
            self._weigh(high & fresh)
        weights = np.where(streams[:, np.newaxis] >= WEIGHED, self.worth, 1.0)
        weights = np.where(self.measured[:, np.newaxis], self.weights, weights) * fresh
        self.there = np.where(self.measured, weights.any(axis=1), streams >= 2)
        self.z = np.where(self.there, weighted_sum(z, weights, self.correlation), 0.0)
        self.per_hour = self.tail.per_hour(self.z)

    def learn(
        self,
        quiet: NDArray[np.bool_],
        wanted: Float64Array,
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        """Of the newest observation, the rows that are `quiet`. As Tail.learn."""
        self.tail.learn(self.z, quiet & self.there, wanted, known)
        quiet = quiet if known is None else quiet & ~known
        clipped = np.clip(self._z, -CLIP_Z, CLIP_Z)
        both = self._fresh[:, :, np.newaxis] & self._fresh[:, np.newaxis, :]
        both &= quiet[:, np.newaxis, np.newaxis] & ~np.eye(len(self.names), dtype=bool)
        product = clipped[:, :, np.newaxis] * clipped[:, np.newaxis, :]
        self.seen += both
        weight = np.minimum(PRIOR + self.seen, MEMORY)
        self.correlation += np.where(both, (product - self.correlation) / weight, 0.0)
        np.clip(self.correlation, -1.0, 1.0, out=self.correlation)

    def learned(self) -> dict[str, Array]:
        """Of the measured sum, by name: (n, streams, streams) and as Tail.learned; its own and not
        to be written to.
        """
        tail = {f"tail.{name}": array for name, array in self.tail.learned().items()}
        return {"correlation": self.correlation, "seen": self.seen, **tail}

    def begin(
        self, learned: Mapping[str, Array], streams: Mapping[int, int], here: Rows, there: Rows
    ) -> None:
        """With what another has `learned`, of its queries `there` for those `here`. streams: of
        its own, which of the other's each is.
        """
        own = np.array(list(streams), np.intp)
        others = np.array(list(streams.values()), np.intp)
        for name in ("correlation", "seen"):
            getattr(self, name)[np.ix_(here, own, own)] = learned[name][
                np.ix_(there, others, others)
            ]
        tail = {name: learned[f"tail.{name}"] for name in Tail.LEARNED}
        self.tail.take(tail, here, there)

    def take(self, other: Combined, here: Rows, there: Rows) -> None:
        """What `other` has learned of the same streams: of its queries `there` for those `here`."""
        for name in (
            *("z", "per_hour", "there", "correlation", "seen", "worth", "mean", "times"),
            *("_z", "_fresh", "_sum", "_steps", "_gap"),
        ):
            getattr(self, name)[here] = getattr(other, name)[there]
        self.end_ns = other.end_ns
        self.tail.take(other.tail.learned(), here, there)

    def _weigh(self, high: NDArray[np.bool_]) -> None:
        """One observation of what each stream has while another is high. A time that it is ends
        when it has not been for CLUSTER_S, and counts once.
        """
        rows = np.flatnonzero(high.any(axis=1) | self._steps.any(axis=(1, 2)))
        if not len(rows):
            return
        z, high, fresh = self._z[rows], high[rows], self._fresh[rows]
        told = high[:, :, np.newaxis] & fresh[:, np.newaxis, :]
        own = z[:, np.newaxis, :] - self.correlation[rows] * z[:, :, np.newaxis]
        total = self._sum[rows] + np.where(told, own, 0.0)
        steps = self._steps[rows] + told
        gap = np.where(high, 0.0, self._gap[rows] + 1)
        over = (gap >= self._run)[:, :, np.newaxis]
        ended = over & (steps > 0)
        self.times[rows] = times = np.minimum(self.times[rows] + ended, MOST_TIMES)
        weight = PRIOR_TIMES / (len(self.names) - 1) + times
        step = (total / np.maximum(steps, 1) - self.mean[rows]) / weight
        self.mean[rows] += np.where(ended, step, 0.0)
        self._sum[rows] = np.where(over, 0.0, total)
        self._steps[rows] = np.where(over, 0.0, steps)
        self._gap[rows] = gap
        new = ended.any(axis=(1, 2))
        if new.any():
            self.worth[rows[new]] = _worth(self.mean[rows[new]], weight[new])


def weighted_sum(z: Float64Array, weights: Float64Array, correlation: Float64Array) -> Float64Array:
    """sum(w_i z_i) / sqrt(sum(w_i w_j c_ij)), (n,); 0 where all weights are.

    S. A. Stouffer et al., The American Soldier 1, 1949; with correlated terms: M. J. Strube,
    Psychological Bulletin 97(2), 1985. z, weights: (n, streams), of a stream that is not there 0.
    correlation: (n, streams, streams) of the z.
    """
    variance = np.einsum("ni,nij,nj->n", weights, correlation, weights)
    total = (z * weights).sum(axis=1)
    # Streams that deny each other would leave next to nothing to divide by.
    least = (weights**2).sum(axis=1) / np.maximum((weights > 0).sum(axis=1), 1)
    deviation = np.sqrt(np.maximum(variance, np.maximum(least, LEAST_WORTH**2)))
    combined: Float64Array = total / deviation
    return combined


def _worth(mean: Float64Array, weight: Float64Array) -> Float64Array:
    """(n, streams), of `mean` and its `weight` (n, streams that are high, others).

    The symmetric matrix is fitted as a product v_i v_j off its diagonal, by damped least squares of
    one v at a time given the others; the worth is v^2.
    """
    mean = np.maximum(mean, LEAST_WORTH)
    alike = np.sqrt(mean * mean.transpose(0, 2, 1))
    other = weight.transpose(0, 2, 1)
    weight = 2 * weight * other / (weight + other) * ~np.eye(mean.shape[1], dtype=bool)
    root: Float64Array = np.full(mean.shape[:2], np.sqrt(WORTH))
    for _ in range(STEPS):
        size = np.einsum("nij,nj->ni", weight, root**2)
        fit = np.einsum("nij,nj->ni", weight * alike, root) / size
        root = (root + np.maximum(fit, np.sqrt(LEAST_WORTH))) / 2
    return root**2
