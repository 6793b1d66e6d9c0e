"""ImageBind as a model folder: an ONNX file a tower and precision, which run without torch.

examples:
  python -m tools.export imagebind --checkpoint weights/imagebind_huge.pth --out models/imagebind
  python -m tools.export imagebind --checkpoint F --out D --towers audio,imu --precision fp32,int8
  python -m tools.export imagebind --random --dims tiny --seed 1 --out tiny   # random weights

Each file is held against the original on real inputs, and is not kept where it is too far from it.
What the folder already has is not done again: after a break, or to add a precision, run it again.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.progress import Progress, TaskProgressColumn, TimeElapsedColumn
from rich.table import Table

from agent.cli import run_command
from agent.errors import ConfigError
from agent.types import Array, check_name
from encoders.imagebind.dims import HUGE, TINY
from encoders.imagebind.entries import FRAMES, SENSES, TEXT, sense_rows, text_rows, tower_entry
from encoders.imagebind.folder import ModelFolder, Report, Source, dims_of
from tools.export_inputs import Material, gather
from tools.output import progress_bars, report_console

if TYPE_CHECKING:
    from encoders.imagebind.checkpoint import Checkpoint

__all__ = ["main"]

SIZES = {"tiny": TINY, "huge": HUGE}
BLOCK = 1 << 22
ROWS = 8  # of a sense that a tower is tried on, at most
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.random == (args.checkpoint is not None):
        parser.error("expected one of --checkpoint FILE and --random")
    if args.random and args.config:
        parser.error("--config is of a --checkpoint, not of --random weights")
    if not args.random and (args.dims or args.seed is not None):
        parser.error("--dims and --seed are of --random weights, not of a --checkpoint")
    if args.name is not None:
        check_name(args.name, "--name")
    with progress_bars(TaskProgressColumn(), TimeElapsedColumn(), transient=False) as bars:
        folder = _export(args, bars)
    _print_report(folder.report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=["imagebind"], help="what to export")
    parser.add_argument("--checkpoint", type=Path, help="a .pth or .safetensors file")
    parser.add_argument("--config", type=Path, help="the checkpoint's configuration, a JSON file")
    parser.add_argument("--random", action="store_true", help="random weights in place of a file")
    parser.add_argument("--dims", choices=SIZES, help="size of random towers (default: tiny)")
    parser.add_argument("--seed", type=int, help="of random weights (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="the model folder, new or resumed")
    parser.add_argument(
        "--towers",
        action="append",
        metavar="SENSE",
        help=f"of {', '.join(SENSES)}; may be repeated, or a list with commas (default: all)",
    )
    parser.add_argument(
        "--precision",
        action="append",
        metavar="NAME",
        help="fp32, fp16 or int8; may be repeated, or a list with commas (default: fp32)",
    )
    parser.add_argument("--name", help="of the space (default: imagebind)")
    parser.add_argument(
        "--frames",
        choices=FRAMES,
        help="what the image tower is fed: stills, or clips of two frames (default: image)",
    )
    parser.add_argument(
        "--floor",
        type=float,
        help="least cosine with the original (default: fp32 0.99999, fp16 0.999, int8 0.99)",
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        help="folder of files to compare on, in a folder a sense (default: the demo's)",
    )
    return parser


def _export(args: argparse.Namespace, bars: Progress) -> ModelFolder:
    # torch, which takes seconds to import: not for --help.
    from encoders.imagebind.export import FLOORS, export_tower, tower_report

    precisions = _listed(args.precision or ["fp32"], FLOORS, "--precision")
    checkpoint, source = _source(args, bars)
    offered = [sense for sense, tower in SENSES.items() if tower in checkpoint.towers]
    senses = _listed(args.towers or offered, offered, "--towers")
    folder = ModelFolder(args.out, source, {name: version(name) for name in PACKAGES})
    pending = _pending(folder, senses, precisions, bars)
    _check_disk(args.out, checkpoint, pending)
    # All of it before the first tower, so that a package or a file that is missing says so soon.
    material = gather(list(pending), args.inputs)
    rows = {sense: _rows(sense, found, args.frames) for sense, found in material.items()}
    for sense in senses:
        floors = {
            name: FLOORS[name] if args.floor is None else args.floor
            for name in pending.get(sense, [])
        }
        with folder.partial() as partial:
            if floors:
                step = _steps(bars, sense, 1 + len(floors))
                tower = export_tower(checkpoint, sense, floors, rows[sense], partial, step)
                step("done")
                folder.add(partial, sense, tower_report(tower, floors, material[sense].told))
            folder.describe(partial, sense, args.name, args.frames)
    return folder


def _listed(given: Sequence[str], offered: Iterable[str], option: str) -> list[str]:
    """`given`, with commas or one by one, in the order of `offered` and each once."""
    named = [name.strip() for part in given for name in part.split(",")]
    order = list(offered)
    for name in named:
        if name not in order:
            raise ConfigError(f"{option}: {name!r}, expected of {', '.join(order)}")
    return [name for name in order if name in named]


def _source(args: argparse.Namespace, bars: Progress) -> tuple[Checkpoint, Source]:
    from encoders.imagebind.checkpoint import open_checkpoint
    from encoders.imagebind.random_weights import random_checkpoint

    seed = sha256 = None
    if args.random:
        seed = args.seed or 0
        checkpoint = random_checkpoint(SIZES[args.dims or "tiny"], seed)
    else:
        checkpoint = open_checkpoint(args.checkpoint, args.config)
        digest = hashlib.sha256()
        with bars.open(args.checkpoint, "rb", description=f"sha256 of {checkpoint.name}") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        sha256 = digest.hexdigest()
    dims = checkpoint.dims
    return checkpoint, Source(
        name=checkpoint.name, sha256=sha256, seed=seed, out=dims.out, dims=dims_of(dims)
    )


def _pending(
    folder: ModelFolder, senses: Sequence[str], precisions: Sequence[str], bars: Progress
) -> dict[str, list[str]]:
    """The precisions to make of each sense that lacks some; says which are there."""
    pending = {}
    task = bars.add_task("what is there", total=len(senses))
    for sense in senses:
        missing = folder.missing(sense, precisions)
        bars.advance(task)
        held = [name for name in precisions if name not in missing]
        if held:
            bars.console.print(f"{sense} {', '.join(held)}: in {folder.path} already")
        if missing:
            pending[sense] = missing
    return pending


def _check_disk(out: Path, checkpoint: Checkpoint, pending: Mapping[str, Sequence[str]]) -> None:
    from encoders.imagebind.export import needed_bytes

    needed = needed_bytes(checkpoint, pending)
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ConfigError(
            f"{out}: {free / 1e9:.1f} GB free, "
            f"expected at least {needed / 1e9:.1f} GB for {', '.join(pending)}"
        )


def _rows(sense: str, material: Material, frames: str | None) -> list[Array]:
    """What a tower is tried on, evenly of all there is."""
    if sense == TEXT:
        return text_rows(material.texts)
    rows = sense_rows(tower_entry(sense, frames or FRAMES[0]), material.windows)
    chosen = np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().astype(int)
    return list(rows[chosen])


def _steps(bars: Progress, sense: str, total: int) -> Callable[[str], None]:
    """What tells the bar of a sense that a step begins, so that those before are done."""
    task = bars.add_task(sense, total=total)
    done = count()

    def step(what: str) -> None:
        bars.update(task, description=f"{sense}: {what}", completed=next(done))

    return step


def _print_report(report: Report) -> None:
    table = Table("sense", "precision", "MB", "least cosine", "mean", "on", "seconds")
    for sense, tower in report.towers.items():
        for precision, check in tower.files.items():
            table.add_row(
                sense,
                " but ".join([precision, ", ".join(check.kept)] if check.kept else [precision]),
                f"{check.bytes / 1e6:.1f}",
                f"{check.least:.6f}",
                f"{check.mean:.6f}",
                f"{check.inputs} of {check.material}",
                f"{check.seconds:.1f}",
            )
    report_console().print(table)


if __name__ == "__main__":
    sys.exit(main())
