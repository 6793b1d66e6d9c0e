"""What binding a new tower and tuning one of ImageBind's have alike."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.progress import TextColumn, TimeElapsedColumn

from agent.clock import SystemClock, to_s
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from agent.types import Window
from encoders.bind.binding import BindRecipe
from encoders.bind.pairs import (
    Collector,
    Source,
    labelled_files,
    paired_files,
    parse_source,
)
from encoders.bind.schedule import TrainConfig
from encoders.files import read_file
from encoders.space import ModelSpace, open_space
from tools.bind_logs import Cut, log_pairs
from tools.output import progress_bars

if TYPE_CHECKING:
    from torch import nn

    from encoders.bind.examples import Examples
    from encoders.bind.train import Augment, Fitted

__all__ = [
    "MINUTES",
    "TEXT",
    "asked_pairs",
    "asked_training",
    "fit_told",
    "gather",
    "latency_ms",
]

TEXT = "text"
STRETCH_S = 10.0
MINUTES = 5.0  # to train, where nothing says how long
TIMED_CALLS = 30


def asked_pairs(args: argparse.Namespace) -> tuple[list[Source], str]:
    """The sources of --pairs, and the anchor: --anchor, or text where all of them are labels, or
    else pictures. Raises ConfigError for a source that is not well formed.
    """
    sources = [parse_source(text) for text in args.pairs]
    labels = all(source.kind == "labels" for source in sources)
    return sources, args.anchor or (TEXT if labels else "image")


def asked_training(args: argparse.Namespace, recipe: BindRecipe) -> TrainConfig:
    """The recipe's training for --minutes or --steps, for MINUTES where nobody says how long.

    Raises ConfigError for what does not fit.
    """
    minutes = args.minutes
    if minutes is None and args.steps is None and not {"minutes", "steps"} & recipe.train.keys():
        minutes = MINUTES
    return recipe.config(minutes, args.steps, args.seed)


def gather(source: Source, collector: Collector, recipe: BindRecipe, modality: str) -> None:
    """Everything a source has, into `collector`. Raises ConfigError for what cannot be read."""
    if source.kind == "labels":
        for row in labelled_files(source.path):
            collector.labelled(read_file(str(row.file), modality), row.label, row.recording)
        return
    if collector.anchor == TEXT:
        raise ConfigError(f"--pairs: {source.kind}:{source.path} has no text, expected labels:")
    if source.kind == "folders":
        for own, other, recording in paired_files(source):
            window = read_file(str(own), modality)
            collector.pair(window, read_file(str(other), collector.anchor), recording)
        return
    anchor = collector.space.encoder(collector.anchor)
    for window, partner, recording in log_pairs(
        source.path,
        Cut(source.needed("sense"), modality, recipe.spec()),
        Cut(source.needed("anchor"), collector.anchor, anchor.window),
        source.number("stretch", STRETCH_S),
    ):
        collector.pair(window, partner, recording)


def fit_told(
    tower: nn.Module,
    train: Examples,
    dev: Examples,
    config: TrainConfig,
    work: Path,
    augment: Augment | None,
    resume: bool,
) -> Fitted:
    """train.fit on a GPU where there is one, with a bar on stderr where a person reads it; the
    tower ends on the CPU.
    """
    from encoders.bind.precision import training_device
    from encoders.bind.train import fit

    tower.to(training_device())

    with progress_bars(TextColumn("{task.fields[told]}"), TimeElapsedColumn()) as bar:
        task = bar.add_task("training", total=1.0, told="")

        def progress(step: object) -> None:
            share, loss, recall = (getattr(step, name) for name in ("share", "loss", "recall"))
            bar.update(task, completed=share, told=f"loss {loss:.3f}, dev recall@1 {recall:.3f}")

        fitted = fit(tower, train, dev, config, work, augment, progress, resume=resume)
    tower.cpu()
    return fitted


def latency_ms(
    folder: Path, modality: str, precision: str, windows: Sequence[Window], threads: int
) -> float:
    """Median of one window, preprocessing included, by the space as it is written."""
    space: ModelSpace = open_space(
        str(folder.absolute()),
        RuntimeOptions(providers=("cpu",), threads=threads, precision=precision),
    )
    encoder, clock, took_ns = space.encoder(modality), SystemClock(), []
    encoder.load()
    for i in range(TIMED_CALLS):
        started_ns = clock.now_ns()
        encoder.encode([windows[i % len(windows)]])
        took_ns.append(clock.now_ns() - started_ns)
    space.close()
    return 1000 * to_s(round(median(took_ns)))
