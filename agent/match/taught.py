"""A taught query's vector: from and to a file, and checked against the space that is run."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgspec
import numpy as np

from agent.config import Taught
from agent.errors import BadData, ConfigError, SpaceMismatch
from agent.types import Array, Embedding

__all__ = ["arrays_of", "read_taught", "taught_embedding"]

_TEXTS = ("space", "modality", "method", "source")


def arrays_of(taught: Taught) -> dict[str, Array]:
    """What a file of it holds: vector float32 (dim,), ordinary float64 (2,), and texts."""
    return {
        "vector": np.frombuffer(taught.vector, "<f4"),
        "ordinary": np.array(taught.ordinary, np.float64),
        **{name: np.array(getattr(taught, name)) for name in _TEXTS},
    }


def read_taught(path: Path) -> Taught:
    """What tools.teach wrote. Raises ConfigError for a file that is missing or not of that kind."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ConfigError(f"{path}: not a file, expected an .npz that tools.teach wrote")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            content = {
                **{name: str(arrays[name]) for name in _TEXTS},
                "vector": arrays["vector"].astype("<f4").tobytes(),
                "ordinary": arrays["ordinary"].tolist(),
            }
        return msgspec.convert(content, Taught)
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: no such file, expected one that tools.teach wrote") from exc
    # AttributeError: a lone array; KeyError: another .npz; the others: no .npz, or a damaged one.
    except (
        OSError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
    ) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(
            f"{path}: not a taught query ({reason}), expected an .npz that tools.teach wrote"
        ) from exc


def taught_embedding(taught: Taught, space: str, dim: int) -> Embedding:
    """The vector, for matching in `space`, an identity "name@hash", of `dim` dimensions.

    Raises SpaceMismatch for one of another space, ConfigError for one that is no unit vector.
    """
    if taught.space != space:
        again = (
            f"python -m tools.teach --space {space.split('@')[0]} {taught.source} --out FILE.npz"
            if taught.source
            else "query.teach or tools.teach"
        )
        raise SpaceMismatch(
            f"vector: was taught in {taught.space}, expected {space}; teach it again: {again}"
        )
    try:
        vector = np.frombuffer(taught.vector, "<f4").astype(np.float32)
        if len(vector) != dim:
            raise ConfigError(f"vector: has {len(vector)} values, expected {dim}")
        return Embedding(space, vector, taught.modality)
    except (ValueError, BadData) as exc:  # ValueError: no whole number of values
        raise ConfigError(f"vector: {exc}") from exc
