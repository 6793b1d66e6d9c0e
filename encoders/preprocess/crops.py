"""Square crops of a frame, resized: shared by the senses that are pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.types import Settings
from encoders.preprocess.base import Box, Square

__all__ = ["PictureSettings", "crop_offsets", "short_side_squares", "square_crops", "squeezed"]

# Below the first, one centre square shows nearly all of a frame; between it and the second, two
# squares overlap so little of the middle that a third is put there.
SINGLE_CROP_ASPECT = 1.2
CENTRE_CROP_ASPECT = 1.7


class PictureSettings(Settings, frozen=True, kw_only=True):
    """size: pixels a side of a view. mean, std: a channel, of values in 0..1.

    reducing_gap: PIL's: a box filter first shrinks a frame to this many times `size`, which is
    several times faster and not quite the same picture; None resizes in one step. fit: a frame as
    squares of its short side, by `crop_offsets`, or as one view by `squeezed`.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reducing_gap: float | None
    fit: Literal["squares", "squeeze"] = "squares"

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean), self.size, self.size)

    def squares(self, height: int, width: int) -> list[Square]:
        """As `base.Squares`. What is squeezed is no square, but where the frame is one."""
        if self.fit == "squeeze" and height != width:
            return []
        return short_side_squares(height, width)

    def boxes(self, height: int, width: int) -> list[Box]:
        """As `base.Boxes`."""
        if self.fit == "squeeze":
            return [_squeezed_box(height, width)]
        return [Box(*square, square.side) for square in short_side_squares(height, width)]

    def views(self, frames: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """uint8 (n, height, width) or (n, height, width, 3) to float32 (k, channels, size, size):
        the crops of each frame in turn, (value / 255 - mean) / std.
        """
        return self.views_of([Image.fromarray(frame) for frame in frames])

    def views_of(self, pictures: Iterable[Image.Image]) -> NDArray[np.float32]:
        """As `views`, of frames that Pillow has: of mode L or RGB."""
        cut = squeezed if self.fit == "squeeze" else square_crops
        crops = np.concatenate([cut(picture, self.size, self.reducing_gap) for picture in pictures])
        pixels = crops.reshape(len(crops), self.size, self.size, -1).transpose(0, 3, 1, 2)
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        # Laid out first: numpy takes five times as long over pixels of three values each.
        views = np.empty((len(crops), *self.shape), np.float32)
        views[...] = pixels
        views /= 255
        views -= mean
        views /= std
        return views


def crop_offsets(width: int, height: int) -> list[int]:
    """Where the squares start along the long side, in pixels; each is as wide as the short side.

    The centre alone for an aspect under 1.2; else ceil(aspect) evenly spread from end to end, and
    the centre as a third where that is two and the aspect is under 1.7.
    """
    short, long = sorted((width, height))
    aspect = long / short
    centre = (long - short) // 2
    if aspect < SINGLE_CROP_ASPECT:
        return [centre]
    count = math.ceil(aspect)
    offsets = [(long - short) * i // (count - 1) for i in range(count)]
    if count == 2 and aspect < CENTRE_CROP_ASPECT:
        offsets.append(centre)
    return offsets


def short_side_squares(height: int, width: int) -> list[Square]:
    """Those of the whole short side, by `crop_offsets`, from the left or the top."""
    short = min(height, width)
    offsets = crop_offsets(width, height)
    if width > height:
        return [Square(offset, 0, short) for offset in offsets]
    return [Square(0, offset, short) for offset in offsets]


def square_crops(picture: Image.Image, size: int, reducing_gap: float | None) -> NDArray[np.uint8]:
    """(height, width) of mode L or RGB to uint8 (k, size, size[, 3]), Lanczos."""
    crops = [
        picture.crop((left, top, left + side, top + side)).resize(
            (size, size), Image.Resampling.LANCZOS, reducing_gap=reducing_gap
        )
        for left, top, side in short_side_squares(picture.height, picture.width)
    ]
    return np.stack([np.asarray(crop) for crop in crops])


def squeezed(picture: Image.Image, size: int, reducing_gap: float | None) -> NDArray[np.uint8]:
    """(height, width) of mode L or RGB to uint8 (1, size, size[, 3]), Lanczos: of what a frame is
    longer than wide, half (of the ratio) is cut from its ends and half is squeezed, so that 4:3
    loses an eighth of its length and is squeezed by as much.
    """
    left, top, width, height = _squeezed_box(picture.height, picture.width)
    resized = picture.resize(
        (size, size),
        Image.Resampling.LANCZOS,
        box=(left, top, left + width, top + height),
        reducing_gap=reducing_gap,
    )
    return np.asarray(resized)[np.newaxis]


def _squeezed_box(height: int, width: int) -> Box:
    side = math.sqrt(height * width)
    left, top = max(0.0, (width - side) / 2), max(0.0, (height - side) / 2)
    return Box(left, top, width - 2 * left, height - 2 * top)
