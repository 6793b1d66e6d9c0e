"""Files and folders that are whole or not there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from agent.errors import ConfigError

__all__ = ["open_atomic", "whole_folder"]


@contextmanager
def open_atomic(path: Path) -> Iterator[BinaryIO]:
    """Write beside `path` and rename at the end; on an error nothing is left behind.

    Raises ConfigError naming `path` where it cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as exc:
        raise _cannot(path, exc) from exc
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp makes it private; this is an output
        Path(temporary).replace(path)
    except OSError as exc:
        if exc.filename is None:  # a write; an open names its file
            raise _cannot(path, exc) from exc
        raise
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give PATH.partial, which the block makes and fills, and rename it at the end; on an error
    nothing is left behind. What a killed run left of it is taken away first.

    Raises ConfigError naming `path` where the folder cannot have that name.
    """
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError as exc:
            raise _cannot(path, exc) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _cannot(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
    )
