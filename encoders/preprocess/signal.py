"""Any channels over time to windows on a regular grid: touch, radar, EMG, gas, heart rate."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agent.types import Array, Settings, Window
from encoders.preprocess.base import Float32Array, bad_ticks
from encoders.preprocess.motion import grid_views, on_grid

__all__ = ["PLUGIN", "SignalPreprocess"]

# Interquartile range of a normal distribution over its standard deviation.
IQR_OF_SIGMA = 1.349


class SignalPreprocess(Settings, frozen=True, kw_only=True):
    """Numbers (n, ...) of `channels` a tick, at any rate, to float32 (k, channels, length).

    Ticks are laid on a regular grid of rate_hz by their stamps, a faster stream smoothed by a box
    first (motion.on_grid). Views are length_s long, one every hop_s, the last value held where
    there is less. normalise: "fixed" is (value - offset) / scale, one number each a channel or one
    for all, in the stream's own unit; it keeps the level. "robust" takes each channel's median of
    the window and its interquartile range as a normal distribution's deviation: only the shape is
    left; scale is then the least deviation that is divided by, so that a still sensor's noise is
    not blown up.
    """

    channels: int
    rate_hz: float
    length_s: float
    hop_s: float
    normalise: Literal["fixed", "robust"] = "fixed"
    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.channels < 1 or self._length < 1 or self._hop < 1:
            raise ValueError(
                f"channels {self.channels}, length_s {self.length_s:g}, hop_s {self.hop_s:g} at "
                f"rate_hz {self.rate_hz:g}, expected at least 1 channel and 1 tick each"
            )
        for name, values in (("offset", self.offset), ("scale", self.scale)):
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name}: {len(values)} numbers, expected 1 or {self.channels}")
        if not all(value > 0 for value in self.scale):
            raise ValueError(f"scale {list(self.scale)}, expected numbers above 0")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self._length)

    @property
    def _length(self) -> int:
        return round(self.length_s * self.rate_hz)

    @property
    def _hop(self) -> int:
        return round(self.hop_s * self.rate_hz)

    def __call__(self, window: Window) -> Float32Array:
        data = window.data
        if not data.size or data.dtype.kind not in "uif" or data[0].size != self.channels:
            raise bad_ticks(window, f"numbers [n, {self.channels}]")
        values: Array = data.reshape(len(data), self.channels).astype(np.float64).T
        _, grid = on_grid(window, values, self.rate_hz)
        views = grid_views(grid, self._length, self._hop, held=True)
        offset, scale = (np.array(v)[:, np.newaxis] for v in (self.offset, self.scale))
        if self.normalise == "robust":
            low, offset, high = np.percentile(views, (25, 50, 75), axis=2, keepdims=True)
            scale = np.maximum((high - low) / IQR_OF_SIGMA, scale)
        scaled: Float32Array = ((views - offset) / scale).astype(np.float32)
        return scaled


PLUGIN = SignalPreprocess
