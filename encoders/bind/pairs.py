"""From what was recorded together, or labelled, to Examples: the frozen anchor sees its half here.

Three kinds of source, written KIND:PATH?key=value&key=value on a command line:

    log:FILE?sense=STREAM&anchor=STREAM    two streams of a log (stretch=S: seconds a recording)
    folders:DIR?anchor=DIR                 files of the same stem (block=N: files a recording)
    labels:FILE or labels:DIR              CSV, JSON or YAML of file and label, or a folder a label
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import yaml

from agent.errors import ConfigError, EncodeFailed
from agent.types import Window
from encoders.bind.examples import Examples
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.session import unit
from encoders.space import ModelSpace
from encoders.tower import OnnxTower

__all__ = [
    "TEMPLATES",
    "Collector",
    "Labelled",
    "Source",
    "labelled_files",
    "paired_files",
    "parse_source",
]

TEXT = "text"
TEMPLATES = ("{}", "a {}", "this is {}", "an example of {}")
KEPT_WINDOWS = 8
OPTIONS: Mapping[str, frozenset[str]] = {
    "log": frozenset({"sense", "anchor", "stretch"}),
    "folders": frozenset({"anchor", "block"}),
    "labels": frozenset(),
}


class Source(NamedTuple):
    """One --pairs, as the module docstring says."""

    kind: str
    path: Path
    options: Mapping[str, str]

    def needed(self, key: str) -> str:
        """An option that must be there. Raises ConfigError."""
        if key not in self.options:
            raise ConfigError(f"pairs {self.path}: no {key}, expected {self.kind}:PATH?{key}=...")
        return self.options[key]

    def number(self, key: str, default: float) -> float:
        """An option above 0. Raises ConfigError."""
        text = self.options.get(key)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise ConfigError(f"pairs {self.path}: {key} is {text!r}, expected a number above 0")
        return value


class Labelled(NamedTuple):
    """recording: what the file was cut from, its own path where nothing says so."""

    file: Path
    label: str
    recording: str


def parse_source(text: str) -> Source:
    """Raises ConfigError for a kind or an option that there is not."""
    kind, _, rest = text.partition(":")
    path, _, query = rest.partition("?")
    if kind not in OPTIONS or not path:
        raise ConfigError(f"--pairs: {text!r}, expected {', '.join(OPTIONS)}, each as KIND:PATH")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - OPTIONS[kind])
    if unknown:
        known = ", ".join(sorted(OPTIONS[kind])) or "none"
        raise ConfigError(f"--pairs: {kind} has no option {unknown[0]!r}, expected {known}")
    return Source(kind, Path(path), options)


def paired_files(source: Source) -> list[tuple[Path, Path, str]]:
    """(file, the anchor's file of the same stem, recording), by name; `block` of them in a row are
    one recording, as frames of one drive are. Raises ConfigError where there are none.
    """
    other = Path(source.needed("anchor"))
    anchors = _by_stem(other)
    own = _by_stem(source.path)
    stems = sorted(own.keys() & anchors.keys())
    if not stems:
        raise ConfigError(f"{source.path}: no file of a stem that {other} has, expected pairs")
    block = int(source.number("block", 1))
    return [
        (own[stem], anchors[stem], f"{source.path}:{i // block}") for i, stem in enumerate(stems)
    ]


def labelled_files(path: Path) -> list[Labelled]:
    """Of a folder with a folder for each label, or a list with the columns file, label and, where
    files were cut from a longer one, recording; files are below the list's own folder.

    Raises ConfigError for what is missing or no such list.
    """
    if path.is_dir():
        folders = sorted(below for below in path.iterdir() if below.is_dir())
        found = [
            Labelled(file, folder.name.replace("_", " "), str(file))
            for folder in folders
            for file in sorted(folder.iterdir())
            if file.is_file()
        ]
        if not found:
            raise ConfigError(f"{path}: no files, expected a folder for each label")
        return found
    rows = _rows(path)
    found = []
    for i, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not row.get("file") or not row.get("label"):
            raise ConfigError(f"{path}: entry {i} is {row!r}, expected file and label")
        file = path.parent / str(row["file"])
        found.append(Labelled(file, str(row["label"]), str(row.get("recording") or file)))
    if not found:
        raise ConfigError(f"{path}: empty, expected rows of file and label")
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as exc:
        raise ConfigError(f"{folder}: cannot be read ({exc.strerror}), expected a folder") from exc
    by_stem: dict[str, Path] = {}
    for file in files:
        if by_stem.setdefault(file.stem, file) is not file:
            raise ConfigError(f"{file}: two files of one stem, expected each stem once")
    return by_stem


def _rows(path: Path) -> list[Any]:
    readers: dict[str, Callable[[str], Any]] = {
        ".csv": lambda text: list(csv.DictReader(text.splitlines())),
        ".json": json.loads,
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
    }
    if path.suffix not in readers:
        raise ConfigError(f"{path}: expected a folder, or a list as {', '.join(readers)}")
    try:
        content = readers[path.suffix](path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}), expected a list") from exc
    except (ValueError, csv.Error, yaml.YAMLError) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a list") from exc
    if isinstance(content, dict):
        return [{"file": file, "label": label} for file, label in content.items()]
    if not isinstance(content, list):
        raise ConfigError(f"{path}: {type(content).__name__}, expected a list of file and label")
    return content


@dataclass
class Collector:
    """Takes windows of the new sense with what they are bound to, and gives Examples.

    anchor: a sense of `space`, or "text" for labels alone; its tower is loaded here. skipped: why
    windows were left out, and how many. windows: the first few, to measure a tower with.
    """

    preprocess: Preprocess
    space: ModelSpace
    anchor: str
    templates: Sequence[str] = TEMPLATES
    labels: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    windows: list[Window] = field(default_factory=list)
    _views: list[Float32Array] = field(default_factory=list)
    _anchors: list[Float32Array] = field(default_factory=list)
    _recordings: dict[str, int] = field(default_factory=dict)
    _groups: list[int] = field(default_factory=list)
    _of_label: list[int] = field(default_factory=list)
    _texts: dict[str, Float32Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._views)

    def pair(self, window: Window, other: Window, recording: str) -> None:
        """A window of the sense and the anchor's of the same time; view for view where the anchor
        makes as many (the crops of two cameras side by side), else all with the anchor's vector.
        """
        tower = self.space.encoder(self.anchor)
        tower.load()
        try:
            views = self.preprocess(window)
            if isinstance(tower, OnnxTower):
                vectors = tower.encode_views(other)
            else:
                vectors = tower.encode([other])[0].vector[np.newaxis]
        except EncodeFailed as exc:
            self._skip(exc)
            return
        if len(vectors) != len(views):
            vectors = np.repeat(unit(vectors.mean(axis=0))[np.newaxis], len(views), axis=0)
        self._add(window, views, vectors, recording, -1)

    def labelled(self, window: Window, label: str, recording: str) -> None:
        """A window and its label, whose anchor is the unit mean of its texts' vectors."""
        if label not in self._texts:
            encoder = self.space.text_encoder()
            encoder.load()
            texts = [template.format(label) for template in self.templates]
            vectors = np.stack([embedding.vector for embedding in encoder.encode(texts)])
            self._texts[label] = unit(vectors.mean(axis=0))
            self.labels.append(label)
        try:
            views = self.preprocess(window)
        except EncodeFailed as exc:
            self._skip(exc)
            return
        vectors = np.repeat(self._texts[label][np.newaxis], len(views), axis=0)
        self._add(window, views, vectors, recording, self.labels.index(label))

    def finish(self) -> Examples:
        """Raises ConfigError where nothing was usable."""
        if not self._views:
            why = next(iter(self.skipped), "no windows that end together")
            raise ConfigError(f"pairs: none usable ({why}), expected some")
        return Examples(
            self._views,
            np.stack(self._anchors),
            np.array(self._groups, np.int64),
            np.array(self._of_label, np.int64),
        )

    def _add(
        self, window: Window, views: Float32Array, vectors: Float32Array, recording: str, label: int
    ) -> None:
        if len(self.windows) < KEPT_WINDOWS:
            self.windows.append(window)
        group = self._recordings.setdefault(recording, len(self._recordings))
        self._views.extend(views)
        self._anchors.extend(vectors)
        self._groups.extend([group] * len(views))
        self._of_label.extend([label] * len(views))

    def _skip(self, exc: EncodeFailed) -> None:
        self.skipped[str(exc)] = self.skipped.get(str(exc), 0) + 1
