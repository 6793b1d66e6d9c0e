"""Everyday sounds of registry packages as records: recipes/sounds.yaml tells which file is what."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import soundfile

from agent.clock import NS_PER_S
from agent.errors import ConfigError
from agent.types import Settings, StreamInfo, Window
from encoders.bind.rcc import read_rcc
from encoders.bind.sources import Record

__all__ = ["SoundFolder", "SoundList", "everyday_sounds"]

_Patterns = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
_QT = ".rcc"


class SoundFolder(Settings, frozen=True, kw_only=True):
    """Sounds of one package.

    folder: below the unpacked package. sounds: by label, globs below it; behind a file of Qt
    resources (.rcc) globs of the names inside, where * spans slashes. recording: what ids begin
    with, the package's name where it is None.
    """

    package: str
    licence: str
    folder: str
    sounds: dict[str, _Patterns]
    recording: str | None = None


class SoundList(Settings, frozen=True, kw_only=True):
    """recipes/sounds.yaml."""

    folders: tuple[SoundFolder, ...]


def everyday_sounds(cache: Path, sounds: SoundList) -> list[Record]:
    """One record a file, in order of folder, label and pattern.

    cache: folder of unpacked packages. Raises ConfigError for a pattern that finds no file and
    for Qt resources that cannot be read.
    """
    return [
        Record(
            modality="audio",
            content=content,
            recording=f"{folder.recording or folder.package}/{name}",
            source=folder.package,
            licence=folder.licence,
            label=label,
        )
        for folder in sounds.folders
        for label, patterns in folder.sounds.items()
        for pattern in patterns
        for name, content in _found(cache / folder.package / folder.folder, pattern)
    ]


def _found(root: Path, pattern: str) -> list[tuple[str, Path | Window]]:
    """Name below `root`, without an ending, and content of each file."""
    file, resources, inner = pattern.partition(f"{_QT}/")
    found: list[tuple[str, Path | Window]]
    if resources:
        inside = _inside(root / f"{file}{_QT}")
        names = sorted(name for name in inside if fnmatchcase(name, inner))
        found = [(f"{file}/{_stem(name)}", _decoded(name, inside[name])) for name in names]
    else:
        paths = sorted(path for path in root.glob(pattern) if path.is_file())
        found = [(_stem(path.relative_to(root).as_posix()), path) for path in paths]
    if not found:
        raise ConfigError(f"{root}: no file of {pattern!r}, expected the unpacked package's")
    return found


_inside: Callable[[Path], dict[str, bytes]] = lru_cache(maxsize=8)(read_rcc)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _decoded(name: str, content: bytes) -> Window:
    try:
        data, rate_hz = soundfile.read(BytesIO(content), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as exc:
        raise ConfigError(f"{name}: cannot be read ({exc.error_string.strip()})") from exc
    t_ns = (np.arange(len(data)) * NS_PER_S) // rate_hz
    shape = data.shape[1:]
    info = StreamInfo("sound", "audio", "float32", shape, float(rate_hz), "full_scale")
    return Window(info, 0, int(t_ns[-1]) + 1, data, t_ns)
