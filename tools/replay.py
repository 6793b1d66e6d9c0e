"""Play a recorded log through the agent's own path: events and a summary out."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from agent.atomic import open_atomic
from agent.cli import EventPrinter, run_command
from agent.config import Config, QueryConfig
from agent.config_file import build_config, load_config
from agent.errors import ConfigError
from agent.replay import ReplayOptions, replay
from agent.wire import Event, encode
from tools.output import progress_bars, report_console
from tools.replay_diff import Told, changes, table, told

__all__ = ["main"]

EXAMPLE = """\
examples:
  python -m tools.replay --log configs/demo/demo.mcap --query "a cat"
  python -m tools.replay --log night.mcap --config configs/demo.yaml --events night.jsonl
  python -m tools.replay --log night.mcap --config now.yaml --diff stricter.yaml
  python -m tools.replay --log walk.bag --from 10 --to 40 --summary walk.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m tools.replay`."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    config = load_config(args.config, args.set) if args.config else build_config({}, args.set)
    asked = [QueryConfig(text=text) for text in args.query]
    file = msgspec.structs.replace(config.file, queries=[*config.file.queries, *asked])
    options = ReplayOptions(_speed(args.speed), args.from_s, args.to_s)
    if args.diff:
        other = load_config(args.diff, args.set)
        return _diff(with_fields(config, file=file), other, args, options)
    if args.json:
        raise ConfigError("--json: only of a --diff, expected --events for those of one replay")
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open_atomic(args.events)) if args.events else None
        bar = stack.enter_context(_bars())
        task = bar.add_task(args.log.name, total=None)
        printer: EventPrinter | None = None

        def progress(first_ns: int, now_ns: int, duration_s: float) -> None:
            nonlocal printer
            if printer is None:
                printer = EventPrinter(first_ns, sys.stdout)
            bar.update(task, completed=(now_ns - first_ns) / 1e9, total=duration_s)

        def on_event(event: Event) -> None:
            if out is not None:
                out.write(encode(event) + b"\n")
            if printer is not None and not args.quiet:
                printer(event)

        summary = replay(with_fields(config, file=file), args.log, options, on_event, progress)
    if args.summary:
        with open_atomic(args.summary) as written:
            written.write(json.dumps(summary, indent=2).encode() + b"\n")
    if not args.quiet:
        _print(summary)
    return 0


def _diff(before: Config, after: Config, args: argparse.Namespace, options: ReplayOptions) -> int:
    """Replay twice and tell what differs."""
    found = changes(_told(before, args, options), _told(after, args, options))
    if args.json:
        with open_atomic(args.json) as written:
            content = [change.as_dict() for change in found]
            written.write(json.dumps(content, indent=2).encode() + b"\n")
    if not args.quiet:
        report_console().print(table(found))
    return 0


def _told(config: Config, args: argparse.Namespace, options: ReplayOptions) -> list[Told]:
    events: list[Event] = []
    began_ns = 0
    with _bars() as bar:
        task = bar.add_task(args.log.name, total=None)

        def progress(first_ns: int, now_ns: int, duration_s: float) -> None:
            nonlocal began_ns
            began_ns = first_ns
            bar.update(task, completed=(now_ns - first_ns) / 1e9, total=duration_s)

        replay(config, args.log, options, events.append, progress)
    return told(events, began_ns)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.replay",
        description="Play a recorded log through the agent's own path. Reads our MCAP logs, "
        "ROS 2 MCAP, ROS 1 and 2 bags, VRS and IMU CSV.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--log", type=Path, required=True, help="the log: a file, or a ROS 2 bag")
    parser.add_argument("--config", type=Path, help="queries, space and thresholds (default: none)")
    parser.add_argument(
        "--query", action="append", default=[], metavar="TEXT", help="ask this too; may repeat"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override a config field"
    )
    parser.add_argument(
        "--speed", default="max", metavar="N|max", help="times real time (default: max)"
    )
    parser.add_argument(
        "--from", dest="from_s", type=float, default=0.0, metavar="S", help="start S s in"
    )
    parser.add_argument("--to", dest="to_s", type=float, metavar="S", help="stop S s in")
    parser.add_argument("--events", type=Path, metavar="OUT.jsonl", help="one event a line")
    parser.add_argument("--summary", type=Path, metavar="OUT.json", help="counts a stream")
    parser.add_argument(
        "--diff",
        type=Path,
        metavar="OTHER.yaml",
        help="replay under this config too, and tell which events appear, vanish and move",
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="what --diff found")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    return parser


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigError(f"--speed: got {text!r}, expected a number above 0, or max")
    return speed


def _bars() -> Progress:
    return progress_bars(
        TextColumn("{task.completed:.1f} of {task.total:.1f} s"), TimeRemainingColumn()
    )


def _print(summary: dict[str, Any]) -> None:
    table = Table(title=str(summary["log"]), title_justify="left")
    for heading in ("topic", "messages", "lost", "from s", "to s"):
        table.add_column(heading, justify="left" if heading == "topic" else "right")
    streams = summary["streams"]
    origin_ns = min((s["first_ns"] for s in streams.values() if s["messages"]), default=0)
    for topic, counts in streams.items():
        spans = [
            f"{(counts[end] - origin_ns) / 1e9:.2f}" if counts["messages"] else "-"
            for end in ("first_ns", "last_ns")
        ]
        table.add_row(topic, str(counts["messages"]), str(counts["lost"]), *spans)
    console = Console()
    console.print(table)
    whole = "" if summary["complete"] else "; the log was CUT OFF: read to its last whole message"
    console.print(
        f"{summary['duration_s']:.2f} s, {summary['windows']} windows, "
        f"{summary['events']} event messages{whole}"
    )


if __name__ == "__main__":
    sys.exit(main())
