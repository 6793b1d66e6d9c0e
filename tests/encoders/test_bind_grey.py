"""A tower of one channel that begins as the image tower."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from agent.errors import ModelMismatch
from agent.types import Window
from encoders.bind.aligned import PairRecipe
from encoders.bind.backbone import MEAN, STD, LiteTower
from encoders.bind.export import INPUT, OUTPUT
from encoders.bind.grey import (
    INVERTED,
    LiteFirst,
    LiteRest,
    grey_examples,
    grey_picture,
    jitter,
    pair_objective,
    read_lite,
)
from encoders.bind.onnx_graph import free_rows, traced
from encoders.bind.recipe import RECIPES, made, read_recipe
from encoders.bind.sources import Record
from encoders.bind.towers import one_channel
from encoders.bind.train import Batch
from encoders.preprocess.base import Float32Array
from encoders.preprocess.crops import PictureSettings

SIDE = 64


@pytest.fixture(scope="module")
def tower() -> LiteTower:
    torch.manual_seed(0)
    made = LiteTower("lite0", 16)
    one_channel(made, torch.full((3,), MEAN), torch.full((3,), STD), 0.45, 0.25)
    return made.eval()


def _views(count: int) -> list[Float32Array]:
    rng = np.random.default_rng(1)
    return list(rng.normal(0, 1, (count, 1, SIDE, SIDE)).astype(np.float32))


def test_the_two_parts_are_the_whole(tower: LiteTower, tmp_path: Path) -> None:
    views = _views(3)
    first = LiteFirst(tower, (1, SIDE, SIDE), tmp_path, 1)
    rest = LiteRest(tower)
    with torch.no_grad():
        parted = rest(torch.from_numpy(first(views)))
        whole = tower(torch.from_numpy(np.stack(views)))
    assert torch.allclose(parted, whole, atol=1e-5)


def test_training_changes_weights_and_no_statistics(tower: LiteTower, tmp_path: Path) -> None:
    rest = LiteRest(tower)
    features = torch.from_numpy(LiteFirst(tower, (1, SIDE, SIDE), tmp_path, 1)(_views(4)))
    statistics = {name: value.clone() for name, value in rest.named_buffers()}
    before = rest(features).detach()
    rest.train()
    assert torch.equal(rest(features), before)
    rest(features)[:, 0].sum().backward()
    assert all(p.grad is not None for p in rest.parameters() if p.requires_grad)
    assert all(torch.equal(value, statistics[name]) for name, value in rest.named_buffers())
    tower.zero_grad()


def test_a_file_of_other_layers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.onnx"
    traced(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4)).eval(),
        torch.zeros(2, 3, 2, 2),
        {0: free_rows()},
        (INPUT, OUTPUT),
    ).save(path)
    with pytest.raises(ModelMismatch, match=r"no layer 'classes\.weight'"):
        read_lite(path, "lite0", tmp_path)


@settings(max_examples=40)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30), st.just(3))))
def test_a_grey_picture_lies_between_the_channels(picture: np.ndarray) -> None:
    grey = grey_picture(picture, np.random.default_rng(0))
    assert grey.shape == picture.shape[:2]
    assert grey.dtype == np.uint8
    upright = min(picture.min(), 255 - picture.max())
    assert grey.min() >= int(upright) - 1


def test_about_a_third_are_inverted() -> None:
    rng = np.random.default_rng(0)
    white = np.full((4, 4, 3), 255, np.uint8)
    dark = np.mean([grey_picture(white, rng).max() < 128 for _ in range(400)])
    assert dark == pytest.approx(INVERTED, abs=0.08)


def test_jitter_is_by_the_generator_alone() -> None:
    (view,) = _views(1)
    one, two = (jitter(view, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, two)
    assert one.dtype == np.float32
    assert np.corrcoef(one.ravel(), view.ravel())[0, 1] > 0.98


def test_grey_photographs_are_taught_beside_pairs(tower: LiteTower, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(
        read_recipe(RECIPES / "thermal.yaml", PairRecipe), greys=2, grey_batch=6
    )
    preprocess = made(recipe.preprocess)
    assert isinstance(preprocess, PictureSettings)
    records = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        path = tmp_path / f"{number}.png"
        records.append(Record("image", path, f"photos/{number}", "photos", "ours"))

    def anchor(window: Window) -> Float32Array:
        vector = np.resize(window.data.mean(axis=(0, 1, 2)), 16).astype(np.float32)
        return vector / np.linalg.norm(vector)

    greys = grey_examples(records, preprocess, anchor, recipe, lambda *_: None)
    assert greys.view_shape == preprocess.shape
    assert greys.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    objective = pair_objective(
        recipe, [(greys, recipe.grey_batch)], torch.ones(16, dtype=torch.bool)
    )
    pairs = torch.from_numpy(np.stack(greys.views[:2])), torch.from_numpy(greys.anchors[:2])
    numbers = torch.arange(2)
    batch = Batch(*pairs, numbers, torch.full((2,), -1), numbers)

    def right(views: torch.Tensor) -> torch.Tensor:
        """What the anchor says of each view, whichever was drawn."""
        known = torch.from_numpy(np.stack(greys.views)).flatten(1)
        nearest = torch.cdist(views.flatten(1), known).argmin(1)
        return torch.from_numpy(greys.anchors)[nearest]

    class Right(torch.nn.Module):
        def forward(self, views: torch.Tensor) -> torch.Tensor:
            return right(views)

    scale = torch.tensor(20.0)
    rightly = objective(Right(), batch, scale, torch.Generator().manual_seed(0))
    wrongly = objective(tower, batch, scale, torch.Generator().manual_seed(0))
    assert rightly < wrongly
