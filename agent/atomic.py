"""Files that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from agent.errors import ConfigError

__all__ = ["open_atomic"]


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
    except BaseException as exc:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(exc, OSError) and exc.filename is None:  # a write; an open names its file
            raise _cannot(path, exc) from exc
        raise


def _cannot(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
    )
