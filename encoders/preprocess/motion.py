"""Accelerometer and gyroscope on a regular grid: shared by the IMU preprocessings."""

from __future__ import annotations

import numpy as np

from agent.clock import NS_PER_S
from agent.types import Array, Window
from encoders.preprocess.base import bad_ticks, span_s, tick_rate_hz, window_starts

__all__ = ["CHANNELS", "grid_views", "motion", "motion_rate_hz", "on_grid"]

CHANNELS = 6
# The highest output rate of a common sensor (TDK ICM-42688-P). Stamps that are nearer together are
# bunched, not faster, and a grid as fine as they are would not end.
MAX_RATE_HZ = 32_000.0


def motion(window: Window, acceleration_scale: float, rotation_scale: float) -> Array:
    """float64 (6, n): a window's ticks, each half over its scale. Raises EncodeFailed."""
    data = window.data
    if data.ndim != 2 or data.shape[1] != CHANNELS or not len(data) or data.dtype.kind != "f":
        raise bad_ticks(window, "float32[n, 6]: ax ay az in m/s^2, gx gy gz in rad/s")
    scale = np.repeat([acceleration_scale, rotation_scale], CHANNELS // 2)
    scaled: Array = (data.astype(np.float64) / scale).T
    return scaled


def motion_rate_hz(window: Window, alone_hz: float) -> float:
    """As `tick_rate_hz`, or `alone_hz` where there is one tick only."""
    return tick_rate_hz(window) if len(window.t_ns) > 1 else alone_hz


def on_grid(window: Window, values: Array, rate_hz: float) -> tuple[Array, Array]:
    """Times in s from the first tick's at `rate_hz`, (m,), and `values` (6, n) there, (6, m).

    Ticks are laid on a regular grid of the stream's own rate by their stamps, linearly over gaps;
    a stream faster than rate_hz is smoothed by a box of as many ticks as fall on one at rate_hz;
    then it is interpolated to that. Raises EncodeFailed for stamps that span over a day.
    """
    stream_hz = motion_rate_hz(window, rate_hz)
    duration_s = span_s(window, stream_hz)
    # Smoothed only once regular: a box over ticks would mix the two sides of a gap.
    own_hz = min(stream_hz, MAX_RATE_HZ)
    stamps_s = (window.t_ns - window.t_ns[0]) / NS_PER_S
    own_s, own = _interpolated(stamps_s, values, duration_s, own_hz)
    smooth = _box(own, max(1, round(own_hz / rate_hz)))
    return _interpolated(own_s, smooth, duration_s, rate_hz)


def grid_views(grid: Array, length: int, hop: int, held: bool) -> Array:
    """(k, channels, length): the whole windows of a grid (channels, m), one every `hop` ticks.

    held: a grid that is shorter is filled up with its last values, else with 0.
    """
    missing = max(0, length - grid.shape[1])
    grid = np.pad(grid, ((0, 0), (0, missing)), mode="edge" if held else "constant")
    starts = window_starts(grid.shape[1], length, hop)
    return np.stack([grid[:, start : start + length] for start in starts])


def _interpolated(
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
