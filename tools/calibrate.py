"""Learn from a quiet log what is ordinary for each query of a config, to begin with; and from
labelled ones what each of its streams should weigh.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace as with_fields
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from msgspec.structs import replace
from rich.progress import TimeRemainingColumn
from rich.table import Table

from agent.cli import run_command
from agent.config import Config, GateConfig, MatchConfig
from agent.config_file import load_config
from agent.core import Core
from agent.errors import ConfigError
from agent.match.calibrated import Calibration
from agent.match.calibration import Null, allowed
from agent.match.tail import Tail
from agent.replay import ReplayOptions, replay
from agent.types import StreamInfo
from tools.event_weights import LEAST_EVENTS, PEAKS, Weighed, learn_labelled
from tools.npz import write_npz
from tools.output import progress_bars, report_console

__all__ = ["main"]

EXAMPLE = """\
examples:
  python -m tools.calibrate --log quiet.mcap --config night.yaml --out night.npz
  python -m tools.calibrate --log 1_hour.mcap 2_hour.mcap --labels LABELS.json \\
      --config night.yaml --out night.npz
and in night.yaml:
  match: {calibration: night.npz, max_false_alarms_per_hour: 1}
"""
NEVER = GateConfig(enter=1.0, exit=1.0)  # all of a quiet log is ordinary, however high it comes


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m tools.calibrate`."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    asked = load_config(args.config, args.set)
    config = _listening(asked)
    weighed: list[Weighed] = []
    if args.labels is None:
        learned = _learn_quiet(config, args)
    else:
        if args.from_s or args.to_s is not None:
            raise ConfigError("--from, --to: with --labels, expected whole logs")
        match = asked.file.match
        rated = {q.named().id for q in asked.file.queries if allowed(q, match) is not None}
        learned, weighed = learn_labelled(config, rated, args.log, args.labels)
    write_npz(args.out, learned.arrays, learned.head)
    if not args.quiet:
        report_console().print(_table(learned, args.rate))
        if weighed:
            report_console().print(_weights_table(weighed))
    return 0


def _learn_quiet(config: Config, args: argparse.Namespace) -> Calibration:
    if len(args.log) > 1:
        raise ConfigError(f"--log: {len(args.log)} logs, expected one without --labels")
    (log,) = args.log
    cores: list[Core] = []
    with progress_bars(TimeRemainingColumn()) as bar:
        task = bar.add_task(log.name, total=None)

        def progress(first_ns: int, now_ns: int, duration_s: float) -> None:
            bar.update(task, completed=(now_ns - first_ns) / 1e9, total=duration_s)

        options = ReplayOptions(None, args.from_s, args.to_s)
        replay(config, log, options, lambda event: None, progress, on_streams=cores.append)
    return cores[0].matcher.learned()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.calibrate",
        description="Learn from a log in which nothing happens what is ordinary for each query of "
        "a config on each stream. A config names the file as match.calibration. With --labels "
        "things may happen in it: they are not learned, and each query that has a rate of false "
        f"alarms, two streams or more and {LEAST_EVENTS} labelled events is then asked by a "
        "weighted sum of its streams, with the weights that find most.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--log",
        type=Path,
        nargs="+",
        required=True,
        help="a quiet log, as tools.replay has; with --labels one or more, in order",
    )
    parser.add_argument(
        "--labels", type=Path, help="LABELS.json, as tools.evaluate events has: measure weights too"
    )
    parser.add_argument("--config", type=Path, required=True, help="queries and space")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override a config field"
    )
    parser.add_argument("--from", dest="from_s", type=float, default=0.0, metavar="S")
    parser.add_argument("--to", dest="to_s", type=float, metavar="S", help="seconds into the log")
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="N", help="false alarms an hour, of the table"
    )
    parser.add_argument("--quiet", action="store_true", help="print no table")
    return parser


def _listening(config: Config) -> Config:
    """The same with every query on and none ever firing, and nothing learned before."""
    if not config.file.queries:
        raise ConfigError("queries: none, expected those whose nulls are to be learned")
    match = replace(config.file.match, gate=NEVER, max_false_alarms_per_hour=None, calibration=None)
    queries = [
        replace(query, gate=None, max_false_alarms_per_hour=None, enabled=True)
        for query in config.file.queries
    ]
    return with_fields(config, file=replace(config.file, match=match, queries=queries))


def _table(learned: Calibration, per_hour: float) -> Table:
    table = Table(title=f"Learned in {learned.space}")
    for column in ("query", "stream", "hours", "cosine", f"z of {per_hour:g}/h", "over 1.5, /h"):
        table.add_column(column, justify="left" if column in ("query", "stream") else "right")
    count = len(learned.queries)
    rows = {key: row for row, key in enumerate(learned.queries)}
    for name, sense in sorted(learned.streams.items()):
        tail = Tail(1.0, np.zeros(count), np.zeros(count))
        null = Null(MatchConfig(), np.zeros(count), np.ones(count))
        learned.give(StreamInfo(name, sense, "float32", (), None, ""), rows, null, tail)
        levels, rates = tail.level(np.full(count, per_hour)), tail.rate
        for (query, _), row in rows.items():
            if tail.hours[row] > 0:
                cosine = f"{null.mean[row]:.3f} +- {null.deviation[row]:.3f}"
                told = (f"{tail.hours[row]:.2f}", cosine, f"{levels[row]:.2f}")
                table.add_row(query, name, *told, f"{rates[row]:.0f}")
    return table


def _weights_table(weighed: Sequence[Weighed]) -> Table:
    table = Table(
        title="Weights",
        caption=f"alone, together: share of events above the 1 to {PEAKS} highest other peaks",
    )
    names = sorted({name for each in weighed for name in each.weights})
    for column in ("query", "events", *names, "together"):
        table.add_column(column, justify="left" if column == "query" else "right")
    for each in weighed:
        cells = [
            f"{each.weights[name]:.1f}, alone {each.alone[name]:.2f}"
            if name in each.weights
            else "-"
            for name in names
        ]
        together = each.why or f"{each.together:.2f}"
        table.add_row(each.query, str(each.events), *cells, together)
    return table


if __name__ == "__main__":
    sys.exit(main())
