"""A package of furniture like sweethome3d-furniture, of boxes."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["BOX", "write_furniture"]

_CORNERS = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
_SIDES = ["1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4"]
BOX = "\n".join(
    [
        "mtllib box.mtl",
        *(f"v {x} {y} {z}" for x, y, z in _CORNERS),
        "usemtl red",
        *(f"f {side}" for side in _SIDES),
    ]
)
_MATERIAL = "newmtl red\nKd 0.8 0.1 0.1\nd 1.0\n"


def write_furniture(
    package: Path, pieces: dict[str, tuple[float, float, float]], catalogue: str = "Boxes"
) -> Path:
    """An archive of boxes: name to width, height, depth in cm. Returns `package`."""
    folder = package / "usr/share/sweethome3d/furniture"
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["license=Public domain  (c) nobody"]
    with zipfile.ZipFile(folder / f"{catalogue}.sh3f", "w") as archive:
        for number, (name, (width, height, depth)) in enumerate(pieces.items(), 1):
            rows += [
                f"name#{number}={name}",
                f"category#{number}=Living room",
                f"model#{number}=/boxes/box{number}/box.obj",
                f"width#{number}={width}",
                f"height#{number}={height}",
                f"depth#{number}={depth}",
                f"creator#{number}=Somebody {number}",
            ]
            archive.writestr(f"boxes/box{number}/box.obj", BOX)
            archive.writestr(f"boxes/box{number}/box.mtl", _MATERIAL)
        archive.writestr("PluginFurnitureCatalog.properties", "\n".join(rows))
    return package
