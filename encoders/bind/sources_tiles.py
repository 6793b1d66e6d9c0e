"""CIFAR's small pictures, cut out of the mosaics that the training data has them in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from encoders.bind.sources import read_manifest_rows
from encoders.bind.splits import held_out, recording_id

__all__ = ["Tiles", "read_tiles"]

TILE = 32  # pixels a side


@dataclass(frozen=True)
class Tiles:
    """Small pictures with a class each. pixels: uint8 (n, 32, 32, 3) RGB. classes: int64 (n,),
    numbers into `labels`. recordings: n ids.
    """

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]
    labels: tuple[str, ...]
    recordings: tuple[str, ...]
    source: str
    licence: str

    def training(self) -> NDArray[np.int64]:
        """Numbers of those that may be trained on."""
        return np.flatnonzero([not held_out(name) for name in self.recordings])


def read_tiles(training: Path, collection: str) -> Tiles:
    """cifar10 or cifar100: mosaics of 32 x 32 tiles, row by row, one a class."""
    from PIL import Image

    rows = read_manifest_rows(training, collection)
    pixels: list[NDArray[np.uint8]] = []
    classes: list[NDArray[np.int64]] = []
    recordings: list[str] = []
    for number, row in enumerate(rows):
        path = training.parent / row["path"]
        try:
            with Image.open(path) as picture:
                mosaic = np.asarray(picture.convert("RGB"))
        except OSError as exc:
            raise ConfigError(f"{path}: cannot be read ({exc}), expected a mosaic") from exc
        high, wide = mosaic.shape[0] // TILE, mosaic.shape[1] // TILE
        count = int(row["seconds_or_count"])
        if high * wide != count:
            raise ConfigError(f"{path}: {wide} x {high} tiles, expected {count}")
        cut = mosaic.reshape(high, TILE, wide, TILE, 3).swapaxes(1, 2)
        pixels.append(cut.reshape(count, TILE, TILE, 3))
        classes.append(np.full(count, number, np.int64))
        name = recording_id(row["path"].removeprefix("training/"))
        recordings.extend(f"{name}/{i}" for i in range(count))
    return Tiles(
        pixels=np.concatenate(pixels),
        classes=np.concatenate(classes),
        labels=tuple(row["label"] for row in rows),
        recordings=tuple(recordings),
        source=collection,
        licence=rows[0]["source_and_licence"],
    )
