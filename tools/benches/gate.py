"""What a change gate would spare on a log of one's own, and what it would miss."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from agent.config_file import load_config
from agent.errors import ConfigError
from agent.replay import ReplayOptions, replay
from agent.types import Embedding
from agent.wire import Event
from tools.benches.common import make_table

__all__ = ["add_parser"]

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)


@dataclass
class _Run:
    """What one replay gave: embeddings by (stream, end), and events by id as they ended."""

    embeddings: dict[tuple[str, int], Embedding] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)

    def note(self, embedding: Embedding) -> None:
        self.embeddings[embedding.stream, embedding.end_ns] = embedding

    def note_event(self, event: Event) -> None:
        self.events[event.id] = event


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `gate` to the benchmarks."""
    parser = commands.add_parser(
        "gate",
        help="a log replayed with the change gate of one sense after the other at each threshold: "
        "encoder calls spared, events found as without it, re-used against true vectors",
    )
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True, help="with the queries to find")
    parser.add_argument("--senses", default="", help="comma list (default: all of the log)")
    parser.add_argument(
        "--thresholds",
        default=",".join(map(str, THRESHOLDS)),
        help="comma list (default %(default)s)",
    )
    parser.add_argument("--max-reuse-s", type=float, default=30.0, help="default %(default)s")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    thresholds = _numbers(args.thresholds)
    true = _replay(args.config, args.log, [])
    found = sorted({embedding.modality for embedding in true.embeddings.values()})
    senses = args.senses.split(",") if args.senses else found
    for sense in senses:
        if sense not in found:
            raise ConfigError(f"--senses: {sense!r} is not in {args.log}, which has {found}")
    figures: dict[str, Any] = {"log": str(args.log), "rows": []}
    tries = [(sense, threshold) for sense in senses for threshold in thresholds]
    for sense, threshold in track(tries, "replaying", console=Console(stderr=True), transient=True):
        tower = f"space.towers.{sense}"
        settings = [f"{tower}.change={threshold}", f"{tower}.max_reuse_s={args.max_reuse_s}"]
        gated = _replay(args.config, args.log, settings)
        figures["rows"].append(
            {"sense": sense, "threshold": threshold, **_compare(true, gated, sense)}
        )
    console.print(_table(figures["rows"]))
    return figures


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise ConfigError(f"--thresholds: got {text!r}, expected numbers and commas") from exc


def _replay(config: Path, log: Path, settings: Sequence[str]) -> _Run:
    run = _Run()
    replay(
        load_config(config, settings),
        log,
        ReplayOptions(),
        run.note_event,
        on_embedding=run.note,
    )
    return run


def _compare(true: _Run, gated: _Run, sense: str) -> dict[str, Any]:
    """calls_spared: of the windows of `sense`. recall: of the events without a gate that one of
    the same query overlaps with it; extra: of those with it that none overlaps without. cosines:
    of the re-used vectors with what the encoder would have given.
    """
    windows = [e for e in gated.embeddings.values() if e.modality == sense]
    cosines = [
        e.cosine(true.embeddings[e.stream, e.end_ns])
        for e in windows
        if e.reused and (e.stream, e.end_ns) in true.embeddings
    ]
    kept = sum(_overlaps(event, gated) for event in true.events.values())
    return {
        "windows": len(windows),
        "calls_spared": sum(e.reused for e in windows) / len(windows) if windows else 0.0,
        "events": len(true.events),
        "recall": kept / len(true.events) if true.events else None,
        "extra": sum(not _overlaps(event, true) for event in gated.events.values()),
        "cosine_mean": float(np.mean(cosines)) if cosines else None,
        "cosine_p05": float(np.percentile(cosines, 5)) if cosines else None,
    }


def _overlaps(event: Event, other: _Run) -> bool:
    return any(
        event.query.id == each.query.id
        and event.start_time.ns <= each.end_time.ns
        and each.start_time.ns <= event.end_time.ns
        for each in other.events.values()
    )


def _table(rows: Sequence[dict[str, Any]]) -> Any:
    headings = (
        "sense", "change", "windows", "calls spared", "events", "recall", "extra",
        "cosine mean", "p05",
    )  # fmt: skip
    return make_table(
        "with a change gate, against without",
        headings,
        [
            [
                row["sense"],
                f"{row['threshold']:g}",
                str(row["windows"]),
                f"{row['calls_spared']:.0%}",
                str(row["events"]),
                "-" if row["recall"] is None else f"{row['recall']:.2f}",
                str(row["extra"]),
                *(
                    "-" if row[c] is None else f"{row[c]:.3f}"
                    for c in ("cosine_mean", "cosine_p05")
                ),
            ]
            for row in rows
        ],
    )
