"""A training's checkpoint: a file that is whole or not there.

Needs the extra `bind`.
"""

from __future__ import annotations

import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.extras import needs_extra

with needs_extra("bind"):
    import torch

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values beside `path` and rename; its folder is made where it is not
    there. Raises ConfigError.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(content, file)
        partial.replace(path)
    except OSError as exc:
        with suppress(OSError):  # there may be none, nor a folder
            partial.unlink()
        raise ConfigError(
            f"{path}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
        ) from exc


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What was written, tensors on `device`; runs no code that the file holds. Raises ConfigError
    for anything else.
    """
    # Of bytes that are no archive, torch's reader of the older format raises whatever comes.
    if not zipfile.is_zipfile(path):
        raise ConfigError(f"{path}: cut off or no archive, expected a training's checkpoint")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(
            f"{path}: cannot be read ({reason}), expected a training's checkpoint"
        ) from exc
    held: dict[str, Any] = content
    return held
