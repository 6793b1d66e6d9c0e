"""Benchmarks: what the agent costs and how soon it says what happens. Nothing here gates a test."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.atomic import open_atomic
from agent.cli import run_command
from tools.benches import gate, imagebind, isolate, live, match, senses, still, stream
from tools.benches.common import machine, print_machine
from tools.output import report_console

__all__ = ["main"]

EXAMPLE = """\
examples:
  python -m tools.bench live --json live.json
  python -m tools.bench stream --seconds 60
  python -m tools.bench senses --folder models/imagebind --precision int8
  python -m tools.bench gate --log walk.mcap --config walk.yaml --senses image
  python -m tools.bench match --queries 1000 --streams 6
  python -m tools.bench imagebind --folder models/imagebind --towers image,audio
"""

BENCHMARKS = (live, stream, senses, gate, still, isolate, match, imagebind)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m tools.bench`."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="BENCHMARK")
    for benchmark in BENCHMARKS:
        benchmark.add_parser(commands)
    for command in commands.choices.values():
        command.add_argument("--json", type=Path, metavar="OUT", help="the figures as JSON too")
    args = parser.parse_args(argv)
    console = report_console()
    facts = machine()
    print_machine(facts, console)
    figures = {"machine": facts, **args.run(args, console)}
    if args.json:
        with open_atomic(args.json) as file:
            file.write(json.dumps(figures, indent=2).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
