"""What is seen in parts of the thermal and depth frames that are held out, named by eye.

These names are for validation alone: no tower of those senses is trained with any text. Parts were
chosen and named on contact sheets of both halves of the pairs, before any tower was asked about
them: a thing that can be told in the sense's own picture and fills most of the part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from agent.errors import ConfigError
from agent.types import Array
from encoders.bind.sources import Record
from tools.query_folder import QueryFolder

__all__ = ["CROPS", "Crop", "add_crops"]


class Crop(NamedTuple):
    """Of a frame, by its file's name without ending: left, top, width, height in percent."""

    frame: str
    left: int
    top: int
    width: int
    height: int


TEXTS = ("{}", "a photo of {}")
CROPS: Mapping[str, Mapping[str, tuple[Crop, ...]]] = {
    "thermal": {
        "a car": (
            Crop("roadscene_FLIR_00993", 8, 48, 36, 36),
            Crop("roadscene_FLIR_03909", 30, 36, 36, 44),
            Crop("roadscene_FLIR_04929", 60, 42, 28, 32),
            Crop("roadscene_FLIR_04932", 64, 44, 34, 42),
            Crop("roadscene_FLIR_04943", 22, 30, 46, 56),
            Crop("roadscene_FLIR_04997", 28, 44, 34, 46),
            Crop("roadscene_FLIR_05857", 56, 44, 38, 38),
            Crop("roadscene_FLIR_05872", 0, 20, 38, 42),
            Crop("roadscene_FLIR_05872", 66, 8, 34, 85),
            Crop("roadscene_FLIR_05879", 0, 55, 32, 40),
            Crop("roadscene_FLIR_05893", 10, 64, 32, 30),
            Crop("roadscene_FLIR_06832", 66, 48, 34, 50),
            Crop("roadscene_FLIR_00977", 60, 36, 40, 34),
            Crop("roadscene_FLIR_06920", 5, 52, 28, 22),
            Crop("roadscene_FLIR_07809", 0, 44, 32, 30),
            Crop("roadscene_FLIR_07968", 2, 54, 44, 38),
            Crop("roadscene_FLIR_08858", 0, 46, 72, 54),
            Crop("roadscene_FLIR_08992", 25, 38, 42, 56),
            Crop("roadscene_FLIR_video_00939", 11, 47, 22, 28),
            Crop("roadscene_FLIR_video_01876", 50, 40, 30, 42),
        ),
        "a person": (
            Crop("roadscene_FLIR_03952", 52, 28, 32, 45),
            Crop("roadscene_FLIR_04975", 33, 36, 24, 60),
            Crop("roadscene_FLIR_05893", 38, 64, 12, 27),
            Crop("roadscene_FLIR_05955", 0, 56, 14, 42),
            Crop("roadscene_FLIR_07809", 86, 42, 14, 56),
            Crop("roadscene_FLIR_07968", 72, 48, 28, 50),
            Crop("roadscene_FLIR_08835", 54, 58, 17, 40),
            Crop("roadscene_FLIR_08865", 28, 36, 20, 44),
            Crop("roadscene_FLIR_08865", 50, 36, 28, 44),
            Crop("roadscene_FLIR_08874", 6, 38, 36, 38),
            Crop("roadscene_FLIR_08914", 20, 42, 26, 58),
            Crop("roadscene_FLIR_08914", 58, 44, 24, 56),
            Crop("roadscene_FLIR_08919", 40, 30, 38, 68),
            Crop("roadscene_FLIR_08932", 68, 34, 30, 54),
            Crop("roadscene_FLIR_video_03894", 26, 12, 42, 86),
        ),
        "a tree": (
            Crop("roadscene_FLIR_06892", 6, 8, 46, 62),
            Crop("roadscene_FLIR_06874", 66, 10, 34, 55),
            Crop("roadscene_FLIR_03813", 40, 0, 60, 50),
            Crop("roadscene_FLIR_00977", 54, 8, 42, 42),
            Crop("roadscene_FLIR_01871", 12, 10, 20, 60),
            Crop("roadscene_FLIR_06974", 0, 0, 26, 70),
            Crop("roadscene_FLIR_06992", 20, 4, 58, 82),
            Crop("roadscene_FLIR_06995", 30, 0, 34, 64),
            Crop("roadscene_FLIR_06997", 10, 0, 36, 56),
            Crop("roadscene_FLIR_08858", 50, 0, 46, 46),
            Crop("roadscene_FLIR_08970", 2, 10, 55, 50),
            Crop("roadscene_FLIR_08992", 66, 2, 34, 56),
            Crop("roadscene_FLIR_video_00843", 2, 4, 44, 52),
        ),
        "a building": (
            Crop("roadscene_FLIR_05857", 0, 22, 30, 60),
            Crop("roadscene_FLIR_05879", 64, 10, 36, 66),
            Crop("roadscene_FLIR_05914", 36, 26, 56, 60),
            Crop("roadscene_FLIR_05924", 10, 18, 74, 66),
            Crop("roadscene_FLIR_01871", 0, 5, 100, 60),
            Crop("roadscene_FLIR_01932", 50, 0, 50, 66),
            Crop("roadscene_FLIR_03801", 70, 5, 30, 62),
            Crop("roadscene_FLIR_06916", 0, 0, 74, 44),
            Crop("roadscene_FLIR_06920", 40, 0, 56, 74),
            Crop("roadscene_FLIR_06962", 68, 14, 32, 66),
            Crop("roadscene_FLIR_06974", 24, 24, 76, 50),
            Crop("roadscene_FLIR_06983", 46, 0, 46, 66),
            Crop("roadscene_FLIR_08835", 50, 0, 50, 60),
            Crop("roadscene_FLIR_video_00843", 58, 2, 42, 58),
        ),
        "a bicycle": (
            Crop("roadscene_FLIR_06832", 46, 50, 22, 48),
            Crop("roadscene_FLIR_06916", 64, 40, 28, 56),
            Crop("roadscene_FLIR_08835", 0, 55, 24, 34),
        ),
    },
    "depth": {
        "a chair": (
            Crop("frame-000320", 10, 24, 34, 24),
            Crop("frame-000340", 12, 18, 34, 26),
            Crop("frame-000360", 0, 18, 32, 24),
            Crop("frame-000380", 42, 12, 34, 28),
            Crop("frame-000420", 66, 46, 34, 50),
            Crop("frame-000440", 68, 66, 32, 34),
            Crop("frame-000480", 23, 46, 34, 34),
            Crop("frame-000820", 60, 12, 36, 36),
            Crop("frame-000840", 47, 24, 36, 36),
            Crop("frame-000860", 0, 64, 26, 36),
            Crop("frame-000880", 54, 44, 32, 32),
            Crop("frame-000920", 66, 40, 34, 30),
            Crop("frame-000940", 66, 38, 34, 30),
        ),
        "a table": (
            Crop("frame-000320", 10, 42, 75, 38),
            Crop("frame-000340", 5, 40, 70, 40),
            Crop("frame-000360", 0, 42, 80, 36),
            Crop("frame-000380", 0, 28, 95, 40),
            Crop("frame-000420", 0, 42, 60, 50),
            Crop("frame-000440", 0, 62, 65, 38),
            Crop("frame-000820", 40, 50, 60, 48),
            Crop("frame-000840", 40, 55, 58, 42),
            Crop("frame-000880", 38, 62, 60, 38),
            Crop("frame-000920", 35, 64, 62, 36),
            Crop("frame-000940", 15, 66, 80, 34),
            Crop("frame-000960", 10, 60, 85, 40),
            Crop("frame-000980", 5, 56, 90, 44),
        ),
        "books on a shelf": (
            Crop("frame-000440", 18, 10, 58, 36),
            Crop("frame-000460", 46, 36, 50, 30),
            Crop("frame-000860", 14, 18, 54, 20),
            Crop("frame-000880", 20, 16, 54, 22),
            Crop("frame-000920", 44, 16, 46, 22),
            Crop("frame-000940", 44, 14, 46, 22),
        ),
        "a television": (
            Crop("frame-000860", 12, 0, 54, 22),
            Crop("frame-000880", 20, 0, 52, 20),
            Crop("frame-000920", 40, 0, 50, 16),
        ),
    },
}


def add_crops(out: QueryFolder, sense: str, records: Iterable[Record]) -> None:
    """The parts of the records' frames as files; the tasks text_to_SENSE, whose pool they are, and
    SENSE_to_text, whose candidates are all names of the sense.

    Raises ConfigError where a frame is not there or is one that may be trained on.
    """
    frames: dict[str, Array] = {}
    for record in records:
        if record.held_out:
            frames[record.recording.partition("/")[2]] = record.window().data[0]
    pool = f"seen/{sense}"
    texts = list(CROPS[sense])
    for text, crops in CROPS[sense].items():
        files = [out.picture(pool, _stem(crop), _cut(frames, crop)) for crop in crops]
        for asked in TEXTS:
            out.ask(f"text_to_{sense}", files, text=asked.format(text), pool=pool)
        for file in files:
            out.ask(f"{sense}_to_text", [text], query=file, candidates=texts)


def _stem(crop: Crop) -> str:
    return f"{crop.frame}-{crop.left}-{crop.top}"


def _cut(frames: Mapping[str, Array], crop: Crop) -> Array:
    if crop.frame not in frames:
        raise ConfigError(f"{crop.frame}: not among the frames held out, expected it for its names")
    frame = frames[crop.frame]
    high, wide = frame.shape[:2]
    top, left = high * crop.top // 100, wide * crop.left // 100
    part = frame[top : top + high * crop.height // 100, left : left + wide * crop.width // 100]
    return np.ascontiguousarray(part)
