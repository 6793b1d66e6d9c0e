"""Writing an .npz: any text may be a key, and a reader never sees half a file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from agent.errors import ConfigError
from agent.types import Array

__all__ = ["write_npz"]


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` by name, uncompressed, as numpy.load reads them; the same bytes each time.

    numpy.savez takes names as keyword arguments, so "file" could not be one. The file is written
    beside `path` and renamed. Raises ConfigError where that cannot be done.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content.getbuffer())
        temporary.replace(path)
    except OSError as exc:
        with suppress(OSError):
            temporary.unlink()
        raise ConfigError(
            f"{path}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
        ) from exc
