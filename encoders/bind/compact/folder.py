"""compact's folder while it is made: what is in it already, and what every tower's maker does.

Needs the extra `bind`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import yaml

from agent.atomic import open_atomic
from agent.clock import SystemClock, to_s
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from agent.extras import needs_extra
from encoders.bind import sources
from encoders.bind.aligned import PairRecipe
from encoders.bind.compact.card import Used, card, licences
from encoders.bind.examples import Examples
from encoders.bind.export import FLOORS, write_tower
from encoders.bind.pictures import PictureRecipe
from encoders.bind.recipe import RECIPES, LabelRecipe, read_recipe
from encoders.bind.towers import build, count, kind_of
from encoders.bind.train import Augment, Objective, fit
from encoders.manifest import MANIFEST_NAME, SpaceSettings, convert, read_entry, read_manifest
from encoders.preprocess.base import Float32Array
from encoders.preprocess.views import MapSettings
from encoders.space import open_space

with needs_extra("bind"):
    import torch
    from torch import nn

__all__ = ["TABLE_FILE", "Bar", "Figures", "Made", "Maker", "Making", "entry_of"]

REPORT_NAME = "report.json"
CARD_NAME = "README.md"
LICENCE = "Apache-2.0"
DESCRIPTION = "Six senses, small; made on two CPU cores. README.md, its data card, says of what."
TABLE_FILE = "text_table_int8.npz"
_TEXT, _IMAGE = ("text", TABLE_FILE), ("image", "image.onnx")
# What each tower is bound to: the anchor's sense and file.
_ANCHORS = {"imu": _TEXT, "audio": _TEXT, "image": _TEXT, "thermal": _IMAGE, "depth": _IMAGE}
# What a tower's recipe stands in beside its own file.
_LISTS = {"audio": ("sounds",)}

# Given what is done, what is told how many are done, and of how many.
Bar: TypeAlias = Callable[[str], Callable[[int, int], None]]
Figures: TypeAlias = dict[str, Any]
Made: TypeAlias = tuple[Figures, Used]
_Recipe: TypeAlias = LabelRecipe | PictureRecipe | PairRecipe


class Making:
    """The folder `out`. report.json tells what each tower was made by and reached.

    data: folder with MANIFEST.tsv. cache: folder of unpacked packages. threads: of torch.
    """

    def __init__(self, data: Path, cache: Path, out: Path, threads: int, bar: Bar) -> None:
        self.data, self.cache, self.out, self.bar = data, cache, out, bar
        self.threads = threads
        self.report: dict[str, Any] = {}
        if (out / REPORT_NAME).exists():
            self.report = msgspec.json.decode((out / REPORT_NAME).read_bytes())

    def make(self, name: str, maker: Maker) -> bool:
        """Make a tower, unless it was made by the same recipe and anchor: then False.

        Raises ConfigError where its anchor is not in the folder, and what `maker` raises.
        """
        made_by = self._made_by(name)
        if self.report.get(name, {}).get("made_by") == made_by:
            return False
        torch.set_num_threads(self.threads)
        clock = SystemClock()
        started_ns = clock.now_ns()
        figures, used = maker(self)
        self.report[name] = {
            "made_by": made_by,
            "seconds": round(to_s(clock.now_ns() - started_ns), 1),
            "threads": self.threads,
            "figures": figures,
            "sources": licences(used),
        }
        with open_atomic(self.out / REPORT_NAME) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self.report), indent=2) + b"\n")
        with open_atomic(self.out / CARD_NAME) as file:
            file.write(card(self.report).encode())
        return True

    def records(self) -> dict[str, list[sources.Record]]:
        """What may be trained on, by source; the pictures' names as the image recipe has them."""
        stamps = self.cache / sources.STAMPS
        recipe = read_recipe(RECIPES / "image.yaml", PictureRecipe)
        found = {
            "photos": sources.photos(self.data, recipe.hypernyms, recipe.groups, recipe.absent),
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

    def fit(
        self,
        modality: str,
        recipe: _Recipe,
        train: Examples,
        dev: Examples,
        *,
        tower: nn.Module | None = None,
        augment: Augment | None = None,
        objective: Objective | None = None,
    ) -> tuple[nn.Module, Figures]:
        """A tower for views as those of `dev`, trained beside the folder, where it goes on after a
        break; and its first figures. tower: what is trained, a new one of the recipe's size where
        it is None. augment, objective: as train.fit.
        """
        shape, dim = dev.view_shape, train.anchors.shape[1]
        if tower is None:
            assert isinstance(recipe, LabelRecipe)  # the others have their own
            tower = build(kind_of(modality, shape), recipe.size, shape, dim, seed=recipe.seed)
        move = self.bar(modality)
        fitted = fit(
            tower,
            train,
            dev,
            recipe.train,
            self.out.with_name(f"{self.out.name}.training") / modality,
            augment,
            lambda step: move(round(1000 * step.share), 1000),
            objective=objective,
            resume=True,
        )
        return tower, {
            "parameters": count(tower),
            "steps": fitted.steps,
            "dev_recall@1": fitted.best.recall if recipe.dev else None,
        }

    def write(
        self,
        modality: str,
        recipe: _Recipe,
        tower: nn.Module,
        views: Sequence[Float32Array],
        floors: Mapping[str, float] = FLOORS,
        precision: str = "fp32",
        parts: MapSettings | None = None,
    ) -> Figures:
        """Put the tower into the folder in every precision; bytes and cosines of each.

        views, floors, precision, parts: as export.write_tower.
        """
        written = write_tower(
            self.out,
            modality,
            tower,
            views,
            window=recipe.window,
            preprocess=recipe.preprocess,
            floors=floors,
            precision=precision,
            parts=parts,
        )
        figures: Figures = {}
        for precision, file in written.items():
            figures[f"{precision}_least_cosine"] = file.least
            figures[f"{precision}_mean_cosine"] = file.mean
            figures[f"{precision}_bytes"] = file.file.bytes
        return figures

    def describe(self, modality: str, entry: dict[str, Any], dim: int) -> None:
        """Write `space.yaml` with this entry in place of what there is of the tower."""
        space: dict[str, Any] = {
            "version": 1,
            "name": "compact",
            "dim": dim,
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
        files = [RECIPES / f"{part}.yaml" for part in (name, *_LISTS.get(name, ()))]
        recipe = b"".join(path.read_bytes() for path in files)
        made_by = {"recipe": hashlib.sha256(recipe).hexdigest()}
        if name in _ANCHORS:
            tower, file = _ANCHORS[name]
            anchor = self.out / file
            if not anchor.exists():
                raise ConfigError(f"{anchor}: not there, expected the {tower} tower first")
            made_by["anchor"] = read_entry(anchor).sha256
        return made_by


Maker: TypeAlias = Callable[[Making], Made]


def entry_of(path: Path) -> dict[str, Any]:
    """A file as space.yaml names it: path, bytes and sha256."""
    entry: dict[str, Any] = msgspec.to_builtins(read_entry(path))
    return entry
