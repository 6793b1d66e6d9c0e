"""A query from a few examples: a prototype or a ridge probe, and its leave-one-out score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agent.config import GateConfig, MatchConfig
from agent.errors import ConfigError
from agent.match.calibration import Float64Array, logistic
from agent.ordinary import nearness, ordinary
from agent.types import Array

__all__ = ["ALPHAS", "MAX_EXAMPLES", "Lesson", "Method", "Ridge", "mean_vector", "ridge", "teach"]

Method = Literal["auto", "prototype", "ridge"]

MAX_EXAMPLES = 8
# Of unit vectors whose weights add up to 1, all eigenvalues add up to 1 at most: from next to no
# regularisation to nothing but the difference of the two means.
ALPHAS = tuple(float(alpha) for alpha in np.logspace(-3, 1, 9))
LEAST_LENGTH = 1e-3  # a mean of unit vectors that is shorter has no direction to speak of


@dataclass(frozen=True)
class Ridge:
    """A fit. vector: float64 (dim,). without: (rows, dim), the vector fitted without each row.
    alpha: the regularisation. press: weighted mean square of the left-out errors.
    """

    vector: Float64Array
    without: Float64Array
    alpha: float
    press: float


@dataclass(frozen=True)
class Lesson:
    """What was taught and what it is worth.

    vector: float32 (dim,), unit length. ordinary: mean and deviation of the cosine of `vector`
    with the background, left out where it took part. z: float64 (examples,), how many deviations
    above what is ordinary each example comes when it is left out; empty for one example, which
    leaves nothing. rank: int64, 1 + how many of the background come as high. negative_z: of each
    negative, left out where it took part. background: how many vectors that is measured against.
    """

    method: Literal["prototype", "ridge"]
    vector: NDArray[np.float32]
    ordinary: tuple[float, float]
    z: Float64Array
    rank: NDArray[np.int64]
    negative_z: Float64Array
    background: int

    @property
    def margin(self) -> float:
        """The worst left-out example over the worst negative, in z."""
        return float(self.z.min() - self.negative_z.max(initial=0.0))

    def found(self, match: MatchConfig, gate: GateConfig) -> NDArray[np.bool_]:
        """(examples,): whether each, left out, would have started an event."""
        return logistic(self.z, match.z_mid, match.z_scale) >= gate.enter

    def report(self, match: MatchConfig, gate: GateConfig) -> dict[str, Any]:
        """As query.teach replies; JSON values."""
        found = self.found(match, gate)
        return {
            "method": self.method,
            "found": int(found.sum()),
            "mean_z": round(float(self.z.mean()), 3) if len(self.z) else None,
            "left_out": [
                {"z": round(float(z), 3), "rank": int(rank), "found": bool(hit)}
                for z, rank, hit in zip(self.z, self.rank, found, strict=True)
            ],
            "negatives": [{"z": round(float(z), 3)} for z in self.negative_z],
            "background": self.background,
        }


def teach(
    examples: Array, negatives: Array, background: Array, method: Method, floor: float
) -> Lesson:
    """A query from unit vectors: examples (1..8, dim), negatives (n, dim), background (m, dim) or,
    of a tower with views, (m, k, dim) as Space.background gives it: a fit is against the wholes,
    and what is ordinary counts the views, as matching does.

    floor: least deviation, `match.min_deviation`. auto: for one example a prototype, unless there
    are negatives, which a prototype cannot use; else the method with the higher `margin`. Raises
    ConfigError for too many or no examples, for those that have no mean, and for a ridge probe
    with nothing to tell the examples from.
    """
    if not 1 <= len(examples) <= MAX_EXAMPLES:
        raise ConfigError(f"examples: got {len(examples)}, expected 1 to {MAX_EXAMPLES}")
    rest = len(negatives) + len(background)
    if method == "ridge" and not rest:
        raise ConfigError(
            "method: 'ridge' has nothing to tell the examples from, expected negatives, a space "
            "with a background, or prototype"
        )
    asked = (
        np.asarray(examples, np.float64),
        np.asarray(negatives, np.float64),
        _with_views(np.asarray(background, np.float64)),
        floor,
    )
    if method == "auto" and len(examples) == 1:
        method = "ridge" if len(negatives) else "prototype"
    if method == "prototype" or not rest:
        return _prototype(*asked)
    if method == "ridge":
        return _probe(*asked)
    return max(_prototype(*asked), _probe(*asked), key=lambda each: each.margin)


def mean_vector(vectors: Sequence[Array] | Array) -> Float64Array:
    """The unit mean of unit vectors (n, dim). Raises ConfigError where they cancel out."""
    mean: Float64Array = np.mean(np.asarray(vectors, np.float64), axis=0)
    length = float(np.linalg.norm(mean))
    if length < LEAST_LENGTH:
        raise ConfigError(
            f"examples: the mean of {len(vectors)} vectors has length {length:.1g}, "
            "expected examples of one thing"
        )
    return mean / length


def ridge(
    features: Float64Array,
    targets: Float64Array,
    weights: Float64Array,
    alphas: Sequence[float] = ALPHAS,
) -> Ridge:
    """Weighted ridge regression with a free intercept; of `alphas` (> 0) that of the least PRESS.

    features (rows, dim), targets (rows,), weights (rows,) that add up to 1. Minimises
    sum(weights * (features @ v + b - targets)^2) + alpha * |v|^2. What a fit without a row gives
    is had from one decomposition (PRESS: D. M. Allen, Technometrics 16(1), 1974): with leverages
    h and residuals e, its error is e / (1 - h), and its vector moves by that much of the row's
    own pull. Weights stay as they are when a row is left out.
    """
    root = np.sqrt(weights)
    rows = root[:, np.newaxis] * (features - weights @ features)
    aims = root * (targets - weights @ targets)
    u, d, vt = np.linalg.svd(rows, full_matrices=False)
    pulled = u.T @ aims
    fits = []
    for alpha in alphas:
        shrink = d / (d**2 + alpha)
        error = (aims - u @ (d * shrink * pulled)) / (1 - weights - u**2 @ (d * shrink))
        vector = (shrink * pulled) @ vt
        without = vector - error[:, np.newaxis] * ((u * shrink) @ vt)
        fits.append(Ridge(vector, without, alpha, float(error @ error)))
    return min(fits, key=lambda fit: fit.press)


def _prototype(
    examples: Float64Array, negatives: Float64Array, background: Float64Array, floor: float
) -> Lesson:
    dim = examples.shape[1]
    vector = mean_vector(examples)
    z, rank = [], []
    for number in range(len(examples) if len(examples) > 1 else 0):
        without = mean_vector(np.delete(examples, number, axis=0))
        cosine, others = float(examples[number] @ without), _near(background, without)
        z.append(_z(cosine, ordinary(others, dim), floor))
        rank.append(1 + int((others >= cosine).sum()))
    own = ordinary(_near(background, vector), dim)
    return Lesson(
        method="prototype",
        vector=vector.astype(np.float32),
        ordinary=own,
        z=np.array(z, np.float64),
        rank=np.array(rank, np.int64),
        negative_z=np.array([_z(float(n @ vector), own, floor) for n in negatives], np.float64),
        background=len(background),
    )


def _probe(
    examples: Float64Array, negatives: Float64Array, background: Float64Array, floor: float
) -> Lesson:
    n, m = len(examples), len(background)
    features = np.concatenate([examples, background[:, 0], negatives])
    is_example = np.arange(len(features)) < n
    # Half of the weight to either side: a handful of examples against a bank of hundreds.
    weights = np.where(is_example, 0.5 / n, 0.5 / (len(features) - n))
    fit = ridge(features, np.where(is_example, 1.0, -1.0), weights)
    # Without the only example nothing is left to fit: that row is not told.
    lengths = np.maximum(np.linalg.norm(fit.without, axis=1), np.finfo(np.float64).tiny)
    cosines = (features * fit.without).sum(axis=1) / lengths
    without = fit.without[n : n + m, np.newaxis]
    parts = (background[:, 1:] * without).sum(axis=2) / lengths[n : n + m, np.newaxis]
    others = nearness(np.concatenate([cosines[n : n + m, np.newaxis], parts], axis=1))
    # The probe was made to push the background down, so that what it gives now is no measure.
    own = ordinary(others, features.shape[1])
    told = cosines[:n] if n > 1 else cosines[:0]
    return Lesson(
        method="ridge",
        vector=(fit.vector / np.linalg.norm(fit.vector)).astype(np.float32),
        ordinary=own,
        z=np.array([_z(float(cosine), own, floor) for cosine in told], np.float64),
        rank=np.array([1 + int((others >= cosine).sum()) for cosine in told], np.int64),
        negative_z=np.array([_z(float(c), own, floor) for c in cosines[n + m :]], np.float64),
        background=m,
    )


def _with_views(background: Float64Array) -> Float64Array:
    """(m, k, dim) also of (m, dim), where k is 1."""
    return background if background.ndim == 3 else background[:, np.newaxis]


def _near(background: Float64Array, vector: Float64Array) -> Float64Array:
    """(m,): the nearness of each of (m, k, dim)."""
    count, views, dim = background.shape
    return nearness((background.reshape(-1, dim) @ vector).reshape(count, views))


def _z(cosine: float, null: tuple[float, float], floor: float) -> float:
    mean, deviation = null
    return (cosine - mean) / max(deviation, floor)
