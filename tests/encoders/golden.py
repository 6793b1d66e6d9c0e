"""The golden vectors of the space that ships: what its towers gave when it was made.

They are of one space, by its hash. For a new one, from the checkout and with the shared data:

    python -m tests.encoders.golden
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from agent.contracts import RuntimeOptions
from agent.types import Array
from encoders.space import ModelSpace, open_space
from tests.conftest import CHECKOUT
from tools.npz import read_vectors, write_npz

__all__ = ["EMBEDDINGS", "golden_file", "golden_space", "make", "read"]

FOLDER = CHECKOUT / "tests" / "data" / "compact_golden"
EMBEDDINGS = FOLDER / "embeddings.npz"
AGAIN = "python -m tests.encoders.golden"


def golden_space(precision: str = "fp32") -> ModelSpace:
    return open_space("compact", RuntimeOptions(providers=("cpu",), precision=precision))


def golden_file(name: str, data: Path) -> Path:
    """A key's part after the sense: below the shared data, or beside the vectors."""
    own = name.removeprefix("golden|")
    return FOLDER / own if own != name else data / name.replace("|", "/")


def read(space: ModelSpace, path: Path = EMBEDDINGS) -> dict[str, Array]:
    """By "sense|file" or "text|words". Raises SpaceMismatch for those of another space."""
    return read_vectors(path, space.identity, AGAIN)


def make(path: Path, data: Path) -> None:
    """The same keys again, by the space as it is now."""
    space = golden_space()
    texts = space.text_encoder()
    texts.load()
    vectors = {}
    with np.load(EMBEDDINGS) as before:
        for key in before.files:
            sense, _, name = key.partition("|")
            if sense == "text":
                vectors[key] = texts.encode([name])[0].vector
            else:
                vectors[key] = space.embed_file(str(golden_file(name, data)), sense).vector
    write_npz(path, vectors, space.identity)


if __name__ == "__main__":
    make(EMBEDDINGS, Path(os.environ.get("SENSEBIND_DATA", CHECKOUT.parent / "shared" / "data")))
    print(f"{EMBEDDINGS}: of {golden_space().identity} now")
