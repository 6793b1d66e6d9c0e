"""CLIP's square of a frame: short side to 224 by an antialiased bicubic, then the centre.

`exact` is Pillow, which the published recipes use. `fast` is OpenCV, about twenty times faster on
a 1280x720 frame and within a few steps of 255 of it: only what the square needs is read, a box
filter takes whole factors out, and a short FIR before the interpolation stands for the rest of
Pillow's kernel. OpenCV's own bicubic does not antialias.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.extras import needs_extra
from agent.types import Settings, read_only

__all__ = ["CLIP_MEAN", "CLIP_STD", "Resize", "SquareSettings", "centre_offset", "resized_size"]

Pixels = NDArray[np.uint8]
Float64Array = NDArray[np.float64]
Resize = Literal["exact", "fast"]

# Of RGB in 0..1: https://github.com/openai/CLIP (MIT), which ImageBind's image tower began as.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PILLOW_CUBIC, OPENCV_CUBIC = -0.5, -0.75  # the parameter a of Keys' kernel in each
HALF_TAPS = 3
# The box filter leaves at least this factor to the FIR, whose shape is nearer to Pillow's.
LEAST_REST = 1.5
MARGIN = 6  # pixels beside the square that the FIR and the interpolation may ask for
FINE = 64  # points a pixel in the fit of the FIR


class SquareSettings(Settings, frozen=True, kw_only=True):
    """size: pixels a side. resize: "exact" (Pillow) or "fast" (OpenCV, extra `imagebind`)."""

    size: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 224
    resize: Resize = "exact"

    def prepare(self) -> None:
        """Raises ConfigError where `resize` needs an extra that is missing."""
        if self.resize == "fast":
            with needs_extra("imagebind"):
                import cv2  # noqa: F401 - only whether it is there

    def square(self, frame: Pixels) -> Pixels:
        """uint8 (height, width[, 3]) to (size, size[, 3]), newly made."""
        return _exact(frame, self.size) if self.resize == "exact" else _fast(frame, self.size)


def resized_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) once the short side is `size`; the long one is cut to a whole number."""
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def centre_offset(length: int, size: int) -> int:
    """Where a centre crop starts; halves go to the even number, as torchvision's do."""
    return round((length - size) / 2)


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
    x, columns = _axis(width, resized_size(width, height, size)[0], size)
    y, rows = _axis(height, resized_size(width, height, size)[1], size)
    # Both sides shrink by nearly the same factor; the box has to be square.
    whole = max(1, int(min(x.ratio, y.ratio) / LEAST_REST))
    left, right = _whole(columns, whole, width)
    top, bottom = _whole(rows, whole, height)
    part = frame[top:bottom, left:right]
    if whole > 1:
        shape = ((right - left) // whole, (bottom - top) // whole)
        part = cv2.resize(part, shape, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]  # its stubs say any number
    rest = (x.ratio / whole, y.ratio / whole)
    # Nearer to the frame's own scale, a linear interpolation would blur what is kept.
    cubic = min(rest) < LEAST_REST
    if min(rest) > 1:
        taps = [_taps(round(factor, 3), whole, cubic) for factor in rest]
        part = cv2.sepFilter2D(  # type: ignore[assignment]  # as above
            np.ascontiguousarray(part), -1, taps[0], taps[1], borderType=cv2.BORDER_REPLICATE
        )
    # The centre of pixel i of the square lies at start + (i + 0.5) * ratio of the frame.
    to_part = np.array(
        [
            [rest[0], 0, (x.start - left + x.ratio / 2) / whole - 0.5],
            [0, rest[1], (y.start - top + y.ratio / 2) / whole - 0.5],
        ]
    )
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)
    square: Pixels = cv2.warpAffine(  # type: ignore[assignment]  # as above
        np.ascontiguousarray(part), to_part, (size, size), None, flags, cv2.BORDER_REPLICATE
    )
    return square


class _Axis(Settings, frozen=True):
    """start: of the square, in pixels of the frame. ratio: pixels of the frame a pixel of it."""

    start: float
    ratio: float


def _axis(length: int, resized: int, size: int) -> tuple[_Axis, tuple[float, float]]:
    ratio = length / resized
    start = centre_offset(resized, size) * ratio
    return _Axis(start=start, ratio=ratio), (start, start + size * ratio)


def _whole(span: tuple[float, float], factor: int, length: int) -> tuple[int, int]:
    """`span` with a margin, widened to a multiple of `factor` where the frame has that much."""
    first = max(0, int(span[0]) - MARGIN * factor) // factor * factor
    last = min(length, int(span[1]) + (MARGIN + 1) * factor)
    return first, first + (last - first) // factor * factor


@lru_cache(maxsize=64)
def _taps(ratio: float, whole: int, cubic: bool) -> Float64Array:
    """The FIR (2 * HALF_TAPS + 1,) of sum 1 which, after a box of `whole` pixels and before
    OpenCV's interpolation, comes nearest to Pillow's bicubic stretched by `ratio`, in least
    squares over all positions between pixels.
    """
    x = np.arange(-12 * FINE, 12 * FINE + 1) / FINE
    boxes = (np.arange(whole) + 0.5) / whole - 0.5

    def reached(tap: int) -> Float64Array:
        at = [x - tap - offset for offset in boxes]
        kernels = [_keys(d, OPENCV_CUBIC) if cubic else np.maximum(0, 1 - abs(d)) for d in at]
        mean: Float64Array = np.mean(kernels, axis=0)
        return mean

    sides = [reached(tap) + reached(-tap) for tap in range(1, HALF_TAPS + 1)]
    columns = np.stack([reached(0), *sides], axis=1)
    wanted = _keys(x / ratio, PILLOW_CUBIC) / ratio
    # The taps' sum is 1 by taking the middle one as 1 less the others: no colour may shift.
    sides_only = columns[:, 1:] - 2 * columns[:, :1]
    others = np.linalg.lstsq(sides_only, wanted - columns[:, 0], rcond=None)[0]
    taps: Float64Array = np.concatenate([others[::-1], [1 - 2 * others.sum()], others])
    return read_only(taps)


def _keys(x: Float64Array, a: float) -> Float64Array:
    """Keys' cubic convolution kernel (1981)."""
    d = np.abs(x)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    kernel: Float64Array = np.where(d < 1, near, np.where(d < 2, far, 0.0))
    return kernel
