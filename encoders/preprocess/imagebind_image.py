"""Stills for ImageBind's vision tower: CLIP's square and colours, each frame given twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agent.types import Window
from encoders.preprocess.base import Float32Array, bad_ticks
from encoders.preprocess.clip_pictures import (
    CLIP_MEAN,
    CLIP_STD,
    SquareSettings,
    check_aspect,
)

__all__ = ["PLUGIN", "ImageBindImage", "rgb_frames"]

FRAMES = 2  # that the tower's stem looks at; the published model repeats a still, too


class ImageBindImage(SquareSettings, frozen=True, kw_only=True):
    """uint8 (n, height, width, 3) RGB or (n, height, width) grey to float32
    (n, 3, 2, size, size): (value / 255 - mean) / std, a view a frame.
    """

    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean), FRAMES, self.size, self.size)

    def __call__(self, window: Window) -> Float32Array:
        frames = rgb_frames(window)
        views = np.empty((len(frames), *self.shape), np.float32)
        for view, frame in zip(views, frames, strict=True):
            square = self.square(frame)
            for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
                first, second = view[channel]
                # To float before it is multiplied: one pass more, and yet quicker in numpy.
                first[...] = square[..., channel]
                first *= np.float32(1 / (255 * std))
                first -= np.float32(mean / std)
                second[...] = first
        return views


def rgb_frames(window: Window) -> NDArray[np.uint8]:
    """(n, height, width, 3) of colour or grey frames. Raises EncodeFailed for anything else."""
    frames = window.data
    if frames.ndim == 3:
        frames = np.stack([frames] * 3, axis=-1)
    if frames.dtype != np.uint8 or not frames.size or frames.shape[3:] != (3,):
        raise bad_ticks(window, "uint8[n, height, width, 3] or uint8[n, height, width]")
    check_aspect(window)
    return frames


PLUGIN = ImageBindImage
