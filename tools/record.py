"""Record the streams of a config to an MCAP log, without matching anything."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.cli import run_agent, run_command
from agent.config_file import load_config

__all__ = ["main"]

EXAMPLE = """\
examples:
  python -m tools.record --config configs/demo.yaml --out /tmp/walk.mcap --duration 20
  python -m tools.replay --log /tmp/walk.mcap
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m tools.record`."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.record",
        description="Record every stream of a config as MCAP. Ends with what was received, "
        "written and dropped.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the new log")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    args = parser.parse_args(argv)
    overrides = [
        *args.set,
        "queries=[]",
        f"record.path={json.dumps(str(args.out.absolute()))}",
    ]
    return run_agent(load_config(args.config, overrides), args.duration)


if __name__ == "__main__":
    sys.exit(main())
