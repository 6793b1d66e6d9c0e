"""A trained tower as ONNX files in a model folder, each held against the tower in torch.

Needs the extra `bind`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import yaml

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, EncoderError
from agent.extras import needs_extra
from agent.types import Array, Settings
from encoders.bind.onnx_graph import free_rows, traced
from encoders.bind.quantise import quantise
from encoders.bind.recall import embed
from encoders.manifest import (
    MANIFEST_NAME,
    ModelFile,
    SpaceSettings,
    convert,
    read_entry,
    read_manifest,
)
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.preprocess.views import MapSettings
from encoders.providers import make_session
from encoders.registry import find_plugin
from encoders.space import open_space
from encoders.tower import OnnxTower, PreprocessSettings, WindowSettings

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = ["FLOORS", "INPUT", "OUTPUT", "Exported", "Graph", "NewSpace", "write_tower"]

INPUT, OUTPUT = "input", "embedding"
PARTIAL = ".partial"
HEADER = "# Towers are written by encoders/bind; the data card says what they were made from.\n"

# Least cosine with torch, of any view that judges. A file under it is not kept.
FLOORS = {"fp32": 0.9999, "int8": 0.98}

# Ranges of activations settle after some dozens of views; the prototype took 96.
MOST_VIEWS = 96


class NewSpace(Settings, frozen=True, kw_only=True):
    """What a folder without space.yaml is to say of itself."""

    name: str
    licence: str
    description: str = ""


class Exported(NamedTuple):
    """A file of one precision. least, mean: cosine with torch over `views` views that calibrated
    nothing. kept: whether it is in the folder; under the floor it is not.
    """

    file: ModelFile
    least: float
    mean: float
    views: int
    kept: bool


class Graph(Protocol):
    """What can be a tower's file and is no torch module alone."""

    @property
    def max_batch(self) -> int | None:
        """Most rows it takes at once, as ModelFile has it."""

    def vectors(self, views: Sequence[Float32Array]) -> Float32Array:
        """float32 (n, dim): what the file is held against, of each view all that it gives."""

    def write(self, path: Path) -> None:
        """As ONNX in float32, from INPUT (n, *view) to OUTPUT (n, dim), ready to be quantised."""


def write_tower(
    folder: Path,
    modality: str,
    tower: nn.Module | Graph,
    views: Sequence[Float32Array],
    *,
    window: WindowSettings,
    preprocess: PreprocessSettings,
    new: NewSpace | None = None,
    precision: str = "fp32",
    floors: Mapping[str, float] = FLOORS,
    parts: MapSettings | None = None,
) -> dict[str, Exported]:
    """Write MODALITY.onnx and MODALITY.int8.onnx into a model folder, and the tower's entry into
    its space.yaml in place of one that is there; then open the folder and load the tower.

    views: at least two, float32 of the preprocessing's shape, of ordinary input: every other one
    sets the ranges of int8 activations, the others judge, MOST_VIEWS of each at most. precision:
    the one run by default, fp32 where its file is not near enough. new: for a folder that has no
    space.yaml yet. parts: what the module gives beside its vectors, (n, k, dim); judged with them.
    Other `views` that an entry asks for stay where its preprocessing does.

    Raises ConfigError for a folder, entry or views that do not fit, EncoderError where the fp32
    file is under its floor; then the folder is as it was.
    """
    if len(views) < 2:
        raise ConfigError(f"views: {len(views)}, expected at least 2 to calibrate and judge with")
    _check_shape(modality, preprocess, views[0].shape)
    chosen = [
        views[i] for i in np.linspace(0, len(views) - 1, min(len(views), 2 * MOST_VIEWS), dtype=int)
    ]
    calibration, judging = chosen[::2], chosen[1::2]
    outputs = (OUTPUT,) if parts is None else (OUTPUT, parts.output)
    graph = _TorchGraph(tower, views[0].shape, outputs) if isinstance(tower, nn.Module) else tower
    expected = graph.vectors(judging)
    space = _space(folder, new, expected.shape[1])
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        whole, small = partial / f"{modality}.onnx", partial / f"{modality}.int8.onnx"
        graph.write(whole)
        quantise(whole, small, calibration)
        made = {
            name: _judged(path, judging, expected, floors[name], graph.max_batch)
            for name, path in (("fp32", whole), ("int8", small))
        }
        if not made["fp32"].kept:
            raise EncoderError(
                f"{modality} fp32: least cosine with torch is {made['fp32'].least:.6f}, expected "
                f"at least {floors['fp32']:g}"
            )
        files = {name: exported.file for name, exported in made.items() if exported.kept}
        before = space["towers"].get(modality, {})
        entry = _entry(files, precision, window, preprocess)
        # Which parts of a frame it looks at is the folder's choice, not that of a training.
        asked = before.get("views") or {}
        if parts is not None:
            entry["views"] = {"map": msgspec.to_builtins(parts)}
        elif asked and "map" not in asked and before["preprocess"]["name"] == preprocess.name:
            entry["views"] = asked
        space["towers"][modality] = entry
        convert(space, SpaceSettings, MANIFEST_NAME)
        text = yaml.safe_dump(space, sort_keys=False, allow_unicode=True, default_flow_style=None)
        (partial / MANIFEST_NAME).write_text(HEADER + text, encoding="utf-8")
        for name in (*(file.path for file in files.values()), MANIFEST_NAME):
            (partial / name).replace(folder / name)
        if "int8" not in files:  # an earlier tower's
            (folder / small.name).unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{folder}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
        ) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    opened = open_space(str(folder.resolve()), RuntimeOptions(providers=("cpu",)))
    try:
        opened.encoder(modality).load()
    finally:
        opened.close()
    return made


def _check_shape(modality: str, preprocess: PreprocessSettings, shape: tuple[int, ...]) -> None:
    field = f"towers.{modality}.preprocess"
    plugin = find_plugin(
        preprocess.name, "encoders.preprocess", "sensebind.preprocess", f"{field}.name"
    )
    made: Preprocess = convert(preprocess.parameters, plugin, f"{field}.parameters")
    if made.shape != shape:
        raise ConfigError(
            f"{field}: {preprocess.name} makes views of {list(made.shape)}, expected those of "
            f"training, {list(shape)}"
        )


def _space(folder: Path, new: NewSpace | None, dim: int) -> dict[str, Any]:
    """The manifest as it is, or a new one without towers."""
    if not (folder / MANIFEST_NAME).exists() and new is not None:
        return {"version": 1, "dim": dim, **msgspec.to_builtins(new), "towers": {}}
    settings = read_manifest(folder)
    if settings.dim != dim:
        raise ConfigError(
            f"{folder / MANIFEST_NAME}: dim is {settings.dim}, expected {dim} of the tower"
        )
    # As it was written: a parameter that is null must stay, or its class would miss it.
    space: dict[str, Any] = yaml.safe_load((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    return space


def _entry(
    files: Mapping[str, ModelFile],
    precision: str,
    window: WindowSettings,
    preprocess: PreprocessSettings,
) -> dict[str, Any]:
    entry = {
        "precision": precision if precision in files else "fp32",
        "files": {
            name: {
                "path": file.path,
                "bytes": file.bytes,
                "sha256": file.sha256,
                **({"max_batch": file.max_batch} if file.max_batch else {}),
            }
            for name, file in files.items()
        },
        "input": INPUT,
        "output": OUTPUT,
        "window": msgspec.to_builtins(window),
        "preprocess": msgspec.to_builtins(preprocess),
    }
    convert(entry, OnnxTower.Config, MANIFEST_NAME)
    return {"kind": "tower", **entry}


def _judged(
    path: Path,
    views: Sequence[Float32Array],
    expected: Float32Array,
    floor: float,
    max_batch: int | None,
) -> Exported:
    session = make_session(path, RuntimeOptions(providers=("cpu",)))
    rows = [vector for view in views for vector in session.run(None, {INPUT: view[np.newaxis]})]
    vectors = np.concatenate([row.reshape(-1, row.shape[-1]) for row in rows])
    cosines: Array = (vectors * expected).sum(axis=1, dtype=np.float64)
    least = float(cosines.min())
    own = read_entry(path)
    file = ModelFile(path=own.path, bytes=own.bytes, sha256=own.sha256, max_batch=max_batch)
    return Exported(file, least, float(cosines.mean()), len(views), least >= floor)


class _TorchGraph:
    """A Graph of a module."""

    max_batch = None

    def __init__(self, tower: nn.Module, shape: tuple[int, ...], outputs: Sequence[str]) -> None:
        self._tower, self._shape, self._outputs = tower, shape, outputs

    def vectors(self, views: Sequence[Float32Array]) -> Float32Array:
        return embed(self._tower if len(self._outputs) == 1 else _Joined(self._tower), views)

    def write(self, path: Path) -> None:
        tower, was = self._tower, self._tower.training
        device = next(tower.parameters()).device
        tower.eval()
        example = torch.zeros(2, *self._shape, device=device)
        program = traced(tower, example, {0: free_rows()}, (INPUT, *self._outputs))
        tower.train(was)
        program.save(path)


class _Joined(nn.Module):
    """Of a tower that gives parts too, each row's vector and then those of its parts."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, views: Tensor) -> Tensor:
        whole, parts = self.tower(views)
        return torch.cat([whole.unsqueeze(1), parts], 1).flatten(0, 1)
