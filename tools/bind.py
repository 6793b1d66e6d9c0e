"""Train a tower of any sense into a space, from what was recorded together or labelled.

examples:
  python -m tools.bind --space compact --modality thermal --anchor image --out warm \\
      --pairs 'folders:lwir?anchor=rgb&block=6' --minutes 3
  python -m tools.bind --space compact --modality magnetic_field --anchor imu --out mag \\
      --pairs 'log:walk.mcap?sense=magnetometer&anchor=imu' --recipe mag.yaml
  python -m tools.bind --space compact --modality emg --out emg \\
      --pairs labels:gestures.csv --recipe emg.yaml
  python -m tools.bind --tune lora --space models/imagebind --checkpoint imagebind_huge.pth \\
      --modality thermal --pairs 'folders:lwir?anchor=rgb&block=6' --out tuned

The anchor's tower stays as it is. Some recordings are kept out of training; a tower that does not
beat chance on them, or with --tune the untuned tower, is refused (exit 3). OUT.training has the
checkpoint and the report.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agent.atomic import whole_folder
from agent.cli import run_command
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, EncoderError
from agent.extras import needs_extra
from agent.types import check_name
from encoders.bind.binding import BindRecipe, base_folder, copy_base, read_recipe
from encoders.bind.judging import check_enough
from encoders.bind.pairs import Collector, Source
from encoders.manifest import read_manifest
from encoders.space import open_space
from tools.bind_parts import (
    MINUTES,
    TEXT,
    asked_pairs,
    asked_training,
    fit_told,
    gather,
    latency_ms,
)
from tools.bind_tune import add_arguments, tune

if TYPE_CHECKING:
    from torch import nn

    from encoders.bind.examples import Examples
    from encoders.bind.export import Graph
    from encoders.bind.judging import Judgement
    from encoders.bind.report import FileFigures

__all__ = ["main"]

NOT_STATED = "not stated: see README.md for the sources"


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    check_name(args.modality, "--modality")
    if args.out.exists():
        raise ConfigError(f"--out: {args.out} exists already, expected a new folder")
    if args.threads < 1:
        raise ConfigError(f"--threads: {args.threads}, expected at least 1")
    if args.tune is not None:
        if args.tower or args.features:
            raise ConfigError("--tune: with --tower or --features, expected one of them")
        return tune(args, argv)
    if args.checkpoint or args.config or args.rank is not None or args.alpha is not None:
        raise ConfigError("--checkpoint, --config, --rank, --alpha: are of --tune, expected none")
    args.licence = args.licence or NOT_STATED
    space = open_space(args.space, RuntimeOptions(threads=args.threads))
    base = base_folder(args.space)
    recipe = read_recipe(args.recipe, read_manifest(base), args.modality)
    sources, anchor = asked_pairs(args)
    if anchor != TEXT:
        space.encoder(anchor)  # said before anything is read
    config = asked_training(args, recipe)
    with needs_extra("bind"):
        import torch

        from encoders.bind.judging import judge
        from encoders.bind.recall import embed
        from encoders.bind.report import write_report
        from tools.bind_network import network

    torch.set_num_threads(args.threads)
    make = network(args, recipe, space.dim)

    collector = Collector(recipe.made(), space, anchor, recipe.templates)
    for source in sources:
        gather(source, collector, recipe, args.modality)
    examples = collector.finish()
    if collector.skipped:
        why, times = next(iter(collector.skipped.items()))
        left_out = sum(collector.skipped.values())
        print(f"left out: {left_out} windows; {times} as {why}", file=sys.stderr)
    train, dev = examples.split(recipe.dev, args.seed)
    check_enough(dev)

    made = make(train, dev)
    work = args.out.with_name(args.out.name + ".training")
    fitted = fit_told(made.tower, made.train, made.dev, config, work, made.augment, args.resume)
    judgement = judge(args.modality, anchor, embed(made.tower, made.dev.views), dev)
    facts = {
        "space": f"{space.identity} ({space.licence})",
        "anchor": anchor,
        "examples": f"{len(train)} to train on, {len(dev)} kept out by recording",
        "left out": str(sum(collector.skipped.values())),
        "labels": ", ".join(collector.labels) or "none",
        "tower": made.told,
        "training": f"{fitted.steps} steps in {fitted.seconds:.0f} s, the best after "
        f"{fitted.best.step}; seed {args.seed}",
    }
    title = f"{args.modality} bound to {anchor}"
    report = write_report(work, title, facts, judgement, fitted.history, {})
    if not judgement.beats_chance:
        raise EncoderError(_refusal(judgement, work))
    with whole_folder(args.out) as partial:
        name = args.name or f"{space.name}_{args.modality}"
        copy_base(base, partial, args.modality, check_name(name, "--name"), args.licence,
                  embed(made.tower, made.train.views))  # fmt: skip
        files = _export(partial, args.modality, made.graph, recipe, train, collector, args.threads)
        report = write_report(partial, title, facts, judgement, fitted.history, files)
        (partial / "README.md").write_text(_card(args, argv, facts, sources), encoding="utf-8")
    print(report)
    print(f"{args.out}: written; in a config: space: {{path: {args.out.absolute()}}}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--space", default="compact", help="base: a model folder, or one that ships"
    )
    parser.add_argument("--modality", required=True, help="the sense that gets a tower; any name")
    parser.add_argument(
        "--pairs", action="append", required=True, metavar="SOURCE",
        help="log:FILE?sense=STREAM&anchor=STREAM, folders:DIR?anchor=DIR or labels:FILE; "
        "may be repeated",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the model folder to make")
    parser.add_argument(
        "--anchor", help="text, or a sense of the base (default: image; text for labels alone)"
    )
    parser.add_argument(
        "--recipe", type=Path, help="YAML: window, preprocess, augment, templates, dev, train"
    )
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--size", choices=("watch", "phone", "desktop"), help="of a network of ours: under 1, "
        "under 6, or more million parameters (default: watch)",
    )  # fmt: skip
    network.add_argument(
        "--tower", metavar="MODULE:NAME", help="a torch module of yours in place of ours: "
        "NAME(view_shape, dim) makes it, from float32 (n, *view_shape) to unit vectors (n, dim)",
    )  # fmt: skip
    network.add_argument(
        "--features", type=Path, metavar="FILE.onnx", help="a network of yours, from float32 "
        "(n, *view_shape) to features (n, width); it stays as it is, a linear head is trained",
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help=f"to train (default: {MINUTES:g})")
    length.add_argument("--steps", type=int, help="to train, in place of minutes")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights and batches")
    parser.add_argument("--resume", action="store_true", help="go on from OUT.training")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: 1)")
    parser.add_argument("--name", help="of the new space (default: BASE_MODALITY)")
    parser.add_argument("--licence", help="of the new space, by its base and its pairs")
    add_arguments(parser)
    return parser


def _refusal(judgement: Judgement, work: Path) -> str:
    """One line: the tasks that do not beat chance."""
    told = [
        f"{name} recall@1 {scores.recall[1].value:.3f} [{scores.recall[1].low:.3f}, "
        f"{scores.recall[1].high:.3f}] of {judgement.recordings} recordings, "
        f"expected above chance {scores.chance[1]:.3f}"
        for name, scores in judgement.tasks.items()
        if name in judgement.asking and scores.recall[1].low <= scores.chance[1]
    ]
    return f"tower refused: {'; '.join(told)}: see {work / 'report.md'}"


def _export(
    folder: Path,
    modality: str,
    graph: nn.Module | Graph,
    recipe: BindRecipe,
    train: Examples,
    collector: Collector,
    threads: int,
) -> dict[str, FileFigures]:
    """The tower's files in `folder`, each opened as an agent does and timed on real windows."""
    from encoders.bind.export import write_tower
    from encoders.bind.report import FileFigures

    assert recipe.window is not None  # read_recipe filled both in
    assert recipe.preprocess is not None
    written = write_tower(
        folder, modality, graph, train.views, window=recipe.window, preprocess=recipe.preprocess
    )
    return {
        precision: FileFigures(
            made.file.bytes,
            made.least,
            latency_ms(folder, modality, precision, collector.windows, threads),
        )
        for precision, made in written.items()
        if made.kept
    }


def _card(
    args: argparse.Namespace,
    argv: Sequence[str] | None,
    facts: Mapping[str, str],
    sources: Sequence[Source],
) -> str:
    """The data card: what it was made of, and how to make it again."""
    command = shlex.join(argv if argv is not None else sys.argv[1:])
    lines = [
        f"# {args.out.name}: data card",
        "",
        f"A tower for `{args.modality}` bound into {facts['space']}, with the base's other towers. "
        "What it is worth: [report.md](report.md).",
        "",
        f"- licence: {args.licence}",
        *(f"- pairs: {source.kind} `{source.path.name}`" for source in sources),
        *(f"- {name}: {value}" for name, value in facts.items()),
        f"- made by: sensebind {version('sensebind')}, `python -m tools.bind {command}`",
        "",
        "It knows what these pairs showed, and answers something for everything else: thresholds "
        "come from the background bank, which holds its own training windows.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
