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
from encoders.imagebind.entries import SENSES, TEXT, TOKENIZER, tower_entry
from encoders.manifest import (
    MANIFEST_NAME,
    ModelFile,
    SpaceSettings,
    checked_path,
    convert,
    read_entry,
    read_manifest,
)

__all__ = ["REPORT_NAME", "Check", "ModelFolder", "Report", "Source", "dims_of"]

REPORT_NAME = "report.json"
VERSION = 1
PARTIAL = ".partial"
HEADER = "# Exported by tools/export.py; report.json says how near each file is to the original.\n"


class Source(Settings, frozen=True, kw_only=True):
    """What a folder is exported from. sha256: of a checkpoint file; seed: of random weights.

    dims: length of the vectors, and width, blocks and heads of each tower the source has.
    """

    name: str
    sha256: str | None = None
    seed: int | None = None
    out: int
    dims: dict[str, tuple[int, int, int]]

    @property
    def licence(self) -> str:
        return "random weights, no licence" if self.sha256 is None else "CC-BY-NC-SA-4.0"


class Check(Settings, frozen=True, kw_only=True):
    """Of one file. least, mean: cosine with the original's vectors of `inputs` rows of
    `material`; floor: what the least must reach. seconds: to make the file.
    """

    file: ModelFile
    least: float
    mean: float
    inputs: int
    material: str
    floor: float
    seconds: float

    @property
    def bytes(self) -> int:
        """With external data."""
        return sum(part.bytes for part in self.file.parts())


class Report(Settings, frozen=True, kw_only=True):
    """`report.json`. towers: by sense, then by precision. made_with: versions of packages."""

    version: int = VERSION
    source: Source
    made_with: dict[str, str]
    towers: dict[str, dict[str, Check]]


def dims_of(dims: Dims) -> dict[str, tuple[int, int, int]]:
    """As Source.dims has them."""
    return {name: (d.width, d.blocks, d.heads) for name, d in dims.towers.items()}


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
        before = _read_report(path / REPORT_NAME)
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
        checks = self.report.towers.get(sense, {})
        return [name for name in precisions if name not in checks or not self._whole(checks[name])]

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

    def add(
        self,
        partial: Path,
        sense: str,
        checks: Mapping[str, Check],
        scale: float | None,
        name: str | None,
        frames: str,
    ) -> None:
        """Take files in that are finished, and write both lists of them anew.

        checks: of the files in `partial`, by precision. scale: None keeps the one that is there.
        name: of the space, None likewise. frames: as in `tower_entry`.
        """
        towers = self._space.get("towers", {})
        entry = towers.get(sense, {})
        held = {**self.report.towers.get(sense, {}), **checks}
        entry = {
            **tower_entry(sense, frames),
            "files": {precision: _builtins(check.file) for precision, check in held.items()},
            "precision": entry.get("precision", next(iter(held))),
            "scale": entry.get("scale", 1.0) if scale is None else scale,
        }
        if sense == TEXT:
            shutil.copyfile(TOKENIZER, partial / TOKENIZER.name)
            entry["tokenizer"] = _builtins(read_entry(partial / TOKENIZER.name))
        source = self.report.source
        towers = {**towers, sense: entry}
        self._space = {
            "version": VERSION,
            "name": name or self._space.get("name", "imagebind"),
            "dim": source.out,
            "licence": source.licence,
            "description": f"ImageBind, exported from {source.name}.",
            "towers": {key: towers[key] for key in SENSES if key in towers},
        }
        convert(self._space, SpaceSettings, MANIFEST_NAME)
        self.report = msgspec.structs.replace(
            self.report, towers={**self.report.towers, sense: held}
        )
        report = msgspec.json.format(msgspec.json.encode(_builtins(self.report)), indent=2)
        (partial / REPORT_NAME).write_bytes(report + b"\n")
        text = yaml.safe_dump(self._space, sort_keys=False, default_flow_style=None, width=120)
        (partial / MANIFEST_NAME).write_text(HEADER + text, encoding="utf-8")
        # The lists last, so that what they name is there.
        last = [REPORT_NAME, MANIFEST_NAME]
        named = {part.path for check in checks.values() for part in check.file.parts()}
        for file in [*sorted(named), *([TOKENIZER.name] if sense == TEXT else []), *last]:
            (partial / file).replace(self.path / file)

    def _whole(self, check: Check) -> bool:
        try:
            checked_path(self.path, check.file)
        except (ModelMissing, ModelMismatch):
            return False
        return True


def _read_report(path: Path) -> Report:
    try:
        report = msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}), expected an export's report") from exc
    return report


def _describe(source: Source) -> str:
    if source.sha256 is None:
        return f"{source.name} of {len(source.dims)} towers and {source.out} dimensions"
    return f"{source.name} (sha256 {source.sha256[:12]})"


def _builtins(value: Any) -> Any:
    """As dicts, without what is None: a reader takes a missing field for it."""
    content = msgspec.to_builtins(value)
    if isinstance(content, dict):
        return {key: _builtins(part) for key, part in content.items() if part is not None}
    return content
