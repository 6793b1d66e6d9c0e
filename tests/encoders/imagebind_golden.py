"""What the published model gives for made inputs, at a small size and with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Golden"]


@dataclass(frozen=True)
class Golden:
    """folder: config.json, state_dict.safetensors, inputs.npz and outputs.npz, by same names.

    A name is a tower's, with what is special of the input after a "_": "vision_clips".
    """

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "state_dict.safetensors"

    def of(self, tower: str) -> dict[str, tuple[NDArray, NDArray]]:
        """The inputs of `tower` and their outputs, by name; none where there are none."""
        with (
            np.load(self.folder / "inputs.npz") as given,
            np.load(self.folder / "outputs.npz") as wanted,
        ):
            names = [name for name in wanted.files if name.split("_")[0] == tower]
            return {name: (given[name], wanted[name]) for name in names}
