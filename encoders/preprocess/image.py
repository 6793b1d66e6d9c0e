"""Colour or grey frames to normalised square RGB views."""

from __future__ import annotations

import numpy as np

from agent.types import Window
from encoders.preprocess.base import Float32Array, bad_ticks
from encoders.preprocess.crops import PictureSettings

__all__ = ["PLUGIN", "ImagePreprocess"]


class ImagePreprocess(PictureSettings, frozen=True, kw_only=True):
    """uint8 (n, height, width, 3) RGB or (n, height, width) grey to float32 (k, 3, size, size)."""

    def __call__(self, window: Window) -> Float32Array:
        frames = window.data
        if frames.ndim == 3:
            frames = np.stack([frames] * 3, axis=-1)
        if frames.dtype != np.uint8 or not frames.size or frames.shape[3:] != (3,):
            raise bad_ticks(window, "uint8[n, height, width, 3] or uint8[n, height, width]")
        return self.views(frames)


PLUGIN = ImagePreprocess
