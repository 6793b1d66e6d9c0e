"""compact's thermal and depth towers, bound to its image tower by aligned pictures.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.contracts import RuntimeOptions
from agent.extras import needs_extra
from agent.types import Window
from encoders.bind import sources
from encoders.bind.aligned import PairRecipe, aligned_examples, recall_of_photos
from encoders.bind.backbone import MEAN, STD, looks
from encoders.bind.compact.folder import Made, Making
from encoders.bind.export import FLOORS
from encoders.bind.grey import (
    LiteFirst,
    LiteRest,
    grey_examples,
    jitter,
    pair_objective,
    read_lite,
    slim,
)
from encoders.bind.recall import embed
from encoders.bind.recipe import RECIPES, made, read_recipe
from encoders.bind.rooms.examples import room_examples
from encoders.bind.rooms.pieces import FURNITURE, Piece, read_pieces
from encoders.bind.rooms.scene import chosen, fits_a_room, room_views
from encoders.bind.towers import count, one_channel
from encoders.preprocess.base import Float32Array
from encoders.preprocess.crops import PictureSettings
from encoders.space import open_space

with needs_extra("bind"):
    import torch

__all__ = ["make_depth", "make_thermal"]

# How a picture looks is told by differences from what is ordinary, of which 8 bits leave fewer.
# 0.97 is the least that was seen.
LEAST_INT8 = 0.95


def make_thermal(making: Making) -> Made:
    """Streets in infrared."""
    return _make(making, "thermal", sources.thermal_pairs(making.data))


def make_depth(making: Making) -> Made:
    """A kitchen in depth, and rooms that are drawn."""
    pieces = [piece for piece in read_pieces(making.cache / FURNITURE) if fits_a_room(piece)]
    records = sources.depth_pairs(making.data)
    return _make(making, "depth", records, [piece for piece in pieces if not piece.held_out])


def _make(
    making: Making, modality: str, records: Sequence[sources.Record], pieces: Sequence[Piece] = ()
) -> Made:
    """Bind a tower to the folder's image tower; judged on the pairs that are held out. pieces: of
    the recipe's rooms.
    """
    recipe = read_recipe(RECIPES / f"{modality}.yaml", PairRecipe)
    image = open_space(str(making.out.resolve()), RuntimeOptions()).encoder("image")
    image.load()

    def anchor(window: Window) -> Float32Array:
        return image.encode([window])[0].vector

    preprocess = made(recipe.preprocess)
    assert isinstance(preprocess, PictureSettings)
    tower = read_lite(making.out / "image.onnx", recipe.network, making.cache)
    colour = torch.full((3,), MEAN), torch.full((3,), STD)
    one_channel(tower, *colour, preprocess.mean[0], preprocess.std[0])
    slim(tower, recipe.rank)
    rest = LiteRest(tower)

    used = [record for record in records if not record.held_out]
    kept = [record for record in records if record.held_out]
    photos = making.records()["photos"]
    bar = making.bar(f"{modality}: parts")
    parts = aligned_examples(used, preprocess, anchor, recipe, bar, jitter)
    bar = making.bar(f"{modality}: grey photographs")
    # What its own photographs show in grey is learned too: at this size, they look otherwise.
    own = [replace(r, modality="image", content=r.photo) for r in used if r.photo is not None]
    greys = grey_examples([*photos, *own], preprocess, anchor, recipe, bar)
    beside, batches = [greys], [recipe.grey_batch]
    stood: list[Piece] = []
    if recipe.rooms is not None:
        rooms = room_views(pieces, recipe.rooms.count, recipe.seed)
        stood = chosen(pieces, recipe.rooms.count, recipe.seed)
        bar = making.bar(f"{modality}: rooms")
        beside.append(room_examples(rooms, recipe.rooms, preprocess, anchor, bar, jitter))
        batches.append(recipe.rooms.batch)
    with TemporaryDirectory() as folder:
        first = LiteFirst(tower, preprocess.shape, Path(folder), making.threads)
        seen, *others = [replace(own, views=list(first(own.views))) for own in (parts, *beside)]
    # A street in infrared looks as it does in colour, part for part, but for what is ordinary.
    own_sense = [view for examples in (seen, *others[1:]) for view in examples.views]
    tower.look.standardise(torch.cat([looks(torch.from_numpy(v[None])) for v in own_sense]))
    train, dev = seen.split(recipe.dev, recipe.seed)
    named = tower.names.weight.any(1)
    objective = pair_objective(recipe, list(zip(others, batches, strict=True)), named)
    _, figures = making.fit(modality, recipe, train, dev, tower=rest, objective=objective)
    figures["parameters"] = count(tower)
    recall = recall_of_photos(kept, preprocess, anchor, lambda views: embed(tower, views))
    figures |= {"held_out_recall@1": recall, "held_out": len(kept), "chance": 1 / len(kept)}
    weights = f"EfficientNet-{recipe.network} of ImageNet-1k, its weights", "Apache-2.0"
    floors = FLOORS | {"int8": LEAST_INT8}
    figures |= making.write(modality, recipe, tower, parts.views, floors, "int8")
    return figures, [*used, *photos, *((own.source, own.licence) for own in stood), weights]
