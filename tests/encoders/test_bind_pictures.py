"""What the image tower is trained towards."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.bind.pictures import PictureRecipe, crops, cut_mix, picture_objective
from encoders.bind.recipe import RECIPES, made, read_recipe
from encoders.bind.towers import build
from encoders.bind.train import Batch


def test_the_recipe_is_whole() -> None:
    recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
    assert made(recipe.preprocess).shape == (3, 64, 64)


@given(st.integers(0, 1000))
def test_a_mixed_picture_has_targets_by_area(seed: int) -> None:
    pictures = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    mixed, targets = cut_mix(pictures, torch.eye(4), torch.Generator().manual_seed(seed))
    assert targets.sum(1) == pytest.approx(torch.ones(4))
    for picture, target in zip(mixed, targets, strict=True):
        shares = [(picture == number).float().mean().item() for number in range(4)]
        assert shares == pytest.approx(target.tolist(), abs=1e-6)


def test_a_crop_without_change_is_the_picture_or_its_mirror() -> None:
    picture = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    flat = torch.full((1, 3, 16, 16), 0.5)
    generator = torch.Generator().manual_seed(1)
    assert crops(picture, 8, (0.5, 1.0), None, 0.1, 0.4, generator).shape == (6, 3, 8, 8)
    assert crops(flat, 8, (0.5, 1.0), None, 0.1, 0.0, generator) == pytest.approx(
        torch.full((1, 3, 8, 8), 0.5), abs=1e-5
    )


def test_a_tower_learns_colours_from_tiles_and_texts() -> None:
    recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
    generator = torch.Generator().manual_seed(0)
    colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    anchors = torch.linalg.qr(torch.randn(8, 3, generator=generator)).Q.T.contiguous()
    labels = torch.arange(3).repeat(8)
    tiles = colours[labels][..., None, None].expand(-1, -1, 32, 32).contiguous()
    objective = picture_objective(
        recipe,
        32,
        anchors.numpy(),
        colours[..., None, None].expand(-1, -1, 40, 40).contiguous(),
        torch.eye(3),
        anchors.numpy(),
    )
    tower = build("picture", "watch", (3, 32, 32), 8, seed=0)
    batch = Batch(tiles, anchors[labels], labels, labels, torch.arange(24))
    optimiser = torch.optim.AdamW(tower.parameters(), lr=2e-3)
    losses = []
    for _ in range(12):
        loss = objective(tower, batch, torch.tensor(10.0), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 0.8
