"""An .npz in which any text may be a key, and vectors that say of which space they are."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agent.atomic import open_atomic
from agent.errors import ConfigError, SpaceMismatch
from agent.types import Array

__all__ = ["read_vectors", "write_npz"]

AGAIN = "python -m tools.embed --space {space} --modality SENSE FILES -o {path}"


def write_npz(path: Path, arrays: Mapping[str, Array], comment: str = "") -> None:
    """Write `arrays` by name, uncompressed, as numpy.load reads them; the same bytes each time.

    comment: the archive's; of vectors the identity "name@hash" of their space, which as an array of
    its own would take a name that a file or text may have.

    numpy.savez takes names as keyword arguments, so "file" could not be one. Whole or not there;
    raises ConfigError naming `path` where it cannot be written.
    """
    with open_atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.comment = comment.encode()
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_vectors(path: Path, space: str, again: str = AGAIN) -> dict[str, Array]:
    """What `write_npz` wrote of the space of that identity, "name@hash".

    again: the command that makes the file again, with places for `space` (its name) and `path`.
    Raises SpaceMismatch with it for vectors of another space, or that do not say of which;
    ConfigError for a file that is missing or no .npz.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            own = archive.zip.comment.decode()
            if own == space:
                return {name: archive[name] for name in archive.files}
    # AttributeError: a lone array.
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{path}: cannot be read ({reason}), expected an .npz") from exc
    command = again.format(space=space.split("@")[0], path=path)
    raise SpaceMismatch(
        f"{path}: vectors of {own or 'a space not told'}, expected those of {space}; "
        f"embed them again: {command}"
    )
