"""What the image tower is trained towards: tiles by class, photographs by what it knew of them.

Needs the extra `bind`. The tower begins from a classifier of ImageNet. Its softmax is given a class
more for each class of the tiles; the photographs hold it to what it said of them before (Li and
Hoiem 2016, "Learning without Forgetting", arXiv:1606.09282).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from agent.extras import needs_extra
from agent.types import Settings
from encoders.bind.backbone import Name
from encoders.bind.schedule import TrainConfig
from encoders.bind.train import Batch, Objective
from encoders.preprocess.views import MapSettings
from encoders.tower import PreprocessSettings, WindowSettings

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = ["PictureRecipe", "picture_objective"]

TARGET_TEMPERATURE = 0.07  # as recipe.TARGET_TEMPERATURE

_Count = Annotated[int, msgspec.Meta(ge=1)]


class PictureRecipe(Settings, frozen=True, kw_only=True):
    """The image tower, bound to text.

    network: what it begins from; only its last layer is trained. train.batch: tiles a step.
    pictures: others a step. tiles: how many of each class, by collection; half of them are
    mirrored. squares: of each photograph beside the whole, a random place and side of `least_side`
    to 1 of the short side, half of them mirrored. smoothing: of the tiles' targets, by nearness of
    the classes' texts. keep: weight of staying with what the network said of the photographs. dev:
    share of them that is left out of it, for a figure. detail: as add_detail's share. parts: what
    is told of parts of its last map.

    absent: classes of ImageNet by number that the data have no photo of. hypernyms, groups: as
    class_texts.
    """

    network: Name
    seed: int
    window: WindowSettings
    preprocess: PreprocessSettings
    dev: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    train: TrainConfig
    pictures: _Count
    tiles: dict[str, _Count]
    squares: Annotated[int, msgspec.Meta(ge=0)]
    least_side: Annotated[float, msgspec.Meta(gt=0, le=1)]
    smoothing: Annotated[float, msgspec.Meta(ge=0, le=1)]
    keep: Annotated[float, msgspec.Meta(ge=0)]
    detail: Annotated[float, msgspec.Meta(ge=0)]
    parts: MapSettings
    absent: dict[int, str]
    hypernyms: tuple[tuple[str, ...], ...]
    groups: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if self.train.evaluations != 1:
            raise ValueError(
                f"train.evaluations {self.train.evaluations}, expected 1: the last weights are kept"
            )


def picture_objective(
    recipe: PictureRecipe, names: Tensor, features: Tensor, known: Tensor
) -> Objective:
    """The loss of a step. Batches are features of tiles with their class's number as label; the
    tower is a LiteHead.

    names: (k, dim) unit vectors of the classes. features: (n, 1280) of the other pictures; known:
    (n, k) how probable each class was said to be.
    """
    near = ((names @ names.T) / TARGET_TEMPERATURE).softmax(1)
    targets = (1 - recipe.smoothing) * torch.eye(len(names)) + recipe.smoothing * near

    def loss(tower: nn.Module, batch: Batch, scale: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randint(len(features), (recipe.pictures,), generator=generator)
        scores: Tensor = tower.get_submodule("classes")(torch.cat([batch.views, features[drawn]]))
        likely = scores.log_softmax(1)
        own, kept = likely[: len(batch.views)], likely[len(batch.views) :]
        learnt = -(targets[batch.labels] * own).sum(1).mean()
        return learnt - recipe.keep * (known[drawn] * kept).sum(1).mean()

    return loss
