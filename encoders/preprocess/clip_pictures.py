"""CLIP's square of a frame: short side to 224 by an antialiased bicubic, then the centre.

`exact` is Pillow, which the published recipes use. `fast` is OpenCV, 15 to 20 times faster on a
1280x720 frame and on average within 2 steps of 255 of it: only what the square needs is read,
halved while that leaves enough, and blurred a little before the interpolation, as OpenCV's own
bicubic does not antialias.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.errors import EncodeFailed
from agent.extras import needs_extra
from agent.types import Settings, Window, read_only
from encoders.preprocess.base import Float32Array, Square

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "Pixels",
    "Resize",
    "SquareSettings",
    "centre_offset",
    "centre_square",
    "check_aspect",
    "resized_size",
]

Pixels = NDArray[np.uint8]
Resize = Literal["exact", "fast"]

# Of RGB in 0..1: https://github.com/openai/CLIP (MIT), which ImageBind's image tower began as.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Frames whose sides differ more are no pictures, and resized they would fill memory.
MAX_ASPECT = 100

# The halvings leave at least this factor to the blur, whose shape is nearer to Pillow's.
LEAST_REST = 1.25
# Outer taps (b, 1 - 2b, b) of the blur before a shrinking by `rest`, b = slope * (rest - offset):
# the least squares to Pillow on photographs, fitted for rests between 1.05 and 2.5.
BLUR_SLOPE, BLUR_OFFSET = 0.2, 0.9
# How far an edge of the part that is read may lie off a pixel's edge, in pixels of the square.
EDGE_ERROR = 0.1
MARGIN = 2  # pixels of the square beside it, that the blur and the interpolation look at


class SquareSettings(Settings, frozen=True, kw_only=True):
    """size: pixels a side. resize: "exact" (Pillow) or "fast" (OpenCV, extra `imagebind`)."""

    size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 224
    resize: Resize = "exact"

    def prepare(self) -> None:
        """Raises ConfigError where `resize` needs an extra that is missing."""
        if self.resize == "fast":
            with needs_extra("imagebind"):
                import cv2  # noqa: F401 - only whether it is there

    def squares(self, height: int, width: int) -> list[Square]:
        """As `base.Squares`: the centre alone."""
        return [centre_square(height, width)]

    def square(self, frame: Pixels) -> Pixels:
        """uint8 (height, width[, 3]) to (size, size[, 3]), newly made."""
        return _exact(frame, self.size) if self.resize == "exact" else _fast(frame, self.size)


def check_aspect(window: Window) -> None:
    """Raises EncodeFailed where a side of the frames (n, height, width, ...) is more than 100
    times the other.
    """
    height, width = window.data.shape[1:3]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise EncodeFailed(
            f"stream {window.stream.name}: frames are {width}x{height}, "
            f"expected no side over {MAX_ASPECT} times the other"
        )


def resized_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) once the short side is `size`; the long one is cut to a whole number."""
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def centre_offset(length: int, size: int) -> int:
    """Where a centre crop starts; halves go to the even number, as torchvision's do."""
    return round((length - size) / 2)


def centre_square(height: int, width: int) -> Square:
    """What CLIP's square shows of a frame, to the nearest pixel."""
    side = min(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def _exact(frame: Pixels, size: int) -> Pixels:
    height, width = frame.shape[:2]
    wide, high = resized_size(width, height, size)
    left, top = centre_offset(wide, size), centre_offset(high, size)
    picture = Image.fromarray(frame).resize((wide, high), Image.Resampling.BICUBIC)
    return np.array(picture.crop((left, top, left + size, top + size)))


def _fast(frame: Pixels, size: int) -> Pixels:
    with needs_extra("imagebind"):
        import cv2

    height, width = frame.shape[:2]
    if min(height, width) <= size:  # nothing to shrink: Pillow takes little time
        return _exact(frame, size)
    x, y, halvings, taps = _plan(width, height, size)
    part = frame[y.start : y.start + y.length, x.start : x.start + x.length]
    for _ in range(halvings):
        half = (part.shape[1] // 2, part.shape[0] // 2)
        # At just a half this is the mean of 2 x 2 pixels, as INTER_AREA is, in half the time.
        part = cv2.resize(part, half, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]  # its stubs say any number
    part = cv2.sepFilter2D(part, -1, taps, taps, borderType=cv2.BORDER_REPLICATE)  # type: ignore[assignment]  # as above
    part = cv2.resize(part, (x.resized, y.resized), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]  # as above
    return part[y.skipped : y.skipped + size, x.skipped : x.skipped + size]


class _Part(NamedTuple):
    """Of one side of a frame: `length` pixels from `start`, which become `resized` pixels, of
    which the square begins after `skipped`.
    """

    start: int
    length: int
    resized: int
    skipped: int


@lru_cache(maxsize=64)
def _plan(width: int, height: int, size: int) -> tuple[_Part, _Part, int, Float32Array]:
    """What is read along x and along y, how often it is halved, and the taps of the blur."""
    wide, high = resized_size(width, height, size)
    ratio = min(width, height) / size
    halvings = 0
    while ratio / 2 ** (halvings + 1) >= LEAST_REST:
        halvings += 1
    x = _part(width, wide, centre_offset(wide, size), size, 2**halvings)
    y = _part(height, high, centre_offset(high, size), size, 2**halvings)
    blur = max(0.0, BLUR_SLOPE * (ratio / 2**halvings - BLUR_OFFSET))
    return x, y, halvings, read_only(np.array([blur, 1 - 2 * blur, blur], np.float32))


def _part(length: int, resized: int, offset: int, size: int, factor: int) -> _Part:
    """The least part whose ends are, nearly, edges of pixels both of the frame and of the whole
    frame resized, so that its own resizing puts each pixel where Pillow's does. Its length is a
    multiple of `factor`; of a side that is none, up to factor - 1 pixels at its end are left out.
    """
    ratio = length / resized
    near = EDGE_ERROR * ratio
    edges = range(max(0, offset - MARGIN), -1, -1)
    first = next(edge for edge in edges if abs(edge * ratio - round(edge * ratio)) <= near)
    start = round(first * ratio)
    for last in range(min(resized, offset + size + MARGIN), resized + 1):
        taken = round((last * ratio - start) / factor) * factor
        if start + taken <= length and abs(start + taken - last * ratio) <= near:
            return _Part(start, taken, last - first, offset - first)
    taken = (length - start) // factor * factor
    return _Part(start, taken, resized - first, offset - first)
