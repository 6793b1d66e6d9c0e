"""Accelerometer and gyroscope to scaled windows on a regular grid."""

from __future__ import annotations

import numpy as np

from agent.clock import NS_PER_S
from agent.types import Array, Settings, Window
from encoders.preprocess.base import (
    Float32Array,
    bad_ticks,
    span_s,
    tick_rate_hz,
    window_starts,
)

__all__ = ["PLUGIN", "ImuPreprocess"]

CHANNELS = 6
# The highest output rate of a common sensor (TDK ICM-42688-P). Stamps that are nearer together are
# bunched, not faster, and a grid as fine as they are would not end.
MAX_RATE_HZ = 32_000.0


class ImuPreprocess(Settings, frozen=True, kw_only=True):
    """(n, 6) ax ay az in m/s^2, gx gy gz in rad/s, at any rate, to float32 (k, 6, length).

    acceleration_scale, rotation_scale: what each is divided by. Ticks are laid on a regular grid
    of the stream's own rate by their stamps, linearly over gaps; a stream faster than rate_hz is
    smoothed by a box of as many ticks as fall on one at rate_hz; then it is interpolated to that.
    Views are windows of `length` ticks every `hop`, the last value repeated where there are fewer.
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
        data, t_ns = window.data, window.t_ns
        if data.ndim != 2 or data.shape[1] != CHANNELS or not len(data) or data.dtype.kind != "f":
            raise bad_ticks(window, "float32[n, 6]: ax ay az in m/s^2, gx gy gz in rad/s")
        rate_hz = tick_rate_hz(window) if len(data) > 1 else self.rate_hz
        duration_s = span_s(window, rate_hz)
        scale = np.repeat([self.acceleration_scale, self.rotation_scale], CHANNELS // 2)
        scaled = (data.astype(np.float64) / scale).T
        stamps_s = (t_ns - t_ns[0]) / NS_PER_S
        # Smoothed only once regular: a box over ticks would mix the two sides of a gap.
        own_hz = min(rate_hz, MAX_RATE_HZ)
        own_s, own = _on_grid(stamps_s, scaled, duration_s, own_hz)
        smooth = _box(own, max(1, round(own_hz / self.rate_hz)))
        _, grid = _on_grid(own_s, smooth, duration_s, self.rate_hz)
        missing = max(0, self.length - grid.shape[1])
        grid = np.pad(grid, ((0, 0), (0, missing)), mode="edge")
        starts = window_starts(grid.shape[1], self.length, self.hop)
        views = np.stack([grid[:, start : start + self.length] for start in starts])
        return views.astype(np.float32)


def _on_grid(
    stamps_s: Array, values: Array, duration_s: float, rate_hz: float
) -> tuple[Array, Array]:
    """Times (m,) from 0 at rate_hz, at least one, and `values` (channels, n) there."""
    times_s = np.arange(max(1, round(duration_s * rate_hz))) / rate_hz
    return times_s, np.stack([np.interp(times_s, stamps_s, channel) for channel in values])


def _box(values: Array, width: int) -> Array:
    """Running mean of `width` ticks of (channels, n); the ends are held."""
    if width == 1:
        return values
    # One column more in front, for the sum over none.
    held = np.pad(values, ((0, 0), (width // 2, width - 1 - width // 2)), mode="edge")
    sums = np.pad(np.cumsum(held, axis=1), ((0, 0), (1, 0)))
    mean: Array = (sums[:, width:] - sums[:, :-width]) / width
    return mean


PLUGIN = ImuPreprocess
