"""Depth frames to normalised square views: near is bright, far is dark, holes are black."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agent.types import Window, read_only
from encoders.preprocess.base import Float32Array, bad_ticks
from encoders.preprocess.crops import PictureSettings

__all__ = ["PLUGIN", "DepthPreprocess"]

# Nearer than any sensor can measure: a hole, as 0 is.
VALID_M = 0.05
# The darkest a measured pixel may be, so that far differs from a hole.
FAR_BRIGHTNESS = 0.02
# Some sensors and data sets write this where they measured nothing.
NO_MEASUREMENT_MM = 65_535


class DepthPreprocess(PictureSettings, frozen=True, kw_only=True):
    """uint16 (n, height, width) in mm, 0 and 65535 = holes, to float32 (k, 1, size, size).

    near_m, far_m: where brightness, logarithmic in depth so that scale is kept, is 1 and 0.
    """

    near_m: float
    far_m: float

    def __call__(self, window: Window) -> Float32Array:
        frames = window.data
        if frames.ndim != 3 or not frames.size or frames.dtype != np.uint16:
            raise bad_ticks(window, "uint16[n, height, width] in mm")
        return self.views(_brightness(self.near_m, self.far_m).take(frames))


@lru_cache(maxsize=4)
def _brightness(near_m: float, far_m: float) -> NDArray[np.uint8]:
    """uint8 (65536,): the grey value of each depth in mm. A table, as there are only so many."""
    depth_m = np.arange(NO_MEASUREMENT_MM + 1, dtype=np.float32) / 1000
    value = 1 - np.log(np.maximum(depth_m, near_m) / near_m) / np.log(far_m / near_m)
    value = np.clip(value, FAR_BRIGHTNESS, 1)
    value[(depth_m <= VALID_M) | (depth_m == np.float32(NO_MEASUREMENT_MM / 1000))] = 0
    table: NDArray[np.uint8] = read_only((value * 255).astype(np.uint8))
    return table


PLUGIN = DepthPreprocess
