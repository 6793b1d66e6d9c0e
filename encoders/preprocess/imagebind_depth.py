"""Depth for ImageBind: standardised disparity, as if an RGB-D camera of its training had seen it.

ImageBind takes disparity by Omnivore's recipe for SUN RGB-D (arXiv 2201.08377 and its public code):
depth z clipped to 0.01..50, d = b f / z clamped to 0.01..75, (d / 75 - 0.0418) / 0.0295.

The 8x trap: SUN RGB-D's PNG files hold depth with its bits rotated by three, the recipe reads them
as they lie, and so its "metres" are 8 times true metres. Only then do its constants fit: the mean
of 0.0418 is a depth of 1.55 m in a room, and would be 12.4 m in true metres. Our depth is true,
so the 8 stands here: x = (b f / z - 25.08) / 17.70.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import EncodeFailed
from agent.extras import needs_extra
from agent.types import Settings, Window, read_only
from encoders.preprocess.base import Float32Array, Square, bad_ticks
from encoders.preprocess.clip_pictures import (
    centre_offset,
    centre_square,
    check_aspect,
    resized_size,
)

__all__ = ["PLUGIN", "ImageBindDepth"]

SUN_UNIT = 8.0  # the recipe's "metres" a true metre
DEPTH_RANGE = (0.01, 50.0)  # in its "metres"
DISPARITY_RANGE = (0.01, 75.0)
MEAN, STD = 0.0418, 0.0295  # of disparity over the end of its range
# The pictures it was trained on are of this height; a focal length in pixels means it.
ROWS = 480
NO_MEASUREMENT_MM = 65_535  # some sensors and data sets write this for a hole, most write 0


class ImageBindDepth(Settings, frozen=True, kw_only=True):
    """uint16 (n, height, width) in true mm, 0 and 65535 = holes, to float32 (n, 1, size, size).

    A hole takes the value of its nearest measured neighbour first. Then the whole frame becomes
    disparity, its short side `size` by a bilinear resize, and its centre is cut out. The focal
    length is the stream's own fx, brought to a picture of 480 rows; focal_px, at 480 rows too,
    stands in for a stream without intrinsics, or with an uncalibrated camera's zeros (its default
    is a Kinect's, as NYU Depth v2 tells it). baseline_m: the recipe's for Kinects; it is a scale,
    not a property of the camera in use.
    """

    size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 224
    baseline_m: Annotated[float, msgspec.Meta(gt=0)] = 0.075
    focal_px: Annotated[float, msgspec.Meta(gt=0)] = 518.857901

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.size, self.size)

    def squares(self, height: int, width: int) -> list[Square]:
        """As `base.Squares`: the centre alone."""
        return [centre_square(height, width)]

    def prepare(self) -> None:
        """Raises ConfigError where the extra `imagebind` is missing."""
        with needs_extra("imagebind"):
            import cv2  # noqa: F401 - only whether it is there

    def __call__(self, window: Window) -> Float32Array:
        with needs_extra("imagebind"):
            import cv2

        frames = window.data
        if frames.ndim != 3 or not frames.size or frames.dtype != np.uint16:
            raise bad_ticks(window, "uint16[n, height, width] in mm")
        check_aspect(window)
        height, width = frames.shape[1:]
        own = window.stream.intrinsics
        focal_px = self.focal_px
        if own is not None and own.fx > 0 and own.height > 0:
            focal_px = own.fx * ROWS / own.height
        table = _standardised(self.baseline_m * focal_px)
        wide, high = resized_size(width, height, self.size)
        left, top = centre_offset(wide, self.size), centre_offset(high, self.size)
        views = np.empty((len(frames), *self.shape), np.float32)
        for view, frame in zip(views, frames, strict=True):
            disparity = table[_filled(frame, window.stream.name)]
            resized = cv2.resize(disparity, (wide, high), interpolation=cv2.INTER_LINEAR)
            view[0] = resized[top : top + self.size, left : left + self.size]
        return views


def _filled(frame: NDArray[np.uint16], stream: str) -> NDArray[np.uint16]:
    """`frame` with each hole as deep as the nearest pixel that was measured."""
    with needs_extra("imagebind"):
        import cv2

    holes = (frame == 0) | (frame == NO_MEASUREMENT_MM)
    if not holes.any():
        return frame
    if holes.all():
        raise EncodeFailed(f"stream {stream}: depth frame is all holes, expected a measured pixel")
    # Each measured pixel gets a number, and each hole that of the nearest one.
    labels = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    depth_of = np.zeros(int(labels.max()) + 1, np.uint16)
    depth_of[labels[~holes]] = frame[~holes]
    filled: NDArray[np.uint16] = depth_of[labels]
    return filled


@lru_cache(maxsize=8)
def _standardised(baseline_focal: float) -> Float32Array:
    """float32 (65536,): the tower's input for each depth in mm; baseline_focal in m * px."""
    depth = np.clip(np.arange(NO_MEASUREMENT_MM + 1) / 1000 * SUN_UNIT, *DEPTH_RANGE)
    disparity = np.clip(baseline_focal / depth, *DISPARITY_RANGE) / DISPARITY_RANGE[1]
    table: Float32Array = read_only(((disparity - MEAN) / STD).astype(np.float32))
    return table


PLUGIN = ImageBindDepth
