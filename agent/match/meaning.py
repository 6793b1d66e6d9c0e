"""What a query means as vectors: its parts and contrasts, and how near they are to one input.

Each part is kept apart, so that it can be found in a view of its own. A query's nearness to an
input is the weighted sum of its parts' nearness (agent.ordinary.nearness), each counted in
deviations of what is ordinary for that part on that sense, less half of the best contrast's,
counted the same: a sound and a picture have cosines of different spread with the same frame, and
equal weights are to be an equal say. It is brought to the scale of a cosine: for one vector a
tower it is the cosine with the unit sum of the weighted parts, and for one part alone just its
nearness. Measured against the plain sum of unit vectors, whole contrasts and vectors that are
subtracted: docs/queries.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from agent.config import Taught
from agent.contracts import Space
from agent.errors import ConfigError
from agent.ordinary import nearness, ordinary
from agent.types import Array, Embedding

__all__ = ["CONTRAST", "DECIMALS", "Meaning", "Part", "Terms", "Together", "terms_of"]

Float64Array = NDArray[np.float64]
CONTRAST = 0.5  # how much of the best contrast is taken off (docs/queries.md)
DECIMALS = 6  # beyond this a cosine differs between machines
LEAST_LENGTH = 1e-3  # a sum of unit vectors that is shorter has no direction to speak of


@dataclass(frozen=True)
class Part:
    """One vector of a query. by_sense: in its place for streams of a sense, where a template says
    it otherwise. weight: not 0. taught: where it was.
    """

    embedding: Embedding
    weight: float = 1.0
    by_sense: Mapping[str, Embedding] = field(default_factory=dict)
    taught: Taught | None = None

    def vector(self, modality: str) -> Array:
        """float32 (dim,)."""
        return self.by_sense.get(modality, self.embedding).vector

    def ordinary(self, space: Space, modality: str) -> tuple[float, float]:
        """Mean and deviation of its nearness to ordinary input of `modality`.

        A probe is made to push the space's background down: what it gives there is no measure, so
        what was found when it was taught stands for it.
        """
        if self.taught is not None and self.taught.modality == modality:
            return self.taught.ordinary
        return space.prior(self.vector(modality), modality)


@dataclass(frozen=True)
class Meaning:
    """parts: at least one. contrasts: what it must not be taken for."""

    parts: tuple[Part, ...]
    contrasts: tuple[Part, ...] = ()

    @property
    def plain(self) -> bool:
        """One part alone, whose nearness is the query's."""
        return len(self.parts) == 1 and not self.contrasts

    @property
    def taught(self) -> bool:
        """Whether any of it was: a probe pushes the space's background down."""
        return any(part.taught is not None for part in (*self.parts, *self.contrasts))


@dataclass(frozen=True)
class Terms:
    """A meaning on one sense. vectors: float64 (p + c, dim), the parts' first. weights: (p,).
    centres, slopes: (c,), of the contrasts: what is taken off is the highest of
    (nearness - centre) * slope. ordinary: mean and deviation of the whole on ordinary input.
    """

    vectors: Float64Array
    weights: Float64Array
    centres: Float64Array
    slopes: Float64Array
    ordinary: tuple[float, float]


def terms_of(meaning: Meaning, space: Space, modality: str, floor: float) -> Terms:
    """floor: least deviation, in cosine. Raises ConfigError for parts that cancel out."""
    each = (*meaning.parts, *meaning.contrasts)
    vectors = np.array([part.vector(modality) for part in each], np.float64)
    priors = [part.ordinary(space, modality) for part in each]
    none = np.zeros(0)
    if meaning.plain:
        return Terms(vectors, np.ones(1), none, none, priors[0])
    count = len(meaning.parts)
    means, deviations = np.array(priors, np.float64).T
    say = 1 / np.maximum(deviations, floor)
    weights = np.array([part.weight for part in meaning.parts]) * say[:count]
    length = float(np.linalg.norm(weights @ vectors[:count]))
    if length < LEAST_LENGTH * np.abs(weights).max():
        raise ConfigError(f"sum: the parts cancel out on {modality}, expected some direction left")
    terms = Terms(
        vectors, weights / length, means[count:], CONTRAST * say[count:] / length, (0.0, 0.0)
    )
    bank = space.background(modality).astype(np.float64)
    near = nearness(np.swapaxes(bank @ vectors.T, 1, 2))
    for number, part in enumerate(each):
        if part.taught is not None and part.taught.modality == modality and len(near):
            mean, deviation = ordinary(near[:, number], space.dim)
            spread = deviations[number] / max(deviation, floor)
            near[:, number] = means[number] + (near[:, number] - mean) * spread
    whole = Together([terms], space.dim).combine(near)[:, 0]
    return replace(terms, ordinary=ordinary(whole, space.dim))


class Together:
    """The terms of many queries on one sense, to be answered at once."""

    def __init__(self, terms: Sequence[Terms], dim: int) -> None:
        counts = np.array([len(t.weights) for t in terms], np.intp)
        rivals = np.array([len(t.slopes) for t in terms], np.intp)
        parts = [t.vectors[: len(t.weights)] for t in terms]
        contrasts = [t.vectors[len(t.weights) :] for t in terms]
        self._matrix: Float64Array = np.concatenate([np.empty((0, dim)), *parts, *contrasts])
        self._count = int(counts.sum())
        self._first = np.cumsum(counts) - counts
        self._plain = bool((counts == 1).all()) and not rivals.any()
        self._weights = np.concatenate([np.empty(0), *(t.weights for t in terms)])
        self._centres = np.concatenate([np.empty(0), *(t.centres for t in terms)])
        self._slopes = np.concatenate([np.empty(0), *(t.slopes for t in terms)])
        self._contrasted = np.flatnonzero(rivals)
        self._first_rival = (np.cumsum(rivals) - rivals)[self._contrasted]
        heaviest = [int(t.weights.argmax()) for t in terms]
        self._leading = self._first + np.array(heaviest, np.intp)

    def answer(self, rows: Array) -> tuple[Float64Array, NDArray[np.intp]]:
        """(nearness (queries,), which of `rows` answers best (queries,)) of an input's vectors.

        rows: (k, dim), the whole's first. Of a query of several parts the row is that of the part
        that weighs most. Of equal ones the first is told, so the whole before its parts.
        """
        # A product for each, and not one for all: the whole's is what it is without views, to the
        # last bit.
        each = [self._matrix @ row for row in rows.astype(np.float64)]
        cosines = np.stack(each, axis=1)
        best = np.round(cosines, DECIMALS).argmax(axis=1)
        near: Float64Array = nearness(cosines)
        if self._plain:
            return near, best
        return self.combine(near), best[self._leading]

    def combine(self, near: Float64Array) -> Float64Array:
        """(..., queries) of the nearness (..., vectors) of each vector, parts first."""
        if not len(self._first):
            return near[..., :0]
        weighted = near[..., : self._count] * self._weights
        whole: Float64Array = np.add.reduceat(weighted, self._first, axis=-1)
        if len(self._contrasted):
            rivals = (near[..., self._count :] - self._centres) * self._slopes
            best = np.maximum.reduceat(rivals, self._first_rival, axis=-1)
            whole[..., self._contrasted] -= best
        return whole
