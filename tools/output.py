"""What tools give: files that are whole or not there, tables, and bars for whoever waits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from rich.console import Console
from rich.progress import Progress

from agent.clock import SystemClock, from_s
from agent.errors import ConfigError

__all__ = ["open_atomic", "progress", "report_console"]

T = TypeVar("T")

WIDTH = 120  # of a file or a pipe that a table is written to
PROGRESS_AFTER_NS = from_s(1.0)


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


def report_console() -> Console:
    """Standard output; what is no terminal is taken to be wide, or rich would cut tables at 80."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def progress(items: Collection[T], what: str) -> Iterator[T]:
    """The items; with a bar on stderr where a person waits for more than a second."""
    console = Console(stderr=True)
    clock = SystemClock()
    started_ns = clock.now_ns()
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(what, total=len(items))
    try:
        for item in items:
            if not bar.live.is_started and clock.now_ns() - started_ns > PROGRESS_AFTER_NS:
                bar.start()
            yield item
            bar.advance(task)
    finally:
        bar.stop()


def _cannot(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
    )
