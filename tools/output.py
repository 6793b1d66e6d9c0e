"""What tools give a person: tables, and bars for whoever waits."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from agent.clock import SystemClock, from_s

__all__ = ["progress", "progress_bars", "report_console"]

T = TypeVar("T")

WIDTH = 120  # of a file or a pipe that a table is written to
PROGRESS_AFTER_NS = from_s(1.0)


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


def progress_bars(
    *columns: ProgressColumn, console: Console | None = None, transient: bool = True
) -> Progress:
    """Bars of a description, how far it is and `columns`; nothing where there is no terminal.

    console: standard error where it is None. transient: bars go when all is done.
    """
    console = console or Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )
