"""What the image tower is trained towards."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from agent.errors import ConfigError
from encoders.bind.backbone import FEATURES, MEAN, STD, LiteHead, LiteTower
from encoders.bind.classes import class_texts
from encoders.bind.pictures import PictureRecipe, picture_objective
from encoders.bind.recipe import RECIPES, made, read_recipe
from encoders.bind.train import Batch
from encoders.manifest import convert

MORE = 4


def test_the_recipe_is_whole_and_scales_pixels_as_the_weights_were_trained() -> None:
    recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
    assert made(recipe.preprocess).shape == (3, 192, 192)
    assert recipe.preprocess.parameters["mean"] == pytest.approx([MEAN] * 3)
    assert recipe.preprocess.parameters["std"] == pytest.approx([STD] * 3)


def test_weights_are_not_chosen_by_photographs_that_the_network_knew() -> None:
    content: dict[str, Any] = msgspec.to_builtins(
        read_recipe(RECIPES / "image.yaml", PictureRecipe)
    )
    content["train"]["evaluations"] = 2
    with pytest.raises(ConfigError, match=r"train.evaluations 2, expected 1"):
        convert(content, PictureRecipe, "image.yaml")


def test_classes_without_a_photo_take_their_number_and_their_kinds() -> None:
    texts = class_texts(
        ["tench", "crane", "kite", "crane"],
        {1: "hen", 5: "drill"},
        [("tench", "crane", "an animal"), ("hen", "crane", "a bird")],
        {"a machine": ["crane", "drill"]},
    )
    assert texts == [
        ("tench", "an animal"),
        ("hen", "an animal", "a bird"),
        ("crane", "an animal", "a bird"),
        ("kite",),
        ("crane", "a machine"),
        ("drill", "a machine"),
    ]


@pytest.mark.parametrize(
    ("hypernyms", "groups", "message"),
    [
        ([("kite", "tench", "a bird")], {}, "hypernyms: 'kite' to 'tench', expected two labels"),
        ([], {"a bird": ["hen"]}, "groups: 'a bird' has 'hen', expected a class's label"),
    ],
)
def test_a_label_that_is_not_there_is_named(
    hypernyms: list[tuple[str, ...]], groups: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        class_texts(["tench", "kite"], {}, hypernyms, groups)


def test_tiles_are_learnt_and_photographs_are_not_forgotten() -> None:
    recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
    torch.manual_seed(0)
    tower = LiteTower("lite0", 16, MORE)
    head = LiteHead(tower)
    classes = tower.classes.out_features
    names = torch.nn.functional.normalize(torch.randn(classes, 16), dim=1)
    with torch.no_grad():
        tower.names.weight.copy_(names.T)
    kinds, photos = torch.rand(MORE, FEATURES) * 6, torch.rand(64, FEATURES) * 6
    with torch.no_grad():
        known = (20 * tower.classes(photos)).softmax(1)
        before = torch.nn.functional.normalize(known @ names, dim=1)
    labels = torch.arange(MORE).repeat(16)
    views = kinds[labels] + torch.randn(len(labels), FEATURES)
    objective = picture_objective(recipe, names, photos, known)
    numbers = labels + classes - MORE
    batch = Batch(views, names[numbers], labels, numbers, torch.arange(len(labels)))
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(tower.classes.parameters(), lr=1e-3)
    for _ in range(150):
        loss = objective(head, batch, torch.tensor(1.0), generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        nearest = (head(views) @ names.T).argmax(1)
        np.testing.assert_array_equal(nearest, numbers)
        assert (head(photos) * before).sum(1).mean() > 0.9
