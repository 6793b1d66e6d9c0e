"""What cosine is ordinary: mean and deviation of a vector's cosines with a bank of background."""

from __future__ import annotations

import numpy as np

from agent.types import Array

__all__ = ["ordinary"]

CLIP = 3.0  # deviations


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
