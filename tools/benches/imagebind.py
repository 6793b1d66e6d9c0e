"""ImageBind's towers as exported against plain eager torch: latency, throughput, memory, load."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import Progress

from agent.errors import AgentError, ConfigError
from agent.types import Array
from encoders.imagebind.dims import CONTEXT, HUGE, Dims, TowerDims
from encoders.imagebind.entries import SENSES, sense_rows, tower_entry
from encoders.imagebind.folder import REPORT_NAME, Report, Source
from encoders.manifest import convert, read_manifest
from tools.benches.common import cores
from tools.benches.imagebind_figures import figures_of, gflop, judge, peak_gflops, print_all
from tools.benches.rounds import Group, measure
from tools.benches.variants import BATCHES, CLIP_TICKS, HOP_TICKS, IMU_HZ
from tools.export_inputs import gather

__all__ = ["add_parser"]

SEED = 1
TEXT = "a photo of a thermal image"
# Its tokens, as CLIP's tokenizer gives them, and three texts of the same length.
START, END = 49_406, 49_407
TOKENS = [[START, 320, 1125, 539, 320, word, 2867, END] for word in (13_689, 1929, 1615, 3329)]
FRAME_SIZE = (1280, 720)
# So many half-second hops that the jump back to the first is rare.
SOUND_TICKS = CLIP_TICKS + 40 * HOP_TICKS


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `imagebind` to the benchmarks."""
    parser = commands.add_parser(
        "imagebind",
        help="each exported tower against plain eager torch on the same weights and inputs: "
        "latency, throughput, memory, load time, and whether the vectors agree",
        description="Each variant runs in a process of its own, in turns; medians over the "
        "rounds. Needs the extras imagebind and export.",
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--folder", type=Path, help="an exported model folder")
    given.add_argument(
        "--dims",
        choices=("huge", "tiny"),
        help="make a folder of random weights, and remove it afterwards",
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="what --folder was exported from"
    )
    parser.add_argument(
        "--towers", metavar="A,B", help=f"of {', '.join(SENSES)} (default: all there are)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--threads", type=int, default=cores(), help="default: one a core")
    parser.add_argument(
        "--reference", type=Path, metavar="PATH", help="a clone of the published implementation"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    senses = args.towers.split(",") if args.towers else []
    for sense in senses:
        if sense not in SENSES:
            raise ConfigError(f"--towers: got {sense!r}, expected some of {','.join(SENSES)}")
    for name in ("rounds", "threads"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name}: got {getattr(args, name)}, expected at least 1")
    if args.reference and not (args.reference / "imagebind" / "models").is_dir():
        raise ConfigError(f"--reference: {args.reference} is no clone of ImageBind's repository")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = args.folder or _export(work / "model", args.dims, senses or list(SENSES))
        source = _source(folder, args.checkpoint)
        weights = {**msgspec.to_builtins(source), "checkpoint": str(args.checkpoint or "")}
        dims = Dims(source.out, {name: TowerDims(*size) for name, size in source.dims.items()})
        groups = [_peak()]
        entries = read_manifest(folder).towers
        for sense in senses or entries:
            if sense not in entries:
                raise ConfigError(f"--towers: {folder} has no {sense} tower")
            precisions = entries[sense]["files"]
            groups.append(_tower(sense, folder, precisions, weights, args.reference))
        groups += [_frame(), _log_mel()]
        measured = {}
        with Progress(console=console, transient=True) as progress:
            for group in groups:
                total = len(group.variants) * (args.rounds + 1)
                task = progress.add_task(group.name, total=total)
                step = partial(progress.advance, task)
                measured[group.name] = measure(group, work, args.threads, args.rounds, step)
    peaks = peak_gflops(measured.pop(groups[0].name))
    found = {
        group.name: figures_of(measured[group.name], _work(group, dims), max(peaks.values()))
        for group in groups[1:]
    }
    figures = {
        "threads": args.threads,
        "rounds": args.rounds,
        "source": weights,
        "peak_gflops": peaks,
        "groups": found,
        "targets": judge(found, published=dims.towers.items() <= HUGE.towers.items()),
    }
    print_all(figures, console)
    return figures


def _export(folder: Path, dims: str, senses: Sequence[str]) -> Path:
    """A folder of random weights, as a person would make it."""
    command = [sys.executable, "-m", "tools.export", "imagebind", "--random", "--dims", dims]
    command += ["--seed", str(SEED), "--out", str(folder), "--towers", ",".join(senses)]
    # Of weights that mean nothing, no likeness is asked; what there is, is measured here too.
    command += ["--precision", "fp32,int8", "--floor", "0"]
    code = subprocess.run(command, check=False).returncode
    if code:
        raise AgentError(f"the export ended with exit code {code}")
    return folder


def _source(folder: Path, checkpoint: Path | None) -> Source:
    """What `folder` was exported from, as its report says."""
    path = folder / REPORT_NAME
    try:
        content = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}), expected an export's report") from exc
    report: Report = convert(content, Report, str(path))
    if report.source.seed is None and checkpoint is None:
        raise ConfigError(
            f"--checkpoint: none given, expected {report.source.name}, "
            f"which {folder} was exported from"
        )
    return report.source


def _peak() -> Group:
    return Group(
        "matrix products", {}, {"torch": {"kind": "peak_torch"}, "numpy": {"kind": "peak_numpy"}}
    )


def _tower(
    sense: str,
    folder: Path,
    precisions: Iterable[str],
    weights: Mapping[str, Any],
    reference: Path | None,
) -> Group:
    tower = SENSES[sense]
    own = {"tower": tower, "source": weights}
    variants: dict[str, dict[str, Any]] = {"plain": {"kind": "plain", **own}}
    if reference is not None:
        variants["reference"] = {"kind": "reference", "reference": str(reference), **own}
    for precision in precisions:
        run = {"sense": sense, "folder": str(folder), "precision": precision, "text": TEXT}
        variants[f"onnx {precision}"] = {"kind": "session", **run}
        variants[f"agent {precision}"] = {"kind": "encode", **run}
    return Group(sense, _inputs(sense), variants)


def _inputs(sense: str) -> dict[str, Array]:
    """Rows of the plain forward's input, and a window as a device gives it."""
    rng = np.random.default_rng(SEED)
    most, tower = max(BATCHES.values()), SENSES[sense]
    if tower == "text":
        ids = np.zeros((most, CONTEXT), np.int64)
        ids[:, : len(TOKENS[0])] = TOKENS
        return {name: ids[:count] for name, count in BATCHES.items()}
    # What exports are held against the original on: int8 treats noise unlike anything seen.
    rows = sense_rows(tower_entry(sense), gather([sense], None)[sense].windows)
    rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    if tower == "vision":
        rows = rows[:, :, 0]  # the plain forward gives a still twice by itself
    inputs: dict[str, Array] = {name: rows[:count] for name, count in BATCHES.items()}
    if tower == "audio":
        inputs["clips3"] = rows[np.newaxis, :3]
        inputs["window"] = rng.normal(0, 0.1, (CLIP_TICKS, 1)).astype(np.float32)
    elif tower == "imu":
        inputs["window"] = rng.normal(0, 3, (10 * IMU_HZ, 6)).astype(np.float32)
    elif tower == "vision":
        inputs["window"] = _picture()
    else:  # mm, or counts of a thermal camera
        inputs["window"] = rng.integers(500, 5000, (1, 480, 640)).astype(np.uint16)
    return inputs


def _frame() -> Group:
    own = {kind: {"kind": "picture", "resize": kind} for kind in ("exact", "fast")}
    variants = {"plain": {"kind": "plain_picture"}, **own}
    return Group("frame 1280x720", {"window": _picture()}, variants)


def _picture() -> Array:
    """uint8 (1, 720, 1280, 3): a photograph, since resizing treats noise unlike anything seen."""
    from PIL import Image

    with Image.open(str(package_files("configs.demo") / "home.jpg")) as picture:
        return np.asarray(picture.convert("RGB").resize(FRAME_SIZE))[np.newaxis]


def _log_mel() -> Group:
    sound = np.random.default_rng(SEED).normal(0, 0.1, SOUND_TICKS).astype(np.float32)
    variants = {"plain": {"kind": "plain_log_mel"}, "agent": {"kind": "log_mel"}}
    return Group("log-mel of 2 s", {"sound": sound}, variants)


def _work(group: Group, dims: Dims) -> dict[tuple[str, str], float]:
    """GFLOP of a run, by variant and case: of what is computed, not of what it stands for."""
    tower = SENSES.get(group.name)
    if tower is None:
        return {}
    whole = gflop(tower, dims.towers[tower], dims.out)
    cut = len(TOKENS[0]) if tower == "text" else None
    less = gflop(tower, dims.towers[tower], dims.out, cut, pooled_last=True)
    work: dict[tuple[str, str], float] = {}
    for name, variant in group.variants.items():
        if variant["kind"] in ("plain", "reference"):
            items = {**BATCHES, **({"clips3": 3} if tower == "audio" else {})}
            work |= {(name, case): count * whole for case, count in items.items()}
        else:
            items = {**BATCHES, "window": 1, "cold query": 1}
            work |= {(name, case): count * less for case, count in items.items()}
    return work
