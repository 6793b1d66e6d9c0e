"""Writing an .npz in which any text may be a key."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agent.atomic import open_atomic
from agent.types import Array

__all__ = ["write_npz"]


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` by name, uncompressed, as numpy.load reads them; the same bytes each time.

    numpy.savez takes names as keyword arguments, so "file" could not be one. Whole or not there;
    raises ConfigError naming `path` where it cannot be written.
    """
    with open_atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
