"""Any (height x width) field of numbers to views of one size: a touch mat, a radar or sonar map."""

from __future__ import annotations

import numpy as np
from PIL import Image

from agent.types import Array, Settings, Window
from encoders.preprocess.base import Float32Array, bad_ticks

__all__ = ["PLUGIN", "GridPreprocess"]


class GridPreprocess(Settings, frozen=True, kw_only=True):
    """Numbers (n, rows, columns) to float32 (n, 1, height, width) in -1..1.

    low, high: in the stream's own unit, what becomes -1 and 1; beyond them is clipped. Where
    `percentiles` are given (0..100, of each frame's values) low and high are found by them, and
    the absolute level is lost; a flat frame then gives -1. The whole frame is resized, bilinear
    over the area of a new cell (Pillow), its aspect is not kept.
    """

    height: int
    width: int
    low: float = 0.0
    high: float = 1.0
    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or not self.low < self.high:
            raise ValueError(
                f"height {self.height}, width {self.width}, low {self.low:g}, high {self.high:g}, "
                "expected at least 1 cell and low under high"
            )
        if self.percentiles and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles {list(self.percentiles)}, expected rising in 0..100")

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.height, self.width)

    def __call__(self, window: Window) -> Float32Array:
        frames = window.data
        if frames.ndim != 3 or not frames.size or frames.dtype.kind not in "uif":
            raise bad_ticks(window, "numbers [n, rows, columns]")
        return np.stack([self._view(frame.astype(np.float64)) for frame in frames])[:, np.newaxis]

    def _view(self, frame: Array) -> Float32Array:
        low, high = self.low, self.high
        if self.percentiles:
            low, high = np.percentile(frame, self.percentiles)
        mapped = 2 * np.clip((frame - low) / max(high - low, 1e-9), 0, 1) - 1
        picture = Image.fromarray(mapped.astype(np.float32))
        size = (self.width, self.height)
        view: Float32Array = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
        return view


PLUGIN = GridPreprocess
