"""Thermal pictures for ImageBind: what a camera's own gain control would show, plainly in 0..1.

The tower was trained on LLVIP (arXiv 2108.10831): 8-bit infrared video after the camera's gain
control. Nothing is subtracted: a user who ran it on LLVIP has 62.4 % without a mean and deviation
and 55.2 % with them (ImageBind, pull request 73), and the paper has 63.4 %.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np

from agent.types import Array, Window
from encoders.preprocess.base import Float32Array, bad_ticks
from encoders.preprocess.clip_pictures import Pixels, SquareSettings, check_aspect

__all__ = ["PLUGIN", "ImageBindThermal"]

# Percentiles of so many pixels are those of all: a frame is smooth, and sorting it is not cheap.
SORTED_PIXELS = 20_000


class ImageBindThermal(SquareSettings, frozen=True, kw_only=True):
    """(n, height, width) uint16 counts, float Celsius, or uint8 to float32 (n, 1, size, size)
    in 0..1.

    uint8 is taken as it is: the camera has stretched it. Of the others, what lies between the
    `percentiles` of a frame becomes 0..255. min_span_c, min_span_counts: the least that this may
    stretch, so that the noise of an even wall stays noise. A frame is stretched by itself alone,
    with no memory of those before: a replay, a file and a stream give one vector for one frame.
    """

    percentiles: tuple[float, float] = (1.0, 99.0)
    min_span_c: Annotated[float, msgspec.Meta(gt=0)] = 4.0
    min_span_counts: Annotated[float, msgspec.Meta(gt=0)] = 100.0

    def __post_init__(self) -> None:
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles {low}, {high}: expected 0 <= low < high <= 100")

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.size, self.size)

    def __call__(self, window: Window) -> Float32Array:
        frames = window.data
        if (
            frames.ndim != 3
            or not frames.size
            or not (frames.dtype in (np.uint8, np.uint16) or frames.dtype.kind == "f")
        ):
            raise bad_ticks(window, "uint8, uint16 or float32 [n, height, width]")
        check_aspect(window)
        squares = [self.square(self._grey(frame)) for frame in frames]
        views: Float32Array = np.stack(squares)[:, np.newaxis].astype(np.float32)
        views /= 255
        return views

    def _grey(self, frame: Array) -> Pixels:
        if frame.dtype == np.uint8:
            return frame
        step = max(1, math.isqrt(frame.size // SORTED_PIXELS))
        low, high = np.percentile(frame[::step, ::step], self.percentiles)
        least = self.min_span_c if frame.dtype.kind == "f" else self.min_span_counts
        spread = max(0.0, least - (high - low)) / 2
        low, high = low - spread, high + spread
        stretched = (frame.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        grey: Pixels = np.clip(stretched, 0, 255).astype(np.uint8)
        return grey


PLUGIN = ImageBindThermal
