"""Examples of aligned pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.errors import ConfigError
from agent.types import StreamInfo, Window
from encoders.bind.aligned import (
    PairRecipe,
    aligned_examples,
    cut,
    part,
    recall_of_photos,
    scene_of,
)
from encoders.bind.recipe import RECIPES, made, read_recipe
from encoders.bind.sources import Record
from encoders.preprocess.base import Float32Array

share = st.floats(0, 1)


def _still(data: np.ndarray) -> Window:
    info = StreamInfo("still", "thermal", str(data.dtype), data.shape, None, "mono8")
    return Window(info, 0, 1, data[np.newaxis], np.zeros(1, np.int64))


@given(st.integers(1, 40), st.integers(1, 40), share, share, st.floats(0.05, 1), st.booleans())
def test_a_cut_is_a_square_inside(
    height: int, width: int, x: float, y: float, side: float, mirrored: bool
) -> None:
    frame = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    data = cut(_still(frame), (x, y, side), mirrored).data[0]
    assert data.shape[0] == data.shape[1] == max(1, round(side * min(height, width)))
    straight = data[:, ::-1] if mirrored else data
    top, left = divmod(int(straight[0, 0]), width)
    size = len(data)
    assert np.array_equal(straight, frame[top : top + size, left : left + size])


@given(st.integers(2, 60), st.integers(2, 60), share, share, st.floats(0.05, 1))
def test_a_part_has_the_aspect_of_its_frame(
    height: int, width: int, x: float, y: float, side: float
) -> None:
    frame = np.arange(height * width, dtype=np.uint16).reshape(height, width)
    data = part(_still(frame), (x, y, side), mirrored=False).data[0]
    assert abs(data.shape[0] - side * height) <= 0.5 or data.shape[0] == 1
    assert abs(data.shape[1] - side * width) <= 0.5 or data.shape[1] == 1
    assert np.isin(data, frame).all()


@given(st.integers(0, 10**6), st.integers(1, 100))
def test_frames_of_one_stretch_are_one_scene(number: int, stretch: int) -> None:
    first = number // stretch * stretch
    scene = scene_of(f"drive/{number:07d}", stretch)
    assert scene == scene_of(f"drive/{first:07d}", stretch)
    assert scene != scene_of(f"drive/{first + stretch:07d}", stretch)
    assert scene != scene_of(f"other/{number:07d}", stretch)
    assert scene_of("drive/whole", stretch) == "drive/whole"


def _pair(folder: Path, number: int) -> Record:
    """A frame of one grey, and the photograph of the same."""
    noise = np.random.default_rng(number).integers(0, 40, (48, 64), dtype=np.uint8)
    grey = noise + np.linspace(0, 200, 64).astype(np.uint8)  # brighter to the right
    for name in ("lwir", "rgb"):
        (folder / name).mkdir(exist_ok=True)
        Image.fromarray(grey).save(folder / name / f"{number}.png")
    path = folder / f"lwir/{number}.png"
    return Record(
        "thermal", path, f"made/{number}", "made", "ours", photo=folder / f"rgb/{number}.png"
    )


def _embed(window: Window) -> Float32Array:
    """A vector of the pixels at the corners and the middle."""
    pixels = window.data[0].astype(np.float32)
    middle = len(pixels) // 2
    vector = np.array([*pixels[0, 0], *pixels[-1, -1], *pixels[middle, middle], 1], np.float32)
    return vector / np.linalg.norm(vector)


def test_a_frame_and_its_photograph_are_cut_alike(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "thermal.yaml", PairRecipe)
    records = [_pair(tmp_path, number) for number in range(3)]
    told: list[tuple[int, int]] = []

    def progress(done: int, of: int) -> None:
        told.append((done, of))

    preprocess = made(recipe.preprocess)

    def same(view: Float32Array, rng: np.random.Generator) -> Float32Array:
        return view

    examples = aligned_examples(records, preprocess, _embed, recipe, progress, same)
    again = aligned_examples(records, preprocess, _embed, recipe, progress, same)
    assert len(examples) == 3 * recipe.parts
    assert examples.view_shape == (1, 128, 128)
    assert np.bincount(examples.groups).tolist() == [recipe.parts] * 3
    for view, anchor in zip(examples.views, examples.anchors, strict=True):
        # Brighter to the right, unless mirrored: the frame as its photograph.
        assert (view[0, 0, 0] > view[0, -1, -1]) == (anchor[0] > anchor[3])
    assert len({anchor[0] > anchor[3] for anchor in examples.anchors}) == 2
    assert np.array_equal(examples.anchors, again.anchors)
    assert told[2] == (3, 3)


def test_recall_counts_the_own_photograph_only(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "thermal.yaml", PairRecipe)
    records = [_pair(tmp_path, number) for number in range(4)]
    preprocess = made(recipe.preprocess)
    photos = iter(
        [_embed(Record("image", r.photo or r.content, "", "", "").window()) for r in records]
    )
    right = recall_of_photos(records, preprocess, _embed, lambda views: next(photos)[np.newaxis])
    same = recall_of_photos(
        records, preprocess, lambda _: np.ones(2, np.float32), lambda views: np.ones((1, 2))
    )
    assert right == 1
    assert same == 0


def test_a_record_without_a_photograph_is_refused(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "thermal.yaml", PairRecipe)
    record = Record("thermal", _pair(tmp_path, 0).content, "made/0", "made", "ours")
    with pytest.raises(ConfigError, match="made/0: no photograph"):
        aligned_examples(
            [record], made(recipe.preprocess), _embed, recipe, lambda *_: None, lambda view, _: view
        )
