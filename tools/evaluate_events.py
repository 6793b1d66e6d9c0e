"""How well a config finds what did happen in labelled logs, and how often it cries for nothing."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from agent.atomic import open_atomic
from agent.clock import to_s
from agent.config import Config
from agent.config_file import load_config
from agent.errors import ConfigError
from agent.replay import Tape
from tools.event_baselines import Point, Truth, cosines, curve, global_z, rarities, within
from tools.event_labels import labelled_spans
from tools.event_plots import draw
from tools.event_scores import Counts, Span, poisson_interval, quantile, total, wilson_interval
from tools.event_traces import Run, play
from tools.log_tape import shown_tape
from tools.output import report_console

__all__ = ["add_command"]

OURS, COSINE, GLOBAL_Z = "rarity", "fixed cosine", "global z"
DESCRIPTION = """\
Plays logs one after the other, as one run, and counts. An event finds what happened where it
starts in it, or within a window's length of its end; any other is a false alarm. Embeddings are
made once and kept beside each log (LOG.<space>.tape).

Intervals are of 95 %: Wilson's of recall, Garwood's of rates. delay: from onset to the event's
start. With --compare the same windows and gate under one threshold for all queries: a fixed cosine,
and a global z-score as Frigate computes it, each at the recall that the config has.

example:
  python -m tools.evaluate events --warm-up logs/audio/0_quiet.mcap \\
      --log logs/audio/1_hour.mcap logs/audio/2_hour.mcap --labels logs/audio/LABELS.json \\
      --config logs/audio/config.yaml --set match.max_false_alarms_per_hour=1 --compare
"""


def add_command(commands: Any) -> None:
    """Give `events` to the subparsers of tools/evaluate.py."""
    parser = commands.add_parser(
        "events",
        help="recall, false alarms an hour and delay on labelled logs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--log", type=Path, nargs="+", required=True, help="logs, in order")
    parser.add_argument("--labels", type=Path, required=True, help="LABELS.json")
    parser.add_argument("--config", type=Path, required=True, help="queries, space, thresholds")
    parser.add_argument(
        "--warm-up", type=Path, nargs="+", default=[], help="played first and not counted"
    )
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--target", type=float, default=1.0, help="false alarms an hour (1)")
    parser.add_argument("--compare", action="store_true", help="with other ways of a threshold")
    parser.add_argument("--every", type=float, metavar="MIN", help="false alarms by time")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="detection-error plot")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """`tools/evaluate.py events`."""
    config = load_config(args.config, args.set)
    if not config.file.queries:
        raise ConfigError(f"{args.config}: no queries, expected those that the labels name")
    tapes = [shown_tape(config, log) for log in (*args.warm_up, *args.log)]
    played = play(config, tapes, traced=bool(args.compare or args.plot))
    counted = list(zip(args.log, tapes[len(args.warm_up) :], strict=True))
    truth, levels = _truth(args.labels, config, counted, tapes[0].origin_ns, played.window_s)
    counts = truth.count(played.alarms)
    by_level = {
        level: total(Truth(own, truth.begin_s, truth.end_s, truth.slack_s).count(played.alarms))
        for level, own in levels.items()
    }
    told: dict[str, Any] = {
        "space": played.space,
        "hours": (truth.end_s - truth.begin_s) / 3600,
        "target": args.target,
        "queries": {name: _figures(own) for name, own in counts.items()},
        "all": _figures(total(counts)),
        "within_factor_two": within(counts, args.target),
        "recall_by_db": {
            level: {"recall": own.recall, "recall_95": wilson_interval(own.found, own.happened)}
            for level, own in by_level.items()
        },
    }
    console = report_console()
    console.print(_table(f"events in {played.space}", counts))
    parts = (f"{own.recall:.2f} at {level} dB" for level, own in by_level.items())
    console.print(f"recall {', '.join(parts)}")
    share = told["within_factor_two"]
    console.print(
        f"{share:.0%} of {len(counts)} queries within a factor of two of {args.target:g} an hour"
    )
    if args.every:
        told["by_time"] = _by_time(played, truth, args.every * 60)
        console.print(_time_table(told["by_time"]))
    if args.compare or args.plot:
        curves = _curves(config, played, truth)
        told["compared"] = _compared(curves, total(counts).recall, args.target)
        console.print(_compared_table(told["compared"]))
        if args.plot:
            draw(args.plot, curves, total(counts), f"{args.labels.parent.name}, {played.space}")
    if args.json:
        with open_atomic(args.json) as file:
            file.write(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
    return 0


def _truth(
    labels_path: Path,
    config: Config,
    logs: Sequence[tuple[Path, Tape]],
    origin_ns: int,
    slack_s: float,
) -> tuple[Truth, dict[str, dict[str, list[Span]]]]:
    """What happened, and the same by level in dB, for those that have one."""
    begins_s = {log.name: to_s(tape.origin_ns - origin_ns) for log, tape in logs}
    names = [query.named().id for query in config.file.queries]
    spans, levels = labelled_spans(labels_path, names, begins_s)
    end_s = to_s(logs[-1][1].end_ns - origin_ns)
    return Truth(spans, begins_s[logs[0][0].name], end_s, slack_s), levels


def _curves(config: Config, played: Run, truth: Truth) -> dict[str, list[Point]]:
    values = {OURS: rarities(played), COSINE: cosines(played), GLOBAL_Z: global_z(played)}
    gate = config.file.match.gate
    return {name: curve(played, own, truth, gate) for name, own in values.items()}


def _compared(
    curves: Mapping[str, Sequence[Point]], recall: float, target: float
) -> dict[str, dict[str, Any]]:
    """Of each curve the point of that recall, or its best; and that of the target's rate."""
    compared = {}
    for name, points in curves.items():
        equal = min(points, key=lambda point: abs(point.all.recall - recall))
        rated = min(points, key=lambda p: abs(math.log(max(p.all.per_hour, 1e-3) / target)))
        compared[name] = {
            "at_equal_recall": _point(equal, target),
            "at_target_rate": _point(rated, target),
        }
    return compared


def _point(point: Point, target: float) -> dict[str, Any]:
    rates = sorted(own.per_hour for own in point.counts.values())
    return {
        "threshold": point.threshold,
        "within_factor_two": within(point.counts, target),
        "highest_per_hour": rates[-1],
        "median_per_hour": rates[len(rates) // 2],
        **_figures(point.all),
    }


def _by_time(played: Run, truth: Truth, step_s: float) -> list[dict[str, Any]]:
    steps = []
    begin_s = truth.begin_s
    while begin_s < truth.end_s - 1:
        end_s = min(begin_s + step_s, truth.end_s)
        part = Truth(truth.spans, begin_s, end_s, truth.slack_s)
        figures = _figures(total(part.count(played.alarms)))
        steps.append({"from_min": begin_s / 60, "to_min": end_s / 60, **figures})
        begin_s = end_s
    return steps


def _figures(counts: Counts) -> dict[str, Any]:
    return {
        "happened": counts.happened,
        "found": counts.found,
        "recall": counts.recall,
        "recall_95": wilson_interval(counts.found, counts.happened),
        "false_alarms": counts.false,
        "hours": counts.hours,
        "per_hour": counts.per_hour,
        "per_hour_95": poisson_interval(counts.false, counts.hours),
        "delay_median_s": quantile(counts.delays_s, 0.5),
        "delay_p90_s": quantile(counts.delays_s, 0.9),
    }


def _table(title: str, counts: Mapping[str, Counts]) -> Table:
    table = Table(title=title)
    table.add_column("query")
    for name in ("events", "recall", "false alarms/h", "delay s", "p90"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = {**counts, "all": total(counts)} if len(counts) > 1 else counts
    for name, own in rows.items():
        table.add_row(name, *_cells(_figures(own)))
    return table


def _cells(figures: Mapping[str, Any]) -> list[str]:
    recall, rate = figures["recall_95"], figures["per_hour_95"]
    return [
        str(figures["happened"]),
        f"{figures['recall']:.2f} [{recall[0]:.2f}, {recall[1]:.2f}]",
        f"{figures['per_hour']:.2f} [{rate[0]:.2f}, {rate[1]:.2f}]",
        f"{figures['delay_median_s']:.1f}",
        f"{figures['delay_p90_s']:.1f}",
    ]


def _time_table(steps: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="by time")
    for name in ("minutes", "events", "recall", "false alarms/h and query", "delay s", "p90"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in steps:
        table.add_row(f"{step['from_min']:.0f} to {step['to_min']:.0f}", *_cells(step))
    return table


def _compared_table(compared: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="one threshold for all queries")
    for name in ("score", "at", "recall", "false alarms/h", "highest of a query", "within x2"):
        table.add_column(name, justify="left" if name in ("score", "at") else "right")
    for name, points in compared.items():
        for where, point in points.items():
            table.add_row(
                name,
                where.removeprefix("at_").replace("_", " "),
                f"{point['recall']:.2f}",
                f"{point['per_hour']:.2f}",
                f"{point['highest_per_hour']:.1f}",
                f"{point['within_factor_two']:.0%}",
            )
    return table
