"""The views of a frame are, to the bit, what one plain line each says of them."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from encoders.preprocess.crops import PictureSettings, short_side_squares

Fit = Literal["squares", "squeeze"]
COLOUR = PictureSettings(
    size=24, mean=(0.48, 0.46, 0.42), std=(0.25, 0.245, 0.26), reducing_gap=1.2, fit="squeeze"
)
GREY = PictureSettings(size=16, mean=(0.45,), std=(0.25,), reducing_gap=1.5)
LANCZOS = Image.Resampling.LANCZOS


def plainly(settings: PictureSettings, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 (k, channels, size, size) of one frame."""
    height, width = frame.shape[:2]
    size = (settings.size, settings.size)
    if settings.fit == "squeeze":
        side = math.sqrt(height * width)
        left, top = max(0.0, (width - side) / 2), max(0.0, (height - side) / 2)
        box = (left, top, width - left, height - top)
        parts = [(np.ascontiguousarray(frame), box)]
    else:
        parts = [
            (np.ascontiguousarray(frame[top : top + side, left : left + side]), (0, 0, side, side))
            for left, top, side in short_side_squares(height, width)
        ]
    crops = [
        np.asarray(
            Image.fromarray(part).resize(size, LANCZOS, box=box, reducing_gap=settings.reducing_gap)
        )
        for part, box in parts
    ]
    pixels = np.stack(crops).reshape(len(crops), *size, -1).astype(np.float32)
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    views: NDArray[np.float32] = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    return views


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.sampled_from([(), (3,)]),
    st.sampled_from(["squares", "squeeze"]),
    st.sampled_from([None, 1.2, 3.0]),
)
def test_views_are_the_plain_ones_to_the_bit(
    seed: int, side: tuple[int, int], channels: tuple[int, ...], fit: Fit, gap: float | None
) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (*side, *channels), np.uint8)
    settings = replace(COLOUR if channels else GREY, reducing_gap=gap, fit=fit)
    views = settings.views(frame[np.newaxis])
    assert views.dtype == np.float32
    assert views.flags.c_contiguous
    np.testing.assert_array_equal(views, plainly(settings, frame))


@pytest.mark.parametrize("fit", ["squares", "squeeze"])
def test_views_are_of_each_frame_in_turn(fit: Fit) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 60), np.uint8)
    settings = replace(GREY, fit=fit)
    expected = np.concatenate([plainly(settings, frame) for frame in frames])
    np.testing.assert_array_equal(settings.views(frames), expected)


def test_a_part_of_a_frame_is_seen_as_its_copy_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3), np.uint8)
    part = frame[:, 5:45, 10:60]
    np.testing.assert_array_equal(COLOUR.views(part), COLOUR.views(part.copy()))


def test_grey_goes_to_a_network_of_three_channels_as_its_means_say() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    np.testing.assert_array_equal(COLOUR.views(frame[np.newaxis]), plainly(COLOUR, frame))
