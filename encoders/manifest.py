"""What a model folder says about itself: `space.yaml` as types, and the checking of its files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import yaml

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, ModelMismatch, ModelMissing
from agent.types import Settings

__all__ = [
    "MANIFEST_NAME",
    "FileEntry",
    "ModelFile",
    "SpaceSettings",
    "TowerContext",
    "TowerSettings",
    "checked_path",
    "convert",
    "read_entry",
    "read_manifest",
]

MANIFEST_NAME = "space.yaml"
VERSION = 1

# A model folder is flat: a name that could leave it, or a drive letter, is refused.
_FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")]
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]


class FileEntry(Settings, frozen=True, kw_only=True):
    """One file of the folder. bytes: its size; sha256: of its content, 64 hex digits."""

    path: _FileName
    bytes: Annotated[int, msgspec.Meta(gt=0)]
    sha256: _Sha256

    def parts(self) -> list[FileEntry]:
        """Every file that is read when this one is, this one last."""
        return [self]


class ModelFile(FileEntry, frozen=True, kw_only=True):
    """A tower's file of one precision.

    data: ONNX external data, where the weights are too many for one file (2 GB); the graph names
    it. max_batch: most rows that may be run at once, whatever the run allows: 1 where the rows of
    a batch would change one another (int8 with one scale for a whole activation).
    """

    data: FileEntry | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def parts(self) -> list[FileEntry]:
        return [self.data, self] if self.data else [self]


class TowerSettings(Settings, frozen=True, kw_only=True):
    """What every kind of tower has; a kind's own `Config` adds its fields.

    files: one a precision ("fp32", "fp16", "int8"). precision: the one used unless asked otherwise.
    scale: the factor the publisher multiplies its unit vectors by (ImageBind's logit scale), for
    readers who compare with published scores; the vectors made here are always unit vectors.
    """

    files: Annotated[dict[str, ModelFile], msgspec.Meta(min_length=1)]
    precision: str
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.precision not in self.files:
            raise ValueError(
                f"precision {self.precision!r} has no file, expected one of {', '.join(self.files)}"
            )

    def chosen(self, wanted: str | None) -> str:
        """The precision to run: `wanted` where there is a file for it, else the tower's own."""
        return wanted if wanted in self.files else self.precision

    def batch(self, options: RuntimeOptions) -> int:
        """Most rows to run at once: what the run allows, or fewer where the file says so."""
        own = self.files[self.chosen(options.precision)].max_batch
        return options.max_batch if own is None else min(own, options.max_batch)

    def extra_files(self) -> list[FileEntry]:
        """Files beside the one of the chosen precision; none unless a kind says so."""
        return []


class SpaceSettings(Settings, frozen=True, kw_only=True):
    """`space.yaml`. dim: length of every vector. licence: of the weights.

    towers: by modality; each entry has `kind`, which names the class that checks the rest.
    background: an .npz of float16 unit vectors of ordinary input, by modality: (n, dim), or of a
    tower with views (n, k, dim) as encoders.space.ModelSpace.background gives them.
    """

    version: int
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+$")]
    dim: Annotated[int, msgspec.Meta(gt=1)]
    licence: str
    description: str = ""
    towers: Annotated[dict[str, dict[str, Any]], msgspec.Meta(min_length=1)]
    background: FileEntry | None = None


@dataclass(frozen=True)
class TowerContext:
    """What a tower is told by its space. identity: "name@hash"."""

    folder: Path
    modality: str
    identity: str
    dim: int
    options: RuntimeOptions


def convert(value: Any, kind: type[Settings], where: str) -> Any:
    """`value` as `kind`. Raises ConfigError naming `where` and the field."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"{where}: {exc}") from exc


def read_manifest(folder: Path) -> SpaceSettings:
    """Read `space.yaml`. Raises ModelMissing without one, ConfigError where it is not right."""
    path = folder / MANIFEST_NAME
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ModelMissing(
            f"{path}: no such file, expected a model folder with {MANIFEST_NAME}"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}), expected a YAML file") from exc
    except yaml.YAMLError as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{path}: not YAML ({reason})") from exc
    # The version is looked at first: another version's fields would only confuse the message.
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise ConfigError(f"{path}: version is {version!r}, expected {VERSION}")
    settings: SpaceSettings = convert(content, SpaceSettings, str(path))
    return settings


def checked_path(folder: Path, entry: FileEntry) -> Path:
    """The path of `entry`, the content of all its parts checked, each read once.

    Raises ModelMissing or ModelMismatch.
    """
    for part in entry.parts():
        _check_content(folder / part.path, part)
    return folder / entry.path


def read_entry(path: Path) -> FileEntry:
    """The entry of a file as it is now. Raises OSError."""
    with path.open("rb") as file:
        return FileEntry(path=path.name, bytes=path.stat().st_size, sha256=_sha256(file))


def _check_content(path: Path, entry: FileEntry) -> None:
    try:
        with path.open("rb") as file:
            actual = _sha256(file)
    except OSError as exc:
        raise ModelMissing(f"{path}: cannot be read ({exc.strerror}), named in space.yaml") from exc
    if actual != entry.sha256:
        raise ModelMismatch(
            f"{path}: sha256 is {actual[:12]} ({path.stat().st_size} bytes), "
            f"expected {entry.sha256[:12]} ({entry.bytes} bytes)"
        )


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
