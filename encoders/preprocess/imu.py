"""Accelerometer and gyroscope to scaled windows on a regular grid."""

from __future__ import annotations

import numpy as np

from agent.types import Settings, Window
from encoders.preprocess.base import Float32Array, window_starts
from encoders.preprocess.motion import CHANNELS, motion, on_grid

__all__ = ["PLUGIN", "ImuPreprocess"]


class ImuPreprocess(Settings, frozen=True, kw_only=True):
    """(n, 6) ax ay az in m/s^2, gx gy gz in rad/s, at any rate, to float32 (k, 6, length).

    acceleration_scale, rotation_scale: what each is divided by. Ticks are laid on a regular grid
    of rate_hz by their stamps (motion.on_grid). Views are windows of `length` ticks every `hop`,
    the last value repeated where there are fewer.
    """

    rate_hz: float
    length: int
    hop: int
    acceleration_scale: float
    rotation_scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (CHANNELS, self.length)

    def __call__(self, window: Window) -> Float32Array:
        scaled = motion(window, self.acceleration_scale, self.rotation_scale)
        _, grid = on_grid(window, scaled, self.rate_hz)
        missing = max(0, self.length - grid.shape[1])
        grid = np.pad(grid, ((0, 0), (0, missing)), mode="edge")
        starts = window_starts(grid.shape[1], self.length, self.hop)
        views = np.stack([grid[:, start : start + self.length] for start in starts])
        return views.astype(np.float32)


PLUGIN = ImuPreprocess
