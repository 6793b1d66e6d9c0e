"""compact's folder as it ships: of the folder that it was made in, what an agent needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from agent.atomic import open_atomic
from agent.errors import ConfigError
from encoders.manifest import MANIFEST_NAME, read_manifest

__all__ = ["copy_shipped", "name_background"]

ORDER = ("text", "image", "audio", "depth", "thermal", "imu")
# 17 to 22 MB each as fp32, of which 8 bits find as much.
EIGHT_BITS = ("image", "depth", "thermal")
CARD_NAME = "README.md"
HEAD = """\
# A model folder: docs/adr/0004-model-folders.md. What each precision measures is in README.md.
# Made by tools/make_compact.py. window: what the agent hands the tower live; a whole file is cut by
# the preprocessing itself.
"""


def copy_shipped(made: Path, to: Path) -> None:
    """Copy what ships of the folder `made` into `to`, which is empty.

    Raises ConfigError where a tower was not made.
    """
    read_manifest(made)
    space: dict[str, Any] = yaml.safe_load((made / MANIFEST_NAME).read_text(encoding="utf-8"))
    missing = [name for name in ORDER if name not in space["towers"]]
    if missing:
        raise ConfigError(f"{made}: no {', '.join(missing)}, expected every tower of {ORDER}")
    space["towers"] = {name: space["towers"][name] for name in ORDER}
    for name in EIGHT_BITS:
        space["towers"][name]["files"].pop("fp32", None)
    for entry in space["towers"].values():
        files = [*entry["files"].values(), *[entry[k] for k in ("tokenizer",) if k in entry]]
        for file in files:
            shutil.copyfile(made / file["path"], to / file["path"])
    shutil.copyfile(made / CARD_NAME, to / CARD_NAME)
    _write(to, space)


def name_background(folder: Path, entry: dict[str, Any]) -> None:
    """Name the bank of ordinary input, a file of the folder, in its space.yaml."""
    space = yaml.safe_load((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    _write(folder, space | {"background": entry})


def _write(folder: Path, space: dict[str, Any]) -> None:
    with open_atomic(folder / MANIFEST_NAME) as file:
        file.write((HEAD + yaml.safe_dump(space, sort_keys=False, width=120)).encode())
    read_manifest(folder)
