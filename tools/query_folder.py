"""Writing a folder of queries that tools/evaluate.py scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from agent.atomic import open_atomic
from agent.errors import ConfigError
from agent.types import Array
from tools.retrieval_queries import QUERIES_NAME

__all__ = ["SIDE", "QueryFolder"]

SIDE = 96  # of each half of a picture of two things, pixels


class QueryFolder:
    """Files by pool, and the lines about them, which are written last.

    Raises ConfigError where `path` has something in it.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"--out: {path} has something in it, expected a new folder")
        self._path = path
        self.lines: list[dict[str, Any]] = []

    def add(self, file: str, write: Callable[[Path], object]) -> str:
        """Write `file`, given with its pool; returns it. Raises ConfigError."""
        path = self._path / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        except OSError as exc:
            raise ConfigError(f"{path}: cannot be written ({exc.strerror or exc})") from exc
        return file

    def copy(self, pool: str, source: Path, stem: str = "") -> str:
        """A copy of `source` in `pool`."""
        name = f"{stem or source.stem}{source.suffix}"
        return self.add(f"{pool}/{name}", lambda path: shutil.copyfile(source, path))

    def picture(self, pool: str, stem: str, pixels: Array) -> str:
        """uint8 (height, width, 3) as a PNG in `pool`."""
        return self.add(f"{pool}/{stem}.png", lambda path: Image.fromarray(pixels).save(path))

    def ask(self, task: str, relevant: Sequence[str], **fields: Any) -> None:
        """One line; `relevant` and every path as they stand below the folder."""
        self.lines.append({"task": task, **fields, "relevant": list(relevant)})

    def write_queries(self) -> None:
        """All that was asked, as queries.jsonl. Raises ConfigError."""
        with open_atomic(self._path / QUERIES_NAME) as file:
            for line in self.lines:
                file.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())

    def square(self, file: str) -> NDArray[np.uint8]:
        """uint8 (SIDE, SIDE, 3): the middle of a picture that was added."""
        with Image.open(self._path / file) as picture:
            return np.asarray(ImageOps.fit(picture.convert("RGB"), (SIDE, SIDE)))
