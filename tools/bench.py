"""Benchmarks: what the agent costs and how soon it says what happens. Nothing here gates a test."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.cli import run_command
from tools.benches import gate, imagebind, isolate, live, match, senses, still, stream

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
    args = parser.parse_args(argv)
    code: int = args.run(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
