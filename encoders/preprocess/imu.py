"""Accelerometer and gyroscope to scaled windows on a regular grid."""

from __future__ import annotations

import numpy as np

from agent.types import Settings, Window
from encoders.preprocess.base import Float32Array
from encoders.preprocess.motion import CHANNELS, grid_views, motion, on_grid

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
        return grid_views(grid, self.length, self.hop, held=True).astype(np.float32)


PLUGIN = ImuPreprocess
