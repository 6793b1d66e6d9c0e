"""The training data as records, whatever folder or package it comes from; motion is in
sources_motion.py, tiles are in sources_tiles.py.

Records of the validation set (splits.py) are given too, marked: what is never to be seen in
training at all (ESC-10's fold 5, the smartwatch's later people, BasicMotions' test file) is not.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from agent.errors import ConfigError
from agent.types import StreamInfo, Window
from encoders.bind.classes import class_texts
from encoders.bind.splits import held_out, recording_id
from encoders.files import read_file

__all__ = [
    "STAMPS",
    "Record",
    "animal_sounds",
    "depth_pairs",
    "esc10",
    "photos",
    "read_manifest_rows",
    "slambook_pairs",
    "stamp_sounds",
    "stamps",
    "thermal_pairs",
]

MANIFEST = "MANIFEST.tsv"

STAMPS_FOLDER = "usr/share/tuxpaint/stamps"
STAMPS = "tuxpaint-stamps-default"
STAMPS_LICENCE = "GPL-2.0-only"


@dataclass(frozen=True)
class Record:
    """One recording.

    modality: of `content`, a file or a window. recording: as splits.recording_id. label: its class,
    "" for none. texts: what it may be called, the most telling first; empty where nothing is told.
    photo: the aligned picture of a thermal or depth frame.
    """

    modality: str
    content: Path | Window
    recording: str
    source: str
    licence: str
    label: str = ""
    texts: tuple[str, ...] = ()
    photo: Path | None = None

    @property
    def held_out(self) -> bool:
        """For validation: not to be trained on."""
        return held_out(self.recording)

    def window(self) -> Window:
        """All of it. Raises ConfigError for a file that cannot be read."""
        if isinstance(self.content, Window):
            return self.content
        if self.source == STAMPS and self.modality == "image":
            return _on_white(self.content)
        return read_file(str(self.content), self.modality)


def read_manifest_rows(training: Path, collection: str) -> list[dict[str, str]]:
    """The rows of MANIFEST.tsv of one collection, in its order.

    Raises ConfigError where the file is missing or has none.
    """
    path = training / MANIFEST
    try:
        with path.open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text, delimiter="\t"))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}, expected the training data's list") from exc
    found = [row for row in rows if row["path"].split("/")[1] == collection]
    # Two classes of one name ("crane") came to one file, in which the later one is seen.
    last = {row["path"]: number for number, row in enumerate(found)}
    found = [row for number, row in enumerate(found) if last[row["path"]] == number]
    if not found:
        raise ConfigError(f"{path}: no rows of {collection}, expected some")
    return found


def _records(
    training: Path, collection: str, modality: str, names: Mapping[str, Sequence[str]]
) -> Iterator[Record]:
    for row in read_manifest_rows(training, collection):
        path = training.parent / row["path"]
        label = row["label"]
        below = row["path"].removeprefix("training/")
        yield Record(
            modality=modality,
            content=path,
            recording=recording_id(below),
            source=collection,
            licence=row["source_and_licence"],
            label=label,
            texts=(label, *names.get(below, ())) if label else (),
        )


def photos(
    training: Path,
    hypernyms: Sequence[Sequence[str]] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
    absent: Mapping[int, str] | None = None,
) -> list[Record]:
    """One photograph a class of ImageNet; texts are its label and what the label is a kind of.

    hypernyms, groups, absent: as classes.class_texts. Raises ConfigError as that.
    """
    rows = read_manifest_rows(training, "photos")
    missing = absent or {}
    texts = class_texts([row["label"] for row in rows], missing, hypernyms, groups or {})
    shown = [own for number, own in enumerate(texts) if number not in missing]
    names = {
        row["path"].removeprefix("training/"): own[1:] for row, own in zip(rows, shown, strict=True)
    }
    return list(_records(training, "photos", "image", names))


def esc10(training: Path) -> list[Record]:
    """Environmental sounds of five seconds, folds 1 to 4."""
    return list(_records(training, "esc10", "audio", {}))


def animal_sounds(training: Path) -> list[Record]:
    """Short calls of ten animals."""
    return list(_records(training, "animal_sounds", "audio", {}))


def thermal_pairs(training: Path) -> list[Record]:
    """Infrared frames of streets, each with its photograph."""
    return _pairs(training, "thermal_pairs", "thermal")


def depth_pairs(training: Path) -> list[Record]:
    """Depth frames of a kitchen, each with its photograph."""
    return _pairs(training, "depth_pairs", "depth")


def slambook_pairs(folder: Path) -> list[Record]:
    """Five depth frames of a living room, each with its photograph: none is for training.

    folder: with color/ and depth/. Raises ConfigError where there is no frame.
    """
    frames = sorted((folder / "depth").glob("*.pgm"))
    if not frames:
        raise ConfigError(f"{folder}: no depth/*.pgm, expected RGB-D pairs")
    return [
        Record(
            "depth",
            frame,
            f"slambook/{frame.stem}",
            "SLAMBench",
            "MIT",
            photo=folder / "color" / f"{frame.stem}.png",
        )
        for frame in frames
    ]


def _pairs(training: Path, collection: str, modality: str) -> list[Record]:
    photographs = {path.stem: path for path in (training / collection / "rgb").iterdir()}
    records = []
    for record in _records(training, collection, modality, {}):
        assert isinstance(record.content, Path)
        photo = photographs.get(record.content.stem)
        if photo is None:
            raise ConfigError(f"{record.content}: no picture of that name under rgb/")
        records.append(
            Record(
                modality,
                record.content,
                record.recording,
                record.source,
                record.licence,
                record.label,
                photo=photo,
            )
        )
    return records


@lru_cache(maxsize=1)
def _stamp_texts(root: Path) -> dict[Path, str]:
    """The English line of each stamp, by its path without an ending."""
    found = {}
    for path in sorted(root.rglob("*.txt")):
        first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0].strip()
        if first and path.with_suffix(".png").exists() and "symbols" not in path.parts:
            found[path.with_suffix("")] = first.rstrip(".!")
    if not found:
        raise ConfigError(f"{root}: no stamps with texts, expected Tux Paint's")
    return found


def stamps(package: Path) -> list[Record]:
    """Tux Paint's pictures with a line of text, those of letters, digits and coins left out.

    package: the unpacked tuxpaint-stamps-default. Pictures have transparent pixels.
    """
    root = package / STAMPS_FOLDER
    return [
        _stamp(root, stem.with_suffix(".png"), "image", text)
        for stem, text in _stamp_texts(root).items()
    ]


def stamp_sounds(package: Path) -> list[Record]:
    """The sound effects beside those pictures; not the readings of their texts."""
    root = package / STAMPS_FOLDER
    return [
        _stamp(root, path, "audio", text)
        for stem, text in _stamp_texts(root).items()
        for path in (stem.with_suffix(".ogg"), stem.with_suffix(".wav"))
        if path.exists()
    ]


def _stamp(root: Path, path: Path, modality: str, text: str) -> Record:
    return Record(
        modality=modality,
        content=path,
        recording=f"stamps/{path.relative_to(root).with_suffix('').as_posix()}",
        source=STAMPS,
        licence=STAMPS_LICENCE,
        texts=(text,),
    )


def _on_white(path: Path) -> Window:
    """A picture whose transparent pixels show white."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            drawn = picture.convert("RGBA")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}), expected a picture") from exc
    white = Image.new("RGBA", drawn.size, "white")
    frame = np.asarray(Image.alpha_composite(white, drawn).convert("RGB"))
    info = StreamInfo("stamp", "image", "uint8", frame.shape, None, "rgb8")
    return Window(info, 0, 1, frame[np.newaxis], np.zeros(1, np.int64))
