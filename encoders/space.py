"""A model folder, opened: towers of several senses and of text that share one space of vectors."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, cast

import numpy as np

from agent.contracts import Encoder, RuntimeOptions, TextEncoder
from agent.errors import ConfigError, EncodeFailed, ModelMismatch, ModelMissing
from agent.ordinary import nearness, ordinary
from agent.types import NAME_PATTERN, Array, Embedding
from encoders.files import read_file
from encoders.identity import read_versions, space_identity, tower_version
from encoders.manifest import (
    MANIFEST_NAME,
    SpaceSettings,
    TowerContext,
    TowerSettings,
    checked_path,
    convert,
    read_manifest,
)
from encoders.preprocess.base import Float32Array
from encoders.registry import find_plugin
from encoders.tower import OnnxTower

__all__ = ["ModelSpace", "open_space"]

TEXT = "text"
ENTRY_POINTS = "sensebind.encoders"


def open_space(path: str, options: RuntimeOptions) -> ModelSpace:
    """Read and check a model folder; loads nothing, so it is cheap.

    path: a folder with space.yaml, or the bare name of one that ships in encoders/models, such as
    "compact". Raises ModelMissing for a folder or file that is not there, ConfigError for a
    manifest or an option that is not right.
    """
    folder = _folder(path)
    settings = read_manifest(folder)
    kinds, entries = _entries(folder, settings)
    if options.precision is not None:
        offered = sorted({name for entry in entries.values() for name in entry.files})
        if options.precision not in offered:
            raise ConfigError(
                f"precision: {options.precision!r} is in no tower of {settings.name}, "
                f"expected one of {', '.join(offered)}"
            )
    used = [settings.background] if settings.background else []
    for entry in entries.values():
        used += [*entry.files[entry.chosen(options.precision)].parts(), *entry.extra_files()]
    for file in used:
        if not (folder / file.path).is_file():
            raise ModelMissing(f"{folder / file.path}: no such file, named in {MANIFEST_NAME}")
    identity = space_identity(settings, entries, options.precision)
    versions = {name: tower_version(settings, name, entry) for name, entry in entries.items()}
    if options.cache is not None:  # by content, so that no tower is run by another's engine
        options = replace(options, cache=options.cache / identity)
    towers = {
        modality: kinds[modality](
            entry, TowerContext(folder, modality, identity, settings.dim, options)
        )
        for modality, entry in entries.items()
    }
    return ModelSpace(folder, settings, identity, versions, towers)


class ModelSpace:
    """A contracts.Space. Made by `open_space`; its parts may be used by many threads."""

    def __init__(
        self,
        folder: Path,
        settings: SpaceSettings,
        identity: str,
        versions: Mapping[str, str],
        towers: Mapping[str, Any],
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._identity = identity
        self._versions = versions
        self._towers = dict(towers)
        self._background: dict[str, Float32Array] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def identity(self) -> str:
        """ "name@hash": 12 hex digits over every file in use and every preprocessing setting."""
        return self._identity

    @property
    def versions(self) -> Mapping[str, str]:
        """Of each tower, by sense: 12 hex digits over its fp32 file (that of its own precision
        where it has none) and its settings; what its background is stored with.
        """
        return self._versions

    @property
    def dim(self) -> int:
        return self._settings.dim

    @property
    def licence(self) -> str:
        return self._settings.licence

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(modality for modality in self._towers if modality != TEXT)

    @property
    def precision(self) -> str:
        """Of the senses' towers; "fp32+int8" where they differ."""
        return "+".join(sorted({self._towers[name].precision for name in self.modalities}))

    @property
    def provider(self) -> str:
        """Of the first tower that is loaded; empty before."""
        loaded = (self._towers[name].provider for name in self.modalities)
        return next((provider for provider in loaded if provider), "")

    def encoder(self, modality: str) -> Encoder:
        """The tower of `modality`, the same one each time. ConfigError where there is none."""
        return cast(Encoder, self._tower(modality))

    def text_encoder(self) -> TextEncoder:
        if TEXT not in self._towers:
            raise ConfigError(f"space {self.name} has no text tower, expected one for a text query")
        return cast(TextEncoder, self._towers[TEXT])

    def embed_file(self, path: str, modality: str) -> Embedding:
        """One unit vector for a whole file; loads the tower where it is not.

        Raises ConfigError for a file it cannot read, EncodeFailed for one the tower cannot use.
        """
        tower = self._tower(modality)
        window = read_file(path, modality)
        tower.load()
        try:
            embedding: Embedding = tower.encode([window])[0]
        except EncodeFailed as exc:
            raise EncodeFailed(f"{path}: {exc}") from exc
        return replace(embedding, stream="")

    def embed_views(self, path: str, modality: str) -> Float32Array:
        """float32 (k, dim): a unit vector for each window or crop of a file. As `embed_file`."""
        tower = self._tower(modality)
        if not isinstance(tower, OnnxTower):
            raise ConfigError(f"{modality} tower of {self.name}: has no views, expected kind tower")
        window = read_file(path, modality)
        tower.load()
        try:
            return tower.encode_views(window)
        except EncodeFailed as exc:
            raise EncodeFailed(f"{path}: {exc}") from exc

    def prior(self, vector: Array, modality: str) -> tuple[float, float]:
        """Mean and deviation of the cosine of a unit `vector` with ordinary input of `modality`.

        As agent.ordinary has it, of the nearness to each of `background`. Raises as that.
        """
        bank = self.background(modality)
        cosines = bank.reshape(-1, self.dim) @ vector.astype(np.float32)
        return ordinary(nearness(cosines.reshape(bank.shape[:2])), self.dim)

    def background(self, modality: str) -> Float32Array:
        """float32 (n, k, dim): unit vectors of n pieces of ordinary input, n is 0 where the folder
        has none. Of each first the whole; k is 1 but for a tower with views, which follow, and the
        whole again where a piece has fewer than others.

        The space's own: not to be written to. Raises ModelMissing or ModelMismatch.
        """
        self._tower(modality)
        bank = self._banks().get(modality)
        return np.empty((0, 1, self.dim), np.float32) if bank is None else bank

    def close(self) -> None:
        """Release every tower. Idempotent."""
        for tower in self._towers.values():
            tower.close()

    def _tower(self, modality: str) -> Any:
        if modality not in self.modalities:
            raise ConfigError(
                f"modality: space {self.name} has no tower for {modality!r}, "
                f"expected one of {', '.join(self.modalities)}"
            )
        return self._towers[modality]

    def _banks(self) -> dict[str, Float32Array]:
        with self._lock:
            if self._background is None:
                self._background = self._read_background()
            return self._background

    def _read_background(self) -> dict[str, Float32Array]:
        entry = self._settings.background
        if entry is None:
            return {}
        path = checked_path(self._folder, entry)
        with np.load(path, allow_pickle=False) as banks:
            found = {name: banks[name].astype(np.float32) for name in banks.files}
            told = read_versions(banks.zip.comment)
        for name in sorted(told.keys() & self._versions.keys()):
            if told[name] != self._versions[name]:
                raise ModelMismatch(
                    f"{path}: {name} vectors are of tower {told[name]}, expected of "
                    f"{self._versions[name]}; make them again: python -m tools.make_background "
                    f"--space {self._folder}"
                )
        return {name: self._bank(name, bank, path) for name, bank in found.items()}

    def _bank(self, modality: str, bank: Float32Array, path: Path) -> Float32Array:
        """As `background` gives it, of an array as the file has it."""
        tower = self._towers.get(modality)
        has_views = isinstance(tower, OnnxTower) and tower.has_views
        if bank.ndim != 2 + has_views or bank.shape[-1] != self.dim or not bank.size:
            shape = f"n >= 1, k of its views, {self.dim}" if has_views else f"n >= 1, {self.dim}"
            raise ModelMismatch(f"{path}: {modality} is {list(bank.shape)}, expected [{shape}]")
        return bank if has_views else bank[:, np.newaxis]


def _folder(path: str) -> Path:
    """A bare name is one of encoders/models, installed or not; anything else is a path."""
    if not re.fullmatch(NAME_PATTERN, path):
        return Path(path).expanduser()
    models = Path(str(package_files("encoders.models")))
    if not (models / path / MANIFEST_NAME).is_file():
        shipped = sorted(found.parent.name for found in models.glob(f"*/{MANIFEST_NAME}"))
        raise ModelMissing(
            f"space: {path!r} does not ship, expected one of {', '.join(shipped)}, "
            f"or a path such as ./{path}"
        )
    return models / path


def _entries(
    folder: Path, settings: SpaceSettings
) -> tuple[dict[str, Any], dict[str, TowerSettings]]:
    """The class and the checked settings of each tower."""
    kinds: dict[str, Any] = {}
    entries: dict[str, TowerSettings] = {}
    for modality, fields in settings.towers.items():
        where = f"{folder / MANIFEST_NAME}: towers.{modality}"
        rest = dict(fields)
        kind = find_plugin(str(rest.pop("kind", "")), "encoders", ENTRY_POINTS, f"{where}.kind")
        kinds[modality], entries[modality] = kind, convert(rest, kind.Config, where)
    return kinds, entries
