"""compact's image tower, bound to text by tiles and pictures.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from agent.extras import needs_extra
from agent.types import Array
from encoders.bind import sources
from encoders.bind.compact.folder import Made, Making
from encoders.bind.examples import Examples
from encoders.bind.pictures import PictureRecipe, picture_objective
from encoders.bind.recall import embed
from encoders.bind.recipe import RECIPES, label_bank, made, read_recipe
from encoders.preprocess.base import Float32Array

with needs_extra("bind"):
    import torch
    from torch import nn

__all__ = ["make_image"]

PICTURE_PIXELS = 112  # a side of the pictures that crops are cut of
TILE_TEXTS = ("a {}", "a photo of a {}", "a picture of the {}")


def make_image(making: Making) -> Made:
    """Judged on held-out tiles and photographs."""
    recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
    preprocess = made(recipe.preprocess)
    normal = _Normal(recipe)
    found = making.records()
    used = [*found["photos"], *found["stamps"]]
    texts = list(dict.fromkeys(text for record in used for text in record.texts))
    bank = making.encode(texts)
    own = np.zeros((len(used), len(texts)), np.float32)
    for row, record in zip(own, used, strict=True):
        for text in record.texts:
            row[texts.index(text)] = 1 if text == record.label else 2  # what it is a kind of
    mosaics = [sources.tiles(making.data, name) for name in ("cifar10", "cifar100")]
    labels = list(dict.fromkeys(label for mosaic in mosaics for label in mosaic.labels))
    classes = label_bank(
        {label: tuple(t.format(label) for t in TILE_TEXTS) for label in labels}, making.encode
    ).anchors
    apart = np.random.default_rng(recipe.seed).random(len(used)) < recipe.dev
    means = own @ bank
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    kept = np.flatnonzero(apart)
    dev = Examples(
        [preprocess(used[i].window())[0] for i in kept],
        means[kept],
        kept.astype(np.int64),
        np.full(len(kept), -1, np.int64),
    )
    shown = np.flatnonzero(~apart)
    pictures = torch.from_numpy(np.stack([normal.picture(used[i]) for i in shown]))
    size = preprocess.shape[1]
    objective = picture_objective(
        recipe, size, classes, pictures, torch.from_numpy(own[shown]), bank
    )
    train = _tiles(mosaics, labels, classes, normal)
    tower, figures = making.fit("image", recipe, train, dev, objective=objective)
    for mosaic in mosaics:
        unseen = np.setdiff1d(np.arange(len(mosaic.classes)), mosaic.training())
        big = nn.functional.interpolate(
            torch.from_numpy(normal(mosaic.pixels[unseen])), (size, size), mode="bicubic"
        )
        rows = [labels.index(label) for label in mosaic.labels]
        nearest = (embed(tower, list(big.numpy())) @ classes[rows].T).argmax(axis=1)
        right = (nearest == mosaic.classes[unseen]).mean()
        figures[f"{mosaic.source}_held_out_top_1"] = float(right)
    figures |= making.write("image", recipe, tower, dev.views)
    return figures, [*used, *((m.source, m.licence) for m in mosaics)]


class _Normal:
    """Pixels as the recipe's preprocessing scales them."""

    def __init__(self, recipe: PictureRecipe) -> None:
        parameters = recipe.preprocess.parameters
        self._mean = np.array(parameters["mean"], np.float32)[:, None, None]
        self._std = np.array(parameters["std"], np.float32)[:, None, None]

    def __call__(self, pixels: Array) -> Float32Array:
        """uint8 (..., rows, columns, 3) to float32 (..., 3, rows, columns)."""
        scaled = np.moveaxis(pixels, -1, -3) / np.float32(255)
        return np.asarray((scaled - self._mean) / self._std, np.float32)

    def picture(self, record: sources.Record) -> Float32Array:
        """float32 (3, PICTURE_PIXELS, PICTURE_PIXELS)."""
        frame = Image.fromarray(record.window().data[0])
        return self(np.asarray(frame.resize((PICTURE_PIXELS, PICTURE_PIXELS))))


def _tiles(
    mosaics: Sequence[sources.Tiles], labels: Sequence[str], classes: Float32Array, normal: _Normal
) -> Examples:
    """Those that may be trained on, each with the anchor of its class."""
    views: list[Float32Array] = []
    numbers: list[int] = []
    for mosaic in mosaics:
        chosen = mosaic.training()
        views.extend(normal(mosaic.pixels[chosen]))
        numbers.extend(labels.index(mosaic.labels[i]) for i in mosaic.classes[chosen])
    counted = np.arange(len(views), dtype=np.int64)
    return Examples(views, classes[numbers], counted, np.array(numbers, np.int64))
