"""Examples of aligned pictures: a frame of a new sense beside what the frozen image tower says of
the same part of its photograph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
import numpy as np

from agent.errors import ConfigError
from agent.types import Array, Settings, Window
from encoders.bind.backbone import Name
from encoders.bind.examples import Examples
from encoders.bind.schedule import TrainConfig
from encoders.bind.sources import Record
from encoders.files import read_file
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.tower import PreprocessSettings, WindowSettings

__all__ = [
    "PairRecipe",
    "RoomRecipe",
    "aligned_examples",
    "cut",
    "part",
    "random_place",
    "recall_of_photos",
    "scene_of",
]

Embed = Callable[[Window], Float32Array]
Vary = Callable[[Float32Array, np.random.Generator], Float32Array]
_Part = Annotated[float, msgspec.Meta(gt=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class RoomRecipe(Settings, frozen=True, kw_only=True):
    """Rooms that are drawn, beside the pairs: `count` of them, `parts` of each view, `batch` of
    these a step.
    """

    count: _Count
    parts: _Count
    batch: _Count


class PairRecipe(Settings, frozen=True, kw_only=True):
    """A tower bound to images by aligned pictures, without any label; it begins as the image tower
    of `network`.

    rank: as grey.slim. window, preprocess: as in space.yaml. dev: share of the scenes by which the
    weights are chosen. stretch: as scene_of. parts: of each scene, of a random frame a random part
    of `least_part` to 1 of both sides, half of them mirrored. greys: parts of each photograph,
    turned to one channel. grey_batch: of them, a step. rooms: none where None. named: as
    grey.pair_objective.
    """

    network: Name
    rank: _Count
    seed: int
    window: WindowSettings
    preprocess: PreprocessSettings
    dev: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    stretch: _Count
    parts: _Count
    least_part: _Part
    greys: _Count
    grey_batch: _Count
    rooms: RoomRecipe | None = None
    named: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    train: TrainConfig


def cut(window: Window, place: tuple[float, float, float], mirrored: bool) -> Window:
    """A square of a still. place: x, y, side; side of the short side, x and y of what is left."""
    height, width = window.data.shape[1:3]
    length = max(1, round(place[2] * min(height, width)))
    return _rectangle(window, place, length, length, mirrored)


def part(window: Window, place: tuple[float, float, float], mirrored: bool) -> Window:
    """A rectangle of a still, of its own aspect. place: x, y, side; side of both sides, x and y of
    what is left.
    """
    height, width = (max(1, round(place[2] * side)) for side in window.data.shape[1:3])
    return _rectangle(window, place, height, width, mirrored)


def _rectangle(
    window: Window, place: tuple[float, float, float], height: int, width: int, mirrored: bool
) -> Window:
    x, y, _ = place
    high, wide = window.data.shape[1:3]
    top, left = round(y * (high - height)), round(x * (wide - width))
    data: Array = window.data[:, top : top + height, left : left + width]
    if mirrored:
        data = data[:, :, ::-1]
    info = replace(window.stream, shape=data.shape[1:])
    return Window(info, window.start_ns, window.end_ns, np.ascontiguousarray(data), window.t_ns)


def random_place(rng: np.random.Generator, least: float) -> tuple[float, float, float]:
    """For `cut` and `part`: a side of `least` to 1, anywhere."""
    x, y = rng.random(2)
    return float(x), float(y), float(rng.uniform(least, 1))


def scene_of(recording: str, stretch: int) -> str:
    """Frames of a sequence whose numbers, divided by `stretch`, are one show the same: the number
    at the recording's end is.
    """
    name, number = re.fullmatch(r"(.*?)(\d*)", recording, re.DOTALL).groups()  # type: ignore[union-attr]  # it always matches
    return f"{name}{int(number) // stretch}" if number else name


def aligned_examples(
    records: Sequence[Record],
    preprocess: Preprocess,
    embed: Embed,
    recipe: PairRecipe,
    progress: Callable[[int, int], None],
    vary: Vary,
) -> Examples:
    """Parts of each scene's frames beside their photograph's; groups are scenes. embed: a window of
    the image sense to a float32 (dim,) unit vector. vary: of views, by a generator. The same for
    the same seed.
    """
    rng = np.random.default_rng(recipe.seed)
    scenes: dict[str, list[Record]] = {}
    for record in records:
        scenes.setdefault(scene_of(record.recording, recipe.stretch), []).append(record)
    views, anchors = [], []
    for done, own in enumerate(scenes.values(), 1):
        for number in rng.integers(len(own), size=recipe.parts):
            record = own[number]
            place, mirrored = random_place(rng, recipe.least_part), bool(rng.integers(2))
            views.append(vary(preprocess(part(record.window(), place, mirrored))[0], rng))
            anchors.append(embed(part(_photo(record), place, mirrored)))
        progress(done, len(scenes))
    groups = np.repeat(np.arange(len(scenes)), recipe.parts)
    return Examples(views, np.stack(anchors), groups, np.full(len(views), -1, np.int64))


def recall_of_photos(
    records: Sequence[Record],
    preprocess: Preprocess,
    embed: Embed,
    tower: Callable[[Sequence[Float32Array]], Float32Array],
) -> float:
    """Share of records whose own photograph is nearest of all of theirs; a tie is a miss."""
    frames = np.stack([tower(list(preprocess(r.window()))).mean(axis=0) for r in records])
    cosines = frames @ np.stack([embed(_photo(r)) for r in records]).T
    own = cosines.diagonal().copy()
    np.fill_diagonal(cosines, -np.inf)
    return float((own > cosines.max(axis=1)).mean())


def _photo(record: Record) -> Window:
    if record.photo is None:
        raise ConfigError(f"{record.recording}: no photograph, expected an aligned pair")
    return read_file(str(record.photo), "image")
