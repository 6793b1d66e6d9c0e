"""Accelerometer and gyroscope to the windows that ImageBind's IMU tower takes."""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from agent.clock import NS_PER_S, from_s
from agent.types import Array, Settings, Window
from encoders.preprocess.base import Float32Array
from encoders.preprocess.motion import CHANNELS, grid_views, motion, motion_rate_hz, on_grid

__all__ = ["PLUGIN", "ImageBindImu"]

ORDER = ("ax", "ay", "az", "gx", "gy", "gz")
# Ticks further apart than this are no slow stream but a gap, and so are more than three steps.
MIN_GAP_S = 0.1
GAP_STEPS = 3

_Positive = Annotated[float, msgspec.Meta(gt=0)]


class ImageBindImu(Settings, frozen=True, kw_only=True):
    """float (n, 6) ax ay az in m/s^2, gx gy gz in rad/s, at any rate, to float32 (k, 6, 2000).

    rate_hz, length_s: of a view. hop_s: from one view to the next of a longer window; a tail that
    fills none is left out. order: of the six channels in a view. acceleration_scale,
    rotation_scale: what each half is divided by, 9.80665 for g.

    Ticks are laid on a regular grid by their stamps (motion.on_grid); where they are further apart
    than 0.1 s and three steps, what lies between is 0. A shorter window is padded with 0 at its
    end.

    There is no official loader. The network takes 6 x 2000 and the paper says 5 s, which would be
    400 Hz; but Ego4D, which it was trained on, is processed at 200 Hz, the narration loader of
    Meta's imu2clip takes 5 s to both sides of a moment, and others that feed the published
    weights use 10 s at 200 Hz, unnormalised, gravity left in. A reconstruction, then: rate,
    length and scales are parameters for that reason.
    """

    rate_hz: _Positive = 200.0
    length_s: _Positive = 10.0
    hop_s: _Positive = 10.0
    order: tuple[str, str, str, str, str, str] = ORDER
    acceleration_scale: _Positive = 1.0
    rotation_scale: _Positive = 1.0

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(ORDER):
            raise ValueError(f"order {list(self.order)}, expected each of {', '.join(ORDER)} once")
        if min(self._length, self._hop) < 1:
            raise ValueError(
                f"length_s {self.length_s} and hop_s {self.hop_s} at rate_hz {self.rate_hz}, "
                "expected at least one tick each"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (CHANNELS, self._length)

    @property
    def _length(self) -> int:
        return round(self.length_s * self.rate_hz)

    @property
    def _hop(self) -> int:
        return round(self.hop_s * self.rate_hz)

    def __call__(self, window: Window) -> Float32Array:
        scaled = motion(window, self.acceleration_scale, self.rotation_scale)
        times_s, grid = on_grid(window, scaled, self.rate_hz)
        grid[:, _in_gaps(window, times_s, motion_rate_hz(window, self.rate_hz))] = 0
        grid = grid[[ORDER.index(channel) for channel in self.order]]
        return grid_views(grid, self._length, self._hop, held=False).astype(np.float32)


def _in_gaps(window: Window, times_s: Array, rate_hz: float) -> Array:
    """bool (m,): which times, in s from the first tick's, lie between two ticks too far apart."""
    limit_ns = from_s(max(MIN_GAP_S, GAP_STEPS / rate_hz))
    stamps_ns = window.t_ns - window.t_ns[0]
    times_ns = np.rint(times_s * NS_PER_S).astype(np.int64)
    before = np.searchsorted(stamps_ns, times_ns, side="right") - 1
    begins_gap = np.append(np.diff(stamps_ns) > limit_ns, False)
    inside: Array = begins_gap[before] & (times_ns > stamps_ns[before])
    return inside


PLUGIN = ImageBindImu
