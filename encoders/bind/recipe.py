"""What the towers of the space that ships are trained towards: banks of texts with soft targets.

Needs the extra `bind`. A recipe (encoders/recipes) names a class's texts; a window's target is
mostly its own class and a little every text that is near to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import yaml

from agent.errors import ConfigError
from agent.extras import needs_extra
from agent.types import Int64Array, Settings
from encoders.bind.augment import Mix
from encoders.bind.examples import Examples
from encoders.bind.losses import anchor_cross_entropy, cosine_regression, soft_targets
from encoders.bind.recall import embed
from encoders.bind.schedule import TrainConfig
from encoders.bind.sources import Record
from encoders.bind.towers import Size
from encoders.bind.train import Augment, Batch, Objective
from encoders.manifest import convert
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.registry import find_plugin
from encoders.tower import PreprocessSettings, WindowSettings

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = [
    "RECIPES",
    "Bank",
    "LabelRecipe",
    "Labelled",
    "bank_objective",
    "label_bank",
    "labelled",
    "made",
    "read_recipe",
    "top_1",
]

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
TARGET_TEMPERATURE = 0.07  # of the softmax that spreads the rest of a soft target

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Recipe = TypeVar("_Recipe", bound=Settings)
Encode = Callable[[Sequence[str]], Float32Array]


class LabelRecipe(Settings, frozen=True, kw_only=True):
    """A tower bound to text by labelled recordings.

    size, seed: as towers.build. window, preprocess: as in space.yaml. dev: share of the recordings
    that may be trained on by which the weights are chosen; None trains on all of them and keeps
    the last weights, where people or recordings are too few to spare any. own_share: of a soft
    target on the own class. regression: weight of 1 - cosine to a random text of the class.
    augment: as augment.augment_for. mixed: chance that a sound is heard together with another one,
    and is to be found by both. each: as bank_objective. texts: by label.
    """

    size: Size
    seed: int
    window: WindowSettings
    preprocess: PreprocessSettings
    dev: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None
    train: TrainConfig
    own_share: _Share
    regression: Annotated[float, msgspec.Meta(ge=0)]
    augment: str | None = None
    mixed: _Share = 0.0
    each: bool = False
    texts: dict[str, Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]]

    def __post_init__(self) -> None:
        if self.dev is None and self.train.evaluations != 1:
            raise ValueError(
                f"train.evaluations {self.train.evaluations} without dev, expected 1: the last "
                "weights are kept"
            )

    def parts(self, examples: Examples) -> tuple[Examples, Examples]:
        """What is trained on, and what the weights are chosen by."""
        if self.dev is None:
            return examples, examples
        return examples.split(self.dev, self.seed)


@dataclass(frozen=True)
class Bank:
    """The anchors of the classes. labels: m. anchors: float32 (m, dim), the unit mean of each
    one's texts. texts: float32 (m, k, dim) unit vectors; a class with fewer has some twice.
    """

    labels: tuple[str, ...]
    anchors: Float32Array
    texts: Float32Array


@dataclass(frozen=True)
class Labelled:
    """examples: every view of the records, its group the recording's number. records: number of
    the record of each.
    """

    examples: Examples
    records: Int64Array


def read_recipe(path: Path, kind: type[_Recipe]) -> _Recipe:
    """A recipe file. Raises ConfigError naming the file and the field."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{path}: cannot be read ({reason}), expected a recipe") from exc
    recipe: _Recipe = convert(content, kind, str(path))
    return recipe


def made(settings: PreprocessSettings) -> Preprocess:
    """A preprocessing, its parameters checked. Raises ConfigError."""
    plugin = find_plugin(
        settings.name, "encoders.preprocess", "sensebind.preprocess", "preprocess.name"
    )
    preprocess: Preprocess = convert(settings.parameters, plugin, "preprocess.parameters")
    return preprocess


def label_bank(texts: Mapping[str, Sequence[str]], encode: Encode) -> Bank:
    """The bank of `texts` by label. encode: texts to float32 (n, dim) unit vectors."""
    most = max(len(own) for own in texts.values())
    vectors = np.stack(
        [np.resize(encode(own), (most, *encode(own).shape[1:])) for own in texts.values()]
    )
    means = np.stack([encode(own).mean(axis=0) for own in texts.values()])
    anchors = means / np.linalg.norm(means, axis=1, keepdims=True)
    return Bank(tuple(texts), anchors.astype(np.float32), vectors.astype(np.float32))


def labelled(
    records: Sequence[Record], preprocess: Preprocess, bank: Bank, most: int | None = None
) -> Labelled:
    """The first `most` views of each of `records`, or all, each with its class's anchor.

    Raises ConfigError for a label that the bank lacks, and what reading a record raises.
    """
    numbers = {label: number for number, label in enumerate(bank.labels)}
    groups = {
        name: number for number, name in enumerate(dict.fromkeys(r.recording for r in records))
    }
    views: list[Float32Array] = []
    rows: list[tuple[int, int, int]] = []
    for number, record in enumerate(records):
        if record.label not in numbers:
            raise ConfigError(
                f"{record.recording}: label {record.label!r} has no texts, expected some"
            )
        own = preprocess(record.window())[:most]
        views.extend(own)
        rows.extend([(groups[record.recording], numbers[record.label], number)] * len(own))
    table = np.array(rows, np.int64).reshape(-1, 3)
    anchors = bank.anchors[table[:, 1]]
    return Labelled(Examples(views, anchors, table[:, 0], table[:, 1]), table[:, 2])


def bank_objective(
    bank: Bank,
    own_share: float,
    regression: float,
    augment: Augment | None = None,
    mix: Mix | None = None,
    each: bool = False,
) -> Objective:
    """Cross-entropy over the bank's anchors with soft targets, and 1 - cosine to a random text of
    the class. mix: views of a batch put together by twos, before `augment` changes them; targets
    are in the same proportion. each: the cross-entropy is the mean of that over the anchors and
    those over the first text of every class, over the second, and so on: classes whose names are
    near to one another are else told apart by the anchors alone, and nobody asks for these.
    """
    anchors, texts = torch.from_numpy(bank.anchors), torch.from_numpy(bank.texts)
    targets = soft_targets(torch.eye(len(anchors)), anchors, own_share, TARGET_TEMPERATURE)

    def loss(tower: nn.Module, batch: Batch, scale: Tensor, generator: torch.Generator) -> Tensor:
        views, device = batch.views, batch.views.device
        drawn = torch.randint(
            texts.shape[1], batch.labels.shape, generator=generator, device=device
        )
        text = texts.to(device)[batch.labels, drawn]
        target = targets.to(device)[batch.labels]
        if mix is not None:
            views, other, share = mix(views, generator)
            own = share[:, None]
            text = nn.functional.normalize(own * text + (1 - own) * text[other], dim=1)
            target = own * target + (1 - own) * target[other]
        if augment is not None:
            views = augment(views, generator)
        vectors = tower(views)
        banks = [anchors, *(texts.unbind(1) if each else ())]
        contrast = torch.stack(
            [anchor_cross_entropy(vectors, one.to(device), target, scale) for one in banks]
        ).mean()
        return contrast + regression * cosine_regression(vectors, text)

    return loss


def top_1(
    tower: nn.Module, data: Labelled, bank: Bank, among: Collection[str] | None = None
) -> tuple[int, int]:
    """Records whose mean vector is nearest to their own class, and how many there are. among:
    labels that are candidates, the records' own with them; all of the bank where it is None.
    """
    other = [among is not None and label not in among for label in bank.labels]
    vectors = embed(tower, data.examples.views)
    right = 0
    numbers = np.unique(data.records)
    for number in numbers:
        mine = data.records == number
        cosines = bank.anchors @ vectors[mine].sum(axis=0)
        nearest = int(np.where(other, -np.inf, cosines).argmax())
        right += nearest == int(data.examples.labels[mine][0])
    return right, len(numbers)
