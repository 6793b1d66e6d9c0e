"""An exported model folder while it is made: complete after each tower, and taken up again.

`report.json` says what the folder was exported from and how near each file is to the original;
`space.yaml` is what the agent reads. No torch here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import yaml

from agent.errors import ConfigError, ModelMismatch, ModelMissing
from agent.types import Settings
from encoders.imagebind.dims import Dims
from encoders.imagebind.entries import FRAMES, SENSES, TEXT, TOKENIZER, tower_entry
from encoders.manifest import (
    MANIFEST_NAME,
    ModelFile,
    SpaceSettings,
    checked_path,
    convert,
    read_entry,
    read_manifest,
)

__all__ = [
    "REPORT_NAME",
    "Check",
    "ModelFolder",
    "Report",
    "Source",
    "TowerReport",
    "dims_of",
    "read_report",
    "report_of",
    "write_report",
]

REPORT_NAME = "report.json"
VERSION = 1
PARTIAL = ".partial"
HEADER = "# Exported by tools/export.py; report.json says how near each file is to the original.\n"


class Source(Settings, frozen=True, kw_only=True):
    """What a folder is exported from. sha256: of a checkpoint file; seed: of random weights.

    dims: length of the vectors, and width, blocks and heads of each tower the source has. tuned:
    senses whose towers have learned since.
    """

    name: str
    sha256: str | None = None
    seed: int | None = None
    out: int
    dims: dict[str, tuple[int, int, int]]
    tuned: tuple[str, ...] | None = None

    @property
    def licence(self) -> str:
        return "random weights, no licence" if self.sha256 is None else "CC-BY-NC-SA-4.0"


class Check(Settings, frozen=True, kw_only=True):
    """Of one file. least, mean: cosine with the original's vectors of `inputs` rows of
    `material`; floor: what the least must reach. kept: what of each block an int8 tower has in
    float32, to be near enough. seconds: to make the file.
    """

    file: ModelFile
    least: float
    mean: float
    inputs: int
    material: str
    floor: float
    kept: tuple[str, ...] = ()
    seconds: float

    @property
    def bytes(self) -> int:
        """With external data."""
        return sum(part.bytes for part in self.file.parts())


class TowerReport(Settings, frozen=True, kw_only=True):
    """scale: what the publisher multiplies its unit vectors by. files: by precision."""

    scale: float
    files: dict[str, Check]


class Report(Settings, frozen=True, kw_only=True):
    """`report.json`. towers: by sense. made_with: versions of packages, of the last run."""

    version: int = VERSION
    source: Source
    made_with: dict[str, str]
    towers: dict[str, TowerReport]


def dims_of(dims: Dims) -> dict[str, tuple[int, int, int]]:
    """As Source.dims has them."""
    return {name: (d.width, d.blocks, d.heads) for name, d in dims.towers.items()}


def read_report(path: Path) -> Report:
    """`report.json` at `path`. Raises ConfigError where there is none."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}), expected an export's report") from exc
    return report


def write_report(folder: Path, report: Report) -> None:
    """Write `report.json` into `folder`."""
    text = msgspec.json.format(msgspec.json.encode(_builtins(report)), indent=2)
    (folder / REPORT_NAME).write_bytes(text + b"\n")


def report_of(folder: Path, source: Source) -> Report:
    """What a folder says that was exported from `source`, whatever was tuned in it since.

    Raises ConfigError for any other folder.
    """
    report = read_report(folder / REPORT_NAME)
    if msgspec.structs.replace(report.source, name=source.name, tuned=None) != source:
        raise ConfigError(
            f"{folder}: was exported from {_describe(report.source)}, expected {_describe(source)}"
        )
    return report


class ModelFolder:
    """A folder that is new, empty, or an earlier export from the same source."""

    def __init__(self, path: Path, source: Source, made_with: Mapping[str, str]) -> None:
        """Writes nothing. Raises ConfigError where the folder holds anything else."""
        self.path = path
        self.report = Report(source=source, made_with=dict(made_with), towers={})
        self._space: dict[str, Any] = {}
        if not path.exists():
            return
        if not path.is_dir():
            raise ConfigError(f"{path}: is a file, expected a folder to export into")
        names = sorted(child.name for child in path.iterdir() if child.name != PARTIAL)
        if not names:
            return
        if REPORT_NAME not in names:
            raise ConfigError(
                f"{path}: holds {names[0]} and no {REPORT_NAME}, "
                "expected a new folder or one that was exported into"
            )
        before = read_report(path / REPORT_NAME)
        if msgspec.structs.replace(before.source, name=source.name) != source:
            raise ConfigError(
                f"{path}: was exported from {_describe(before.source)}, expected "
                f"{_describe(source)}: give another folder"
            )
        self.report = msgspec.structs.replace(self.report, towers=before.towers)
        if MANIFEST_NAME in names:
            self._space = msgspec.to_builtins(read_manifest(path))

    def missing(self, sense: str, precisions: Sequence[str]) -> list[str]:
        """Those of `precisions` that have no whole file here; reads the files that there are."""
        held = self._files(sense)
        return [name for name in precisions if name not in held or not self._whole(held[name])]

    @contextmanager
    def partial(self) -> Iterator[Path]:
        """A folder inside for files that are not finished; taken away at the end, whatever comes.

        One that a killed export left is taken away first. Raises ConfigError where the folder
        cannot be made or is full.
        """
        partial = self.path / PARTIAL
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
        except OSError as exc:
            raise ConfigError(
                f"{self.path}: cannot be written ({exc.strerror or exc}), "
                "expected a folder to write in"
            ) from exc
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            for folder in made:
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def add(self, partial: Path, sense: str, tower: TowerReport) -> None:
        """Take the files of `partial` in that are finished, which `tower` lists."""
        held = TowerReport(scale=tower.scale, files={**self._files(sense), **tower.files})
        towers = {**self.report.towers, sense: held}
        self.report = msgspec.structs.replace(self.report, towers=towers)
        write_report(partial, self.report)
        # The report first: a file that it lists and that is not there is made again.
        named = [part.path for check in tower.files.values() for part in check.file.parts()]
        for name in (REPORT_NAME, *named):
            (partial / name).replace(self.path / name)

    def describe(self, partial: Path, sense: str, name: str | None, frames: str | None) -> None:
        """Write `space.yaml` anew, with what the report has of `sense`.

        name: of the space. frames: as in `tower_entry`. None keeps what is there; so does all
        else that is not about files.
        """
        towers = self._space.get("towers", {})
        entry = towers.get(sense)
        if entry is None or (sense == "image" and frames):
            precision = next(iter(self._files(sense))) if entry is None else entry["precision"]
            entry = {**tower_entry(sense, frames or FRAMES[0]), "precision": precision}
        files = {key: _builtins(check.file) for key, check in self._files(sense).items()}
        entry = {**entry, "files": files, "scale": self.report.towers[sense].scale}
        if sense == TEXT:
            shutil.copyfile(TOKENIZER, partial / TOKENIZER.name)
            entry["tokenizer"] = _builtins(read_entry(partial / TOKENIZER.name))
            (partial / TOKENIZER.name).replace(self.path / TOKENIZER.name)
        towers = {**towers, sense: entry}
        source = self.report.source
        made = {
            "version": VERSION,
            "name": name or "imagebind",
            "dim": source.out,
            "licence": source.licence,
            "description": f"ImageBind, exported from {source.name}.",
        }
        kept = {} if name is None else {"name": name}
        ordered = {key: towers[key] for key in SENSES if key in towers}
        self._space = _builtins({**made, **self._space, **kept, "towers": ordered})
        convert(self._space, SpaceSettings, MANIFEST_NAME)
        text = yaml.safe_dump(self._space, sort_keys=False, default_flow_style=None, width=120)
        (partial / MANIFEST_NAME).write_text(HEADER + text, encoding="utf-8")
        (partial / MANIFEST_NAME).replace(self.path / MANIFEST_NAME)

    def _files(self, sense: str) -> Mapping[str, Check]:
        tower = self.report.towers.get(sense)
        return tower.files if tower else {}

    def _whole(self, check: Check) -> bool:
        try:
            checked_path(self.path, check.file)
        except (ModelMissing, ModelMismatch):
            return False
        return True


def _describe(source: Source) -> str:
    if source.sha256 is None:
        return f"{source.name} of {len(source.dims)} towers and {source.out} dimensions"
    tuned = f", tuned in {', '.join(source.tuned)}" if source.tuned else ""
    return f"{source.name} (sha256 {source.sha256[:12]}{tuned})"


def _builtins(value: Any) -> Any:
    """As dicts, without what is None: a reader takes a missing field for it."""
    content = msgspec.to_builtins(value)
    if isinstance(content, dict):
        return {key: _builtins(part) for key, part in content.items() if part is not None}
    return content
