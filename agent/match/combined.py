"""What several streams say together of a query: Stouffer's sum, with their correlation counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.match.calibration import CLIP_Z
from agent.match.tail import EXCESS, SHARE, Rows, Tail

__all__ = ["Combined"]

Float64Array = NDArray[np.float64]
MEMORY = 4800.0  # observations of the running correlation
PRIOR = 240.0  # observations that weigh as much as its prior, which is none


class Combined:
    """Of `n` queries on the streams `names`, told whenever one of them is.

    z = sum(z_i) / sqrt(sum(c_ij)) over the streams that are there (S. A. Stouffer et al., The
    American Soldier 1, 1949; with correlated terms: M. J. Strube, Psychological Bulletin 97(2),
    1985). c is the running correlation of the z of each two streams while nothing is going on; a
    stream that is missing or stale is left out of either sum. How often it comes as high is of a
    tail of its own. It finds what each stream has too little of to say it alone, and it is asked
    beside them, not in their place: what is in one sense alone it would lose (docs/adr/0016).
    """

    def __init__(self, n: int, names: Sequence[str], hop_s: float) -> None:
        """hop_s: from one observation of any of the streams to the next, on average."""
        self.names = tuple(names)
        self.z = np.zeros(n)
        self.per_hour = np.zeros(n)
        self.there = np.zeros(n, bool)
        self.end_ns = 0
        self.correlation = np.tile(np.eye(len(names)), (n, 1, 1))
        self.seen = np.zeros((n, len(names), len(names)))
        self.tail = Tail(hop_s, np.full(n, SHARE), np.full(n, EXCESS))
        self._z = np.zeros((n, len(names)))
        self._fresh = np.zeros((n, len(names)), bool)

    def observe(self, z: Float64Array, fresh: NDArray[np.bool_], end_ns: int) -> None:
        """z, fresh: (n, streams), the newest of each and whether it counts."""
        self._z, self._fresh, self.end_ns = z, fresh, end_ns
        weights = fresh.astype(np.float64)
        variance = np.einsum("ni,nij,nj->n", weights, self.correlation, weights)
        self.there = fresh.sum(axis=1) >= 2
        total = (z * weights).sum(axis=1)
        # Streams that deny each other would leave next to nothing to divide by.
        self.z = np.where(self.there, total / np.sqrt(np.maximum(variance, 1.0)), 0.0)
        self.per_hour = self.tail.per_hour(self.z)

    def learn(self, quiet: NDArray[np.bool_], wanted: Float64Array) -> None:
        """Of the newest observation, the rows that are `quiet`. As Tail.learn."""
        self.tail.learn(self.z, quiet & self.there, wanted)
        clipped = np.clip(self._z, -CLIP_Z, CLIP_Z)
        both = self._fresh[:, :, np.newaxis] & self._fresh[:, np.newaxis, :]
        both &= quiet[:, np.newaxis, np.newaxis] & ~np.eye(len(self.names), dtype=bool)
        product = clipped[:, :, np.newaxis] * clipped[:, np.newaxis, :]
        self.seen += both
        weight = np.minimum(PRIOR + self.seen, MEMORY)
        self.correlation += np.where(both, (product - self.correlation) / weight, 0.0)
        np.clip(self.correlation, -1.0, 1.0, out=self.correlation)

    def take(self, other: Combined, here: Rows, there: Rows) -> None:
        """What `other` has learned of the same streams: of its queries `there` for those `here`."""
        for name in ("z", "per_hour", "there", "correlation", "seen", "_z", "_fresh"):
            getattr(self, name)[here] = getattr(other, name)[there]
        self.end_ns = other.end_ns
        self.tail.take(other.tail.learned(), here, there)
