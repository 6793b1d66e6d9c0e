"""compact's image tower, bound to text: what a classifier of ImageNet sees, told in words.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from agent.extras import needs_extra
from agent.types import Array, Int64Array, StreamInfo, Window
from encoders.bind import sources
from encoders.bind.aligned import cut
from encoders.bind.backbone import (
    CLASSES,
    FEATURES,
    LiteHead,
    LiteParts,
    LiteTower,
    add_detail,
    load_lite,
)
from encoders.bind.classes import class_texts
from encoders.bind.compact.folder import Made, Making
from encoders.bind.corpus import article
from encoders.bind.examples import Examples
from encoders.bind.export import FLOORS, INPUT, MOST_VIEWS
from encoders.bind.features import Features
from encoders.bind.onnx_graph import free_rows, traced
from encoders.bind.pictures import PictureRecipe, picture_objective
from encoders.bind.recall import embed
from encoders.bind.recipe import RECIPES, made, read_recipe
from encoders.bind.sources_tiles import Tiles, read_tiles
from encoders.bind.towers import count
from encoders.files import read_file
from encoders.preprocess.base import Float32Array, Preprocess

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = ["make_image"]

TEXTS = ("{}", "a photo of {}", "a picture of {}")  # of a label or a kind, with its article
KIND_WEIGHT = 2.0  # of what a class is a kind of, over that of its label: the prototype's
# Where two classes are about as probable, 8 bits may prefer the other one, and their names can be
# far apart: the mean says more than the least.
LEAST_INT8 = 0.7
AT_ONCE = 256  # views in memory, of half a megabyte


def make_image(making: Making) -> Made:
    """Judged on held-out tiles, and on some photographs by what it begins from alone."""
    recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
    preprocess = made(recipe.preprocess)
    mosaics = [read_tiles(making.data, name) for name in recipe.tiles]
    labels = list(dict.fromkeys(label for mosaic in mosaics for label in mosaic.labels))
    names = _names(making, recipe, labels)
    unit = names / np.linalg.norm(names, axis=1, keepdims=True)
    tower = LiteTower(recipe.network, names.shape[1], len(labels))
    load_lite(tower, recipe.network, making.cache)
    with torch.no_grad():
        tower.names.weight.copy_(torch.from_numpy(names.T))
    tower.requires_grad_(False)
    tower.classes.requires_grad_(True)
    tower.eval()
    head = LiteHead(tower)

    photos = making.records()["photos"]
    numbered = _numbers(making, recipe)
    streets = [*sources.thermal_pairs(making.data), *sources.depth_pairs(making.data)]
    streets = [record for record in streets if not record.held_out]
    rng = np.random.default_rng(recipe.seed)
    apart = rng.random(len(photos)) < recipe.dev
    shown = [photo.window() for photo, left_out in zip(photos, apart, strict=True) if not left_out]
    shown += [read_file(str(record.photo), "image") for record in streets]
    judged = [photo for photo, left_out in zip(photos, apart, strict=True) if left_out]
    with TemporaryDirectory() as folder:
        seen = _Seen(tower, preprocess, Path(folder), making)
        others = torch.from_numpy(seen(_with_squares(shown, recipe, rng), "photographs"))
        others, looks = others.tensor_split([FEATURES], dim=1)
        add_detail(tower, looks, recipe.detail)
        features = seen([photo.window() for photo in judged], "photographs apart")[:, :FEATURES]
        own = np.array([numbered[photo.recording] for photo in judged])
        dev = Examples(list(features), unit[own], own, own)
        chosen = [_chosen(mosaic, recipe.tiles[mosaic.source], rng) for mosaic in mosaics]
        tiles = [
            seen(_windows(mosaic, numbers, rng), mosaic.source)[:, :FEATURES]
            for mosaic, numbers in zip(mosaics, chosen, strict=True)
        ]
        kept = [np.setdiff1d(np.arange(len(m.classes)), m.training()) for m in mosaics]
        unseen = [
            seen(_windows(mosaic, numbers), f"{mosaic.source} apart")[:, :FEATURES]
            for mosaic, numbers in zip(mosaics, kept, strict=True)
        ]
    rows = [np.array([CLASSES + labels.index(label) for label in m.labels]) for m in mosaics]
    numbers = np.concatenate(
        [row[m.classes[own]] for row, m, own in zip(rows, mosaics, chosen, strict=True)]
    )
    train = Examples(
        list(np.concatenate(tiles)), unit[numbers], np.arange(len(numbers), dtype=np.int64), numbers
    )
    with torch.no_grad():
        known = tower.classes(others).softmax(1)
    objective = picture_objective(recipe, torch.from_numpy(unit), others, known)
    _, figures = making.fit("image", recipe, train, dev, tower=head, objective=objective)
    figures["parameters"] = count(tower)
    for mosaic, row, own, features in zip(mosaics, rows, kept, unseen, strict=True):
        nearest = (embed(head, list(features)) @ unit[row].T).argmax(axis=1)
        figures[f"{mosaic.source}_held_out_top_1"] = float((nearest == mosaic.classes[own]).mean())
    views = [preprocess(window)[0] for window in shown[:: len(shown) // (2 * MOST_VIEWS)]]
    floors = FLOORS | {"int8": LEAST_INT8}
    parts = recipe.parts
    whole = LiteParts(tower, parts.side, parts.step)
    figures |= making.write("image", recipe, whole, views, floors, "int8", parts)
    used: list[sources.Record | tuple[str, str]] = [*photos, *streets]
    used.append((f"EfficientNet-{recipe.network} of ImageNet-1k, its weights", "Apache-2.0"))
    used.extend((mosaic.source, mosaic.licence) for mosaic in mosaics)
    return figures, used


class _Seen:
    """What the tower's body sees of pictures, run as a graph: on a CPU three times as fast."""

    def __init__(
        self, tower: LiteTower, preprocess: Preprocess, folder: Path, making: Making
    ) -> None:
        shape, path = preprocess.shape, folder / "body.onnx"
        example = torch.zeros(2, *shape)
        traced(_Body(tower).eval(), example, {0: free_rows()}, (INPUT, "features")).save(path)
        self._features = Features(path, shape, making.threads)
        self._preprocess, self._bar = preprocess, making.bar

    def __call__(self, pictures: Sequence[Window], what: str) -> Float32Array:
        """float32 (n, 1280 + looks), of the first view of each."""
        move = self._bar(f"image: {what}")
        parts = []
        for done in range(0, len(pictures), AT_ONCE):
            some = pictures[done : done + AT_ONCE]
            parts.append(self._features.vectors([self._preprocess(window)[0] for window in some]))
            move(done + len(some), len(pictures))
        return np.concatenate(parts)


class _Body(nn.Module):
    def __init__(self, tower: LiteTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, views: Tensor) -> Tensor:
        return self.tower.seen(views)


def _numbers(making: Making, recipe: PictureRecipe) -> dict[str, int]:
    """Of each photograph's recording, its class in ImageNet's order."""
    shown = [number for number in range(CLASSES) if number not in recipe.absent]
    photos = sources.photos(making.data)
    return {photo.recording: number for photo, number in zip(photos, shown, strict=True)}


def _with_squares(
    windows: Sequence[Window], recipe: PictureRecipe, rng: np.random.Generator
) -> list[Window]:
    """Each, and squares of each."""
    made = list(windows)
    for window in windows:
        for _ in range(recipe.squares):
            x, y = rng.random(2)
            place = (float(x), float(y), float(rng.uniform(recipe.least_side, 1)))
            made.append(cut(window, place, bool(rng.integers(2))))
    return made


def _chosen(mosaic: Tiles, count: int, rng: np.random.Generator) -> Int64Array:
    """Numbers of `count` tiles of each class that may be trained on."""
    free = rng.permutation(mosaic.training())
    own = [free[mosaic.classes[free] == number][:count] for number in range(len(mosaic.labels))]
    return np.concatenate(own)


def _windows(
    mosaic: Tiles, numbers: Int64Array, rng: np.random.Generator | None = None
) -> list[Window]:
    """Tiles as pictures. rng: half of them are mirrored."""
    info = StreamInfo("tile", "image", "uint8", mosaic.pixels.shape[1:], None, "rgb8")
    stamp = np.zeros(1, np.int64)
    made = []
    for number in numbers:
        pixels: Array = mosaic.pixels[number][np.newaxis]
        if rng is not None and rng.integers(2):
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        made.append(Window(info, 0, 1, pixels, stamp))
    return made


def _names(making: Making, recipe: PictureRecipe, labels: Sequence[str]) -> Float32Array:
    """float32 (1000 + n, dim): for each class of ImageNet, then each label of the tiles, the mean
    of its texts' unit vectors: the shorter, the less they agree.
    """
    rows = [row["label"] for row in sources.read_manifest_rows(making.data, "photos")]
    texts = class_texts(rows, recipe.absent, recipe.hypernyms, recipe.groups)
    texts += [(label,) for label in labels]
    bank = list(dict.fromkeys(text for own in texts for text in own))
    vectors = np.mean([making.encode([t.format(article(x)) for x in bank]) for t in TEXTS], axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    by_text = dict(zip(bank, vectors, strict=True))
    return np.stack(
        [
            np.average(
                [by_text[text] for text in own],
                axis=0,
                weights=[1.0] + [KIND_WEIGHT] * (len(own) - 1),
            )
            for own in texts
        ]
    ).astype(np.float32)
