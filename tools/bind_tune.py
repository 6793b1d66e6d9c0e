"""Tuning one of ImageBind's sensor towers on one's own pairs: what `tools.bind --tune` does."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from agent.atomic import whole_folder
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, EncoderError
from agent.extras import needs_extra
from agent.types import check_name
from encoders.bind.binding import BindRecipe, base_folder, copy_base, read_recipe
from encoders.bind.judging import check_enough, judge
from encoders.bind.pairs import Collector
from encoders.bind.report import FileFigures, write_report
from encoders.imagebind import folder as exports
from encoders.manifest import read_entry, read_manifest
from encoders.space import open_space
from tools.bind_parts import TEXT, asked_pairs, asked_training, fit_told, gather, latency_ms

if TYPE_CHECKING:
    from encoders.bind.judging import Judgement
    from encoders.bind.scoring import Estimate
    from encoders.imagebind.checkpoint import Checkpoint

__all__ = ["WAYS", "add_arguments", "tune"]

WAYS = ("lora", "head")
RANK, ALPHA = 8, 16.0
LORA_BATCH = 16  # a row takes some 0.15 GB of a huge tower of 12 blocks, forth and back


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What tuning takes beside the arguments that binding has too."""
    group = parser.add_argument_group("tuning ImageBind")
    group.add_argument(
        "--tune", choices=WAYS, help="in place of a new tower, ImageBind's own: by low-rank "
        "changes of its attention (LoRA), or its head alone; --space is a folder of tools.export",
    )  # fmt: skip
    group.add_argument("--checkpoint", type=Path, help="the file that --space was exported from")
    group.add_argument("--config", type=Path, help="the checkpoint's configuration, a JSON file")
    group.add_argument("--rank", type=int, help=f"of a LoRA change (default: {RANK})")
    group.add_argument("--alpha", type=float, help=f"its size, over the rank (default: {ALPHA:g})")


def tune(args: argparse.Namespace, argv: Sequence[str] | None) -> int:
    """The whole command: pairs, training, the report, and the folder where it is worth one.

    Raises ConfigError and the like for what does not fit, EncoderError where the tuned tower does
    not find more than the untuned one on recordings that neither training nor its choice of the
    best weights saw; then there is a report and no folder.
    """
    _check(args)
    with needs_extra("bind"):
        import torch

        from encoders.bind.augment import augment_for
        from encoders.bind.lora import HeadTower, LoraTower, open_tower
        from encoders.bind.recall import embed
        from encoders.bind.towers import count
        from encoders.bind.tuned import write_tuned
        from encoders.imagebind.checkpoint import open_checkpoint
    torch.set_num_threads(args.threads)
    sense, base = args.modality, base_folder(args.space)
    space = open_space(args.space, RuntimeOptions(threads=args.threads))
    name = check_name(args.name or f"{space.name}_{sense}", "--name")
    recipe = _with_batch(read_recipe(args.recipe, read_manifest(base), sense), args.tune)
    if args.tune == "head" and recipe.augment not in (None, "none"):
        raise ConfigError(
            f"--recipe: augment is {recipe.augment!r}, expected none with --tune head, whose "
            "blocks see each view once"
        )
    sources, anchor = asked_pairs(args)
    if anchor == sense:
        raise ConfigError(f"--anchor: {anchor}, expected another sense than the tuned one")
    if anchor != TEXT:
        space.encoder(anchor)  # said before anything is read
    config = asked_training(args, recipe)
    checkpoint = open_checkpoint(args.checkpoint, args.config)
    exported = _exported(base, sense, checkpoint, args.checkpoint)

    collector = Collector(recipe.made(), space, anchor, recipe.templates)
    for source in sources:
        gather(source, collector, recipe, sense)
    examples = collector.finish()
    space.close()
    rest, test = examples.split(recipe.dev, args.seed)
    check_enough(test)
    train, dev = rest.split(recipe.dev, args.seed)

    model = open_tower(checkpoint, sense, examples.view_shape)
    rank = RANK if args.rank is None else args.rank
    alpha = ALPHA if args.alpha is None else args.alpha
    tower: Any = (
        HeadTower(model, sense)
        if args.tune == "head"
        else LoraTower(model, sense, rank, alpha, args.seed)
    )
    learned = [replace(part, views=tower.inputs(part.views)) for part in (train, dev, test)]
    before = judge(sense, anchor, embed(tower, learned[2].views), test)
    work = args.out.with_name(args.out.name + ".training")
    assert recipe.preprocess is not None  # read_recipe filled it in
    augment = augment_for(recipe.preprocess.name, recipe.augment)
    fitted = fit_told(tower, learned[0], learned[1], config, work, augment, args.resume)
    after = judge(sense, anchor, embed(tower, learned[2].views), test)
    gains = after.gains(before)
    how = "head alone" if args.tune == "head" else f"LoRA of rank {rank}, alpha {alpha:g}"
    facts = {
        "space": f"{space.identity} ({space.licence})",
        "checkpoint": f"{checkpoint.name} (sha256 {exported.source.sha256})",
        "anchor": f"{anchor}, as it was",
        "examples": f"{len(train)} to train on, {len(dev)} to choose the best weights by, "
        f"{len(test)} for this report, apart by recording",
        "left out": str(sum(collector.skipped.values())),
        "labels": ", ".join(collector.labels) or "none",
        "learned": f"{how}: {count(tower)} of {count(model)} parameters",
        "training": f"{fitted.steps} steps in {fitted.seconds:.0f} s, the best after "
        f"{fitted.best.step}; seed {args.seed}",
        **{f"untuned, {name}": _against(before, name, gain) for name, gain in gains.items()},
    }
    title = f"ImageBind's {sense} tuned to {anchor}"
    write_report(work, title, facts, after, fitted.history, {})
    _refuse(before, after, gains, work)

    with whole_folder(args.out) as partial:
        bank = embed(tower, learned[0].views)
        copy_base(base, partial, sense, name, space.licence, bank)
        made = write_tuned(partial, base, recipe, exported, checkpoint, sense, tower, test)
        files = {
            precision: FileFigures(
                check.bytes,
                check.least,
                latency_ms(partial, sense, precision, collector.windows, args.threads),
            )
            for precision, check in made.items()
        }
        missing = exported.towers[sense].files.keys() - made.keys()
        if missing:
            facts["not written, too far from the tuned tower"] = ", ".join(sorted(missing))
        facts["untuned, ms a window"] = ", ".join(
            f"{latency_ms(base, sense, precision, collector.windows, args.threads):.2f} {precision}"
            for precision in made
        )
        report = write_report(partial, title, facts, after, fitted.history, files)
        card = _card(args, argv, facts, [source.path.name for source in sources], space.licence)
        (partial / "README.md").write_text(card, encoding="utf-8")
    print(report)
    print(f"{args.out}: written; its licence is the checkpoint's, {space.licence}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.checkpoint is None:
        raise ConfigError("--checkpoint: none, expected the file that --space was exported from")
    if args.tune == "head" and (args.rank is not None or args.alpha is not None):
        raise ConfigError("--rank and --alpha: are of --tune lora, expected none with head")
    if args.size is not None:
        raise ConfigError(f"--size: {args.size}, expected none: the checkpoint says it")
    if args.licence is not None:
        raise ConfigError(
            f"--licence: {args.licence}, expected none: what comes of the checkpoint's weights "
            "has their licence"
        )


def _with_batch(recipe: BindRecipe, way: str) -> BindRecipe:
    if way == "head":
        return recipe
    train = {"batch": LORA_BATCH, **recipe.train}
    return msgspec.structs.replace(recipe, train=train)


def _exported(base: Path, sense: str, checkpoint: Checkpoint, file: Path) -> exports.Report:
    """What the base says of itself, which must be of this checkpoint and have the sense."""
    if not (base / exports.REPORT_NAME).is_file():
        raise ConfigError(
            f"--space: {base} has no {exports.REPORT_NAME}, expected a folder that tools.export "
            "made of --checkpoint"
        )
    source = exports.Source(
        name=checkpoint.name,
        sha256=read_entry(file).sha256,
        out=checkpoint.dims.out,
        dims=exports.dims_of(checkpoint.dims),
    )
    report = exports.report_of(base, source)
    if sense not in report.towers:
        raise ConfigError(f"--space: {base} has no tower of {sense!r}, expected one to tune")
    return report


def _against(before: Judgement, name: str, gain: Estimate) -> str:
    recall = before.tasks[name].recall[1]
    return (
        f"recall@1 {recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}]; the tuned tower is "
        f"better by {gain.value:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
    )


def _refuse(before: Judgement, after: Judgement, gains: Mapping[str, Estimate], work: Path) -> None:
    """Raises EncoderError, one line, for what is not better than untuned or than chance."""
    told = [
        f"{name} recall@1 {after.tasks[name].recall[1].value:.3f} is better than the untuned "
        f"tower's {before.tasks[name].recall[1].value:.3f} by [{gain.low:.3f}, {gain.high:.3f}] "
        f"over {after.recordings} recordings, expected above 0"
        for name, gain in gains.items()
        if gain.low <= 0
    ]
    if not told and not after.beats_chance:
        told = ["it beats the untuned tower, and not chance"]
    if told:
        raise EncoderError(f"tuning refused: {'; '.join(told)}: see {work / 'report.md'}")


def _card(
    args: argparse.Namespace,
    argv: Sequence[str] | None,
    facts: Mapping[str, str],
    sources: Sequence[str],
    licence: str,
) -> str:
    """The data card: what it was made of, and how to make it again."""
    command = shlex.join(argv if argv is not None else sys.argv[1:])
    return "\n".join(
        [
            f"# {args.out.name}: data card",
            "",
            f"ImageBind's towers, with that of `{args.modality}` tuned on one's own pairs. What "
            "that is worth: [report.md](report.md).",
            "",
            f"- licence: {licence}, that of the checkpoint: it was changed, and goes under the "
            "same terms",
            *(f"- pairs: `{name}`" for name in sources),
            *(f"- {name}: {value}" for name, value in facts.items()),
            f"- made by: sensebind {version('sensebind')}, `python -m tools.bind {command}`",
            "",
            "It was tuned to what these pairs showed; what the published tower knew of anything "
            "else was not measured again.",
            "",
        ]
    )
