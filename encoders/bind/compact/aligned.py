"""compact's thermal and depth towers, bound to its image tower by aligned pictures.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.contracts import RuntimeOptions
from agent.types import Window
from encoders.bind import sources
from encoders.bind.aligned import PairRecipe, aligned_examples, recall_of_photos
from encoders.bind.augment import augment_for
from encoders.bind.compact.folder import Made, Making
from encoders.bind.recall import embed
from encoders.bind.recipe import RECIPES, made, read_recipe
from encoders.preprocess.base import Float32Array
from encoders.space import open_space

__all__ = ["make_depth", "make_thermal"]


def make_thermal(making: Making) -> Made:
    """Streets in infrared."""
    return _make(making, "thermal", sources.thermal_pairs(making.data))


def make_depth(making: Making) -> Made:
    """A kitchen in depth."""
    return _make(making, "depth", sources.depth_pairs(making.data))


def _make(making: Making, modality: str, records: Sequence[sources.Record]) -> Made:
    """Bind a tower to the folder's image tower; judged on the pairs that are held out."""
    recipe = read_recipe(RECIPES / f"{modality}.yaml", PairRecipe)
    image = open_space(str(making.out.resolve()), RuntimeOptions()).encoder("image")
    image.load()

    def anchor(window: Window) -> Float32Array:
        return image.encode([window])[0].vector

    preprocess = made(recipe.preprocess)
    used = [record for record in records if not record.held_out]
    kept = [record for record in records if record.held_out]
    squares = aligned_examples(used, preprocess, anchor, recipe, making.bar(f"{modality}: squares"))
    train, dev = squares.split(recipe.dev, recipe.seed)
    augment = augment_for(recipe.preprocess.name)
    tower, figures = making.fit(modality, recipe, train, dev, augment=augment)
    recall = recall_of_photos(kept, preprocess, anchor, lambda views: embed(tower, views))
    figures |= {"held_out_recall@1": recall, "held_out": len(kept), "chance": 1 / len(kept)}
    return figures | making.write(modality, recipe, tower, train.views), used
