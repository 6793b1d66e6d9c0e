"""Writing an .npz: any text may be a key, and a reader never sees half a file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np

from agent.errors import ConfigError
from agent.types import Array

__all__ = ["write_npz"]


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` by name, uncompressed, as numpy.load reads them; the same bytes each time.

    numpy.savez takes names as keyword arguments, so "file" could not be one. The file is written
    beside `path` and renamed. Raises ConfigError where that cannot be done.
    """
    temporary = None
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            with zipfile.ZipFile(file, "w") as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        os.chmod(temporary, 0o644)  # a temporary file is its owner's only
        os.replace(temporary, path)
    except OSError as exc:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ConfigError(
            f"{path}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
        ) from exc
