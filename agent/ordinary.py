"""How near a query is to one input of several views, and how near it is to ordinary input."""

from __future__ import annotations

import numpy as np

from agent.types import Array

__all__ = ["nearness", "ordinary"]

CLIP = 3.0  # deviations


def nearness(cosines: Array) -> Array:
    """(...) of the cosines (..., k) of a query with an input's k >= 1 vectors, the whole's first.

    The mean of the whole's and the best: never under the whole's, and just that where it is the
    only one. The best alone finds what is small as well and loses more of what fills the frame
    than it wins, for among many parts of an input one looks like anything (docs/adr/0012).
    """
    near: Array = (cosines[..., 0] + cosines.max(axis=-1)) / 2
    return near


def ordinary(cosines: Array, dim: int) -> tuple[float, float]:
    """Mean and deviation of `cosines` (n,), without those over 3 deviations from the mean.

    Sigma clipping, repeated until none is: a bank of ordinary input holds a few of what a query
    asks for, and they would hide the rest. Where n is 0: 0 and 1/sqrt(dim), what two random
    directions give.
    """
    if not len(cosines):
        return 0.0, dim**-0.5
    while True:
        mean, deviation = float(cosines.mean()), float(cosines.std())
        kept = cosines[np.abs(cosines - mean) <= CLIP * deviation]
        if len(kept) in (0, len(cosines)):
            return mean, deviation
        cosines = kept
