"""Infrared frames to normalised square views, whatever their unit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.types import Array, Int64Array, Window
from encoders.preprocess.base import Float32Array, bad_ticks
from encoders.preprocess.crops import PictureSettings

__all__ = ["PLUGIN", "ThermalPreprocess"]

# How many pixels a frame's sample leaves out (a prime, so as not to be of a few columns), and how
# far within its percentiles those of the sample are looked up, in points. They are not part of what
# the name means: whatever the sample says, the percentiles found are those of the frame.
SPARSE, MARGIN = 61, 1.0


class ThermalPreprocess(PictureSettings, frozen=True, kw_only=True):
    """Counts, Celsius or 8-bit (n, height, width) to float32 (k, 1, size, size).

    percentiles: of a frame's values, in 0..100; what lies between is stretched over 0..255, so
    gain, offset and unit of the camera do not matter. A flat frame gives black.
    """

    percentiles: tuple[float, float]

    def __call__(self, window: Window) -> Float32Array:
        frames = window.data
        if frames.ndim != 3 or not frames.size or frames.dtype.kind not in "uif":
            raise bad_ticks(window, "numbers [n, height, width]")
        return self.views_of([self._stretch(frame) for frame in frames])

    def _stretch(self, frame: Array) -> Image.Image:
        if frame.dtype == np.uint8:  # Pillow counts and looks up in a third of numpy's time
            picture = Image.fromarray(frame)
            counts = np.array(picture.histogram())
            low, high = _percentiles(counts, self.percentiles)
            table = _grey(np.arange(256, dtype=np.float32), low, high)
            return picture.point(table.tolist())
        if frame.dtype == np.uint16:
            counts = np.bincount(frame.ravel())
            low, high = _percentiles(counts, self.percentiles)
            table = _grey(np.arange(len(counts), dtype=np.float32), low, high)
            return Image.fromarray(table.take(frame))
        values = frame.astype(np.float32, copy=False)
        low, high = _percentiles_of(values.ravel(), self.percentiles)
        return Image.fromarray(_grey(values, low, high))


def _grey(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    stretched = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    grey: NDArray[np.uint8] = (stretched * 255).astype(np.uint8)
    return grey


def _percentiles_of(
    values: NDArray[np.float32], percentiles: tuple[float, float]
) -> NDArray[np.float32]:
    """float32 (2,): np.percentile's of finite values (n,), in a quarter of its time: only the ends
    that have them are sorted in part, or all where the sample misleads about where those begin.
    """
    places = np.array(percentiles) / 100 * (len(values) - 1)
    inner = np.clip((percentiles[0] + MARGIN, percentiles[1] - MARGIN), 0, 100)
    # Of their type, or all values would be made float64 to be compared.
    low, high = np.percentile(values[::SPARSE], inner).astype(np.float32)
    below, above = values <= low, values >= high
    first_above = len(values) - np.count_nonzero(above)
    if np.count_nonzero(below) > math.ceil(places[0]) and first_above <= math.floor(places[1]):
        kept = values[below | above]
        places[1] -= len(values) - len(kept)
        values = kept
    before, after = np.floor(places).astype(int), np.ceil(places).astype(int)
    ordered = np.partition(values, [*before, *after])
    first, last = ordered[before], ordered[after]
    found: NDArray[np.float32] = (first + (places - before) * (last - first)).astype(np.float32)
    return found


def _percentiles(counts: Int64Array, percentiles: tuple[float, float]) -> NDArray[np.float32]:
    """float32 (2,): np.percentile's of whole numbers, of which there are `counts`, none sorted."""
    below = np.cumsum(counts)
    places = np.array(percentiles) / 100 * (below[-1] - 1)
    before, after = np.floor(places), np.ceil(places)
    first, last = (np.searchsorted(below, place, side="right") for place in (before, after))
    found: NDArray[np.float32] = (first + (places - before) * (last - first)).astype(np.float32)
    return found


PLUGIN = ThermalPreprocess
