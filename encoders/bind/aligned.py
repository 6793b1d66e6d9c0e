"""Examples of aligned pictures: a frame of a new sense beside what the frozen image tower says of
the same part of its photograph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated

import msgspec
import numpy as np

from agent.errors import ConfigError
from agent.types import Array, Settings, Window
from encoders.bind.examples import Examples
from encoders.bind.schedule import TrainConfig
from encoders.bind.sources import Record
from encoders.bind.towers import Size
from encoders.files import read_file
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.tower import PreprocessSettings, WindowSettings

__all__ = ["PairRecipe", "aligned_examples", "cut", "recall_of_photos"]

Embed = Callable[[Window], Float32Array]
_Part = Annotated[float, msgspec.Meta(gt=0, le=1)]


class PairRecipe(Settings, frozen=True, kw_only=True):
    """A tower bound to images by aligned pictures, without any label.

    size, seed: as towers.build. window, preprocess: as in space.yaml. dev: share of the recordings
    by which the weights are chosen. squares: of each pair, a random place and side of `least_side`
    to 1 of the short side, half of them mirrored.
    """

    size: Size
    seed: int
    window: WindowSettings
    preprocess: PreprocessSettings
    dev: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    squares: Annotated[int, msgspec.Meta(ge=1)]
    least_side: _Part
    train: TrainConfig


def cut(window: Window, place: tuple[float, float, float], mirrored: bool) -> Window:
    """A square of a still. place: x, y, side; side of the short side, x and y of what is left."""
    x, y, side = place
    height, width = window.data.shape[1:3]
    length = max(1, round(side * min(height, width)))
    top, left = round(y * (height - length)), round(x * (width - length))
    data: Array = window.data[:, top : top + length, left : left + length]
    if mirrored:
        data = data[:, :, ::-1]
    info = replace(window.stream, shape=data.shape[1:])
    return Window(info, window.start_ns, window.end_ns, np.ascontiguousarray(data), window.t_ns)


def aligned_examples(
    records: Sequence[Record],
    preprocess: Preprocess,
    embed: Embed,
    recipe: PairRecipe,
    progress: Callable[[int, int], None],
) -> Examples:
    """Squares of each record beside their photograph's. embed: a window of the image sense to a
    float32 (dim,) unit vector. The same for the same seed.
    """
    rng = np.random.default_rng(recipe.seed)
    views, anchors, groups = [], [], []
    for number, record in enumerate(records):
        frame, photo = record.window(), _photo(record)
        for _ in range(recipe.squares):
            x, y = rng.random(2)
            place = (float(x), float(y), float(rng.uniform(recipe.least_side, 1)))
            mirrored = bool(rng.integers(2))
            views.append(preprocess(cut(frame, place, mirrored))[0])
            anchors.append(embed(cut(photo, place, mirrored)))
            groups.append(number)
        progress(number + 1, len(records))
    return Examples(
        views, np.stack(anchors), np.array(groups, np.int64), np.full(len(views), -1, np.int64)
    )


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
