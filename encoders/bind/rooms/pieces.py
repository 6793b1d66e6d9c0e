"""Named models of furniture, out of the Debian package sweethome3d-furniture.

Needs the extra `bind`. An archive is a zip file of Wavefront models with a list of what they are
called, by whom and how large they are.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.errors import ConfigError
from agent.extras import needs_extra
from encoders.bind.splits import held_out
from encoders.preprocess.base import Float32Array

with needs_extra("bind"):
    import trimesh
    from trimesh.resolvers import ZipResolver

__all__ = ["FURNITURE", "Material", "Mesh", "Piece", "load_piece", "read_pieces"]

FURNITURE = "sweethome3d-furniture"
ARCHIVES = "usr/share/sweethome3d/furniture"
LIST = "PluginFurnitureCatalog.properties"
_FIELD = re.compile(r"(\w+)#(\d+)=(.*)")
_TURN = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
MANY_AUTHORS = "BlendSwap"
LARGEST_BYTES = 2_500_000  # of a model's text: a tree of a hundred thousand leaves costs minutes
TEXTURE = 128  # pixels a side at most: it is seen from metres away
SEEN_THROUGH = 0.5  # what is less opaque is glass


@dataclass(frozen=True)
class Piece:
    """One model as its archive lists it. name: what it is called there. author, licence: of the
    model. size_m: width, height, depth, of which its front is the near end. elevation_m: of its
    lower end above the floor. top_m: where things stand on it, above its lower end. turn: of the
    model to its front, 3 x 3 by rows.
    """

    archive: Path
    model: str
    name: str
    category: str
    author: str
    licence: str
    size_m: tuple[float, float, float]
    elevation_m: float
    top_m: float | None
    turn: tuple[float, ...]

    @property
    def catalogue(self) -> str:
        return self.archive.stem

    @property
    def source(self) -> str:
        return f"{FURNITURE}, {self.catalogue}"

    @property
    def recording(self) -> str:
        """As splits.recording_id: what is kept apart with it. Where a catalogue has many authors,
        all that one of them made.
        """
        own = self.author if self.catalogue.startswith(MANY_AUTHORS) else Path(self.model).stem
        return f"furniture/{self.catalogue}/{own}"

    @property
    def held_out(self) -> bool:
        """For validation: in no room that is trained on."""
        return held_out(self.recording)


@dataclass(frozen=True)
class Material:
    """colour: RGB, 0..1. texture: float32 (rows, columns, 3), 0..1, in its place; or None."""

    colour: tuple[float, float, float]
    texture: Float32Array | None = None


@dataclass(frozen=True)
class Mesh:
    """n triangles. corners: float32 (n, 3, 3) in m; x to the right, y up, z to the front; the
    middle of the lower end is the origin. uv: float32 (n, 3, 2), of the texture, v up. material:
    int64 (n,), numbers into `materials`.
    """

    corners: Float32Array
    uv: Float32Array
    material: NDArray[np.int64]
    materials: tuple[Material, ...]


def read_pieces(package: Path) -> list[Piece]:
    """All that is listed and not too large to be drawn, in order of the archives' names.

    package: the unpacked sweethome3d-furniture. Raises ConfigError where there is no archive, or
    one that cannot be read.
    """
    archives = sorted((package / ARCHIVES).glob("*.sh3f"))
    if not archives:
        raise ConfigError(f"{package}: no {ARCHIVES}/*.sh3f, expected the unpacked {FURNITURE}")
    return [piece for path in archives for piece in _listed(path)]


def _listed(path: Path) -> list[Piece]:
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(LIST).decode("latin-1")
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    except (OSError, zipfile.BadZipFile, KeyError) as exc:
        raise ConfigError(f"{path}: {exc}, expected a zip file with {LIST}") from exc
    licence = re.findall(r"^license=(.*?)(?:  |$)", text, re.MULTILINE)[0].strip()
    rows: dict[int, dict[str, str]] = {}
    for key, number, value in _FIELD.findall(text):
        rows.setdefault(int(number), {})[key] = value.strip()
    pieces = [_piece(path, row, licence) for row in rows.values()]
    return [piece for piece in pieces if sizes.get(piece.model, LARGEST_BYTES) < LARGEST_BYTES]


def _piece(path: Path, row: Mapping[str, str], licence: str) -> Piece:
    def metres(key: str) -> float:
        return float(row.get(key, 0)) / 100

    top_m = metres("dropOnTopElevation")
    return Piece(
        archive=path,
        model=row["model"].removeprefix("/"),
        name=row["name"],
        category=row["category"],
        author=row["creator"],
        licence=licence,
        size_m=(metres("width"), metres("height"), metres("depth")),
        elevation_m=metres("elevation"),
        top_m=top_m if top_m > 0 else None,
        turn=tuple(map(float, row.get("modelRotation", "").split())) or _TURN,
    )


@lru_cache(maxsize=48)
def load_piece(piece: Piece) -> Mesh:
    """Its triangles in the listed size, without its panes of glass where it is not all glass.
    Raises ConfigError for a model that cannot be read.
    """
    folder = PurePosixPath(piece.model).parent
    with zipfile.ZipFile(piece.archive) as archive:
        inside = [n for n in archive.namelist() if PurePosixPath(n).parent == folder]
        files = {PurePosixPath(n).name: BytesIO(archive.read(n)) for n in inside if n[-1] != "/"}
    try:
        scene = trimesh.load_scene(
            files[PurePosixPath(piece.model).name],
            file_type="obj",
            resolver=ZipResolver(files),
            process=False,
        )
    except (ValueError, IndexError, KeyError) as exc:
        raise ConfigError(f"{piece.archive}: {piece.model}: {exc}, expected a model") from exc
    parts = list(scene.geometry.values())
    solid = [part for part in parts if _opaque(part.visual)] or parts
    corners = np.concatenate([part.vertices[part.faces] for part in solid])
    turned = corners @ np.array(piece.turn).reshape(3, 3).T
    low, high = turned.min((0, 1)), turned.max((0, 1))
    origin = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    scale = np.array(piece.size_m) / np.maximum(high - low, 1e-6)
    return Mesh(
        ((turned - origin) * scale).astype(np.float32),
        np.concatenate([_uv(part) for part in solid]),
        np.repeat(np.arange(len(solid)), [len(part.faces) for part in solid]),
        tuple(_material(part.visual) for part in solid),
    )


def _opaque(visual: Any) -> bool:
    kwargs = getattr(getattr(visual, "material", None), "kwargs", {})
    return float(kwargs.get("d", [1])[0]) >= SEEN_THROUGH


def _uv(part: Any) -> Float32Array:
    uv = getattr(part.visual, "uv", None)
    if uv is None:
        return np.zeros((len(part.faces), 3, 2), np.float32)
    return np.asarray(uv[part.faces], np.float32)


def _material(visual: Any) -> Material:
    material = getattr(visual, "material", None)
    if material is None:
        return Material((0.7, 0.7, 0.7))
    red, green, blue = (float(value) / 255 for value in material.main_color[:3])
    texture = None
    if material.image is not None:
        small = material.image.convert("RGB")
        small.thumbnail((TEXTURE, TEXTURE), Image.Resampling.BOX)
        texture = np.asarray(small, np.float32) / np.float32(255)
    return Material((red, green, blue), texture)
