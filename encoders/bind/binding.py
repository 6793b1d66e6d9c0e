"""How a sense is bound: its recipe in YAML, and the folder that its tower is put into."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from importlib.resources import files as package_files
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import yaml

from agent.errors import ConfigError
from agent.types import NAME_PATTERN, Settings, WindowSpec
from encoders.bind.pairs import TEMPLATES
from encoders.bind.schedule import TrainConfig
from encoders.identity import read_versions
from encoders.manifest import MANIFEST_NAME, SpaceSettings, convert, read_entry, read_manifest
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.registry import find_plugin
from encoders.tower import PreprocessSettings, WindowSettings

__all__ = ["BACKGROUND_ROWS", "BindRecipe", "base_folder", "copy_base", "read_recipe"]

BACKGROUND_ROWS = 256


class BindRecipe(Settings, frozen=True, kw_only=True):
    """window, preprocess: as in space.yaml; where one is left out, that of the base's own tower of
    the sense. augment: a name of augment.AUGMENTS or "none", the preprocessing's own where it is
    left out. templates: texts of a label, {} its place. dev: share of the recordings that are kept
    out of training. train: fields of schedule.TrainConfig.
    """

    window: WindowSettings | None = None
    preprocess: PreprocessSettings | None = None
    augment: str | None = None
    templates: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = TEMPLATES
    dev: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.2
    train: dict[str, Any] = msgspec.field(default_factory=dict)

    def spec(self) -> WindowSpec:
        """What the sense's tower looks at of a stream."""
        assert self.window is not None  # read_recipe fills it in
        return WindowSpec(
            self.window.length_s, self.window.hop_s, self.window.ticks, self.window.spread
        )

    def made(self) -> Preprocess:
        """The preprocessing, its parameters checked. Raises ConfigError."""
        assert self.preprocess is not None  # as above
        plugin = find_plugin(
            self.preprocess.name, "encoders.preprocess", "sensebind.preprocess", "preprocess.name"
        )
        made: Preprocess = convert(self.preprocess.parameters, plugin, "preprocess.parameters")
        return made

    def config(self, minutes: float | None, steps: int | None, seed: int) -> TrainConfig:
        """How it is trained; `minutes` or `steps` in place of the recipe's. Raises ConfigError."""
        fields = {**self.train, "seed": seed}
        if minutes is not None or steps is not None:
            fields = {**fields, "minutes": minutes, "steps": steps}
        config: TrainConfig = convert(fields, TrainConfig, "train")
        return config


def base_folder(space: str) -> Path:
    """The folder that encoders.space.open_space opens."""
    if re.fullmatch(NAME_PATTERN, space):
        return Path(str(package_files("encoders.models"))) / space
    return Path(space).expanduser()


def read_recipe(path: Path | None, base: SpaceSettings, modality: str) -> BindRecipe:
    """The recipe in a file, or with None that of the base's own tower of `modality`.

    Raises ConfigError for what is not right, and where neither tells window and preprocessing.
    """
    content: Any = {}
    if path is not None:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            reason = " ".join(str(exc).split())
            raise ConfigError(f"{path}: cannot be read ({reason}), expected a recipe") from exc
    where = str(path) if path else f"tower {modality} of {base.name}"
    own = {
        name: base.towers[modality][name]
        for name in ("window", "preprocess")
        if name in base.towers.get(modality, {})
    }
    if isinstance(content, dict):
        content = {**own, **content}
    recipe: BindRecipe = convert(content, BindRecipe, where)
    for name in ("window", "preprocess"):
        if getattr(recipe, name) is None:
            raise ConfigError(
                f"--recipe: no {name}, and {base.name} has no tower of {modality!r} to take it "
                f"from, expected a recipe that says it"
            )
    return recipe


def copy_base(
    base: Path, folder: Path, modality: str, name: str, licence: str, bank: Float32Array
) -> None:
    """The base's towers but that of `modality` in a new `folder`, linked where that can be done.

    bank: (n, dim) vectors of ordinary input of the sense, for its calibration prior; spread over
    it, BACKGROUND_ROWS are kept. Raises ConfigError where it cannot be written.
    """
    manifest = yaml.safe_load((base / MANIFEST_NAME).read_text(encoding="utf-8"))
    settings = read_manifest(base)
    manifest["name"], manifest["licence"] = name, licence
    manifest["towers"].pop(modality, None)
    banks: dict[str, Any] = {}
    versions: dict[str, str] = {}
    if settings.background:
        with np.load(base / settings.background.path, allow_pickle=False) as own:
            banks = {sense: own[sense] for sense in own.files}
            versions = read_versions(own.zip.comment)
    versions.pop(modality, None)  # the tower has no file yet
    rows = np.linspace(0, len(bank) - 1, min(len(bank), BACKGROUND_ROWS)).astype(np.int64)
    banks[modality] = bank[rows].astype(np.float16)
    try:
        folder.mkdir(parents=True)
        for file in _named(manifest["towers"]):
            _link(base / file, folder / file)
        background = folder / "background.npz"
        np.savez(background, **banks)
        with zipfile.ZipFile(background, "a") as archive:
            archive.comment = msgspec.json.encode(versions)
        manifest["background"] = msgspec.to_builtins(read_entry(background))
        text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{folder}: cannot be written ({exc.strerror or exc})") from exc


def _named(value: Any) -> Iterator[str]:
    """Every file that an entry of a manifest names, wherever its kind puts it."""
    if not isinstance(value, dict):
        return
    if "sha256" in value:
        yield str(value["path"])
    for below in value.values():
        yield from _named(below)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
