"""Clips for ImageBind's vision tower, as published: five of 2 s, two frames and three crops each.

The frames are resized in another way than stills (bilinear, no antialiasing), so the same frame
has another vector here than through `imagebind_image`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np

from agent.clock import from_s
from agent.errors import EncodeFailed
from agent.extras import needs_extra
from agent.types import Array, Settings, Window
from encoders.preprocess.base import Float32Array
from encoders.preprocess.clip_pictures import CLIP_MEAN, CLIP_STD
from encoders.preprocess.imagebind_image import FRAMES, rgb_frames

__all__ = ["PLUGIN", "ImageBindVideo"]


class ImageBindVideo(Settings, frozen=True, kw_only=True):
    """uint8 (n, height, width, 3) RGB or (n, height, width) grey frames to float32
    (clips * crops, 3, 2, size, size); the crops of a clip lie side by side.

    clips: of clip_s each, evenly from the first frame to the last; one where the window is no
    longer than that, as a live one is. Of a clip's frames, those with start <= stamp < end, the
    first and the last are taken. crops: 3 are left, centre and right (of a tall picture top,
    centre and bottom), 1 is the centre alone. Clips without a frame are left out.
    """

    size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 224
    clips: Annotated[int, msgspec.Meta(ge=1)] = 5
    clip_s: Annotated[float, msgspec.Meta(gt=0)] = 2.0
    crops: Literal[1, 3] = 3
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.mean), FRAMES, self.size, self.size)

    def prepare(self) -> None:
        """Raises ConfigError where the extra `imagebind` is missing."""
        with needs_extra("imagebind"):
            import cv2  # noqa: F401 - only whether it is there

    def __call__(self, window: Window) -> Float32Array:
        frames = rgb_frames(window)
        pairs = self._pairs(window)
        if not pairs:
            raise EncodeFailed(
                f"stream {window.stream.name}: no frame in any of {self.clips} clips, "
                "expected at least one"
            )
        resized = {i: self._resized(frames[i]) for i in sorted({i for p in pairs for i in p})}
        views = [
            np.stack([crop(resized[i]) for i in pair], axis=1)
            for pair in pairs
            for crop in self._crops(frames.shape[2], frames.shape[1])
        ]
        return np.stack(views)

    def _pairs(self, window: Window) -> list[tuple[int, int]]:
        """First and last frame of each clip that has one."""
        count = len(window.t_ns)
        # A live window may hold two frames only, whose stamps tell no rate.
        if count == 1 or window.end_ns - window.start_ns <= from_s(self.clip_s):
            return [(0, count - 1)]
        since_ns = window.t_ns - window.t_ns[0]
        # By the stamps: at a steady rate these are frames ceil(fps * start) to
        # ceil(fps * end) - 1, which the published decoder takes.
        step_ns = int(since_ns[-1]) / (count - 1)
        spare_ns = since_ns[-1] + step_ns - from_s(self.clip_s)
        if spare_ns <= 0:
            return [(0, count - 1)]
        pairs = []
        for number in range(self.clips):
            start_ns = round(spare_ns * number / max(1, self.clips - 1))
            first, end = np.searchsorted(since_ns, [start_ns, start_ns + from_s(self.clip_s)])
            if first < end:
                pairs.append((int(first), int(end) - 1))
        return pairs

    def _resized(self, frame: Array) -> Float32Array:
        """float32 (3, height, width), the short side `size`, normalised."""
        with needs_extra("imagebind"):
            import cv2

        wide, high = _scaled(frame.shape[1], frame.shape[0], self.size)
        values = frame.astype(np.float32)
        resized = cv2.resize(values, (wide, high), interpolation=cv2.INTER_LINEAR)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        normalised: Float32Array = ((resized / 255 - mean) / std).transpose(2, 0, 1)
        return normalised

    def _crops(self, width: int, height: int) -> list[_Crop]:
        wide, high = _scaled(width, height, self.size)
        left, top = -(-(wide - self.size) // 2), -(-(high - self.size) // 2)
        if self.crops == 1:
            places = [(left, top)]
        elif high > wide:
            places = [(left, 0), (left, top), (left, high - self.size)]
        else:
            places = [(0, top), (left, top), (wide - self.size, top)]
        return [_Crop(x, y, self.size) for x, y in places]


class _Crop:
    def __init__(self, left: int, top: int, size: int) -> None:
        self._rows, self._columns = slice(top, top + size), slice(left, left + size)

    def __call__(self, picture: Float32Array) -> Float32Array:
        return picture[:, self._rows, self._columns]


def _scaled(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) once the short side is `size`, the long one rounded down."""
    if width < height:
        return size, int(height / width * size)
    return int(width / height * size), size


PLUGIN = ImageBindVideo
