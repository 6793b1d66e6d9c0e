"""What is seen in parts of the thermal and depth frames that are held out, named by eye.

These names are for validation alone: no tower of those senses is trained with any text. Parts were
chosen and named on contact sheets of both halves of the pairs, before any tower was asked about
them: a thing that can be told in the sense's own picture and fills most of the part. Two parts of
one name in one frame share less than half of the smaller.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.errors import ConfigError
from agent.types import Array
from encoders.bind.sources import Record
from tools.query_folder import QueryFolder

__all__ = ["Crop", "add_crops", "read_crops"]

CROPS = Path(__file__).with_suffix(".csv")
TEXTS = ("{}", "a photo of {}")


class Crop(NamedTuple):
    """Of a recording's frame: left, top, width, height in percent; `name` is what it shows."""

    recording: str
    name: str
    left: int
    top: int
    width: int
    height: int

    @property
    def collection(self) -> str:
        """That the recording is of."""
        return self.recording.partition("/")[0]

    @property
    def stem(self) -> str:
        """Of a file of this part alone."""
        frame = self.recording.partition("/")[2]
        return "-".join(map(str, (frame, self.left, self.top, self.width, self.height)))


def read_crops() -> list[Crop]:
    """All parts that are named."""
    with CROPS.open(encoding="utf-8", newline="") as text:
        rows = csv.reader(text)
        next(rows)  # the header
        return [Crop(recording, name, *map(int, place)) for recording, name, *place in rows]


def add_crops(out: QueryFolder, sense: str, records: Sequence[Record], group: str = "") -> None:
    """The named parts of one collection as files; the tasks text_to_SENSE, whose pool they are, and
    SENSE_to_text, whose candidates are all names of the collection, each with `group` at its end.

    records: those of the collection that are held out. Raises ConfigError for a part of a recording
    that is not among them.
    """
    frames = {record.recording: record for record in records}
    collections = {name.partition("/")[0] for name in frames}
    pool = f"seen/{sense}{group}"
    files: dict[str, list[str]] = {}
    for crop in read_crops():
        if crop.collection in collections:
            if crop.recording not in frames:
                raise ConfigError(
                    f"{crop.recording}: not among the frames held out, expected it for its names"
                )
            part = _cut(frames[crop.recording].window().data[0], crop)
            files.setdefault(crop.name, []).append(out.picture(pool, crop.stem, part))
    for name, own in files.items():
        for asked in TEXTS:
            out.ask(f"text_to_{sense}{group}", own, text=asked.format(name), pool=pool)
        for file in own:
            out.ask(f"{sense}_to_text{group}", [name], query=file, candidates=list(files))


def _cut(frame: Array, crop: Crop) -> Array:
    high, wide = frame.shape[:2]
    top, left = high * crop.top // 100, wide * crop.left // 100
    part = frame[top : top + high * crop.height // 100, left : left + wide * crop.width // 100]
    return np.ascontiguousarray(part)
