"""What the image tower is trained towards: tiles by class, photographs and stamps by their texts.

Needs the extra `bind`. The loss is that of compact's recipe: a softmax over the tiles' classes,
with CutMix (Yun et al. 2019, arXiv:1905.04899) on some batches, and for pictures with texts a
softmax over every text with soft targets, and 1 - cosine to the mean of the own texts.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from agent.extras import needs_extra
from agent.types import Settings
from encoders.bind.losses import anchor_cross_entropy, cosine_regression, soft_targets
from encoders.bind.schedule import TrainConfig
from encoders.bind.towers import Size
from encoders.bind.train import Batch, Objective
from encoders.preprocess.base import Float32Array
from encoders.tower import PreprocessSettings, WindowSettings

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

__all__ = ["PictureRecipe", "crops", "cut_mix", "picture_objective"]

TILE_SCALE, TILE_SHIFT, TILE_TURN_RAD = (0.8, 1.1), 0.12, 0.15
TILE_PIXELS = 32
ASPECT, COLOUR, TILE_COLOUR = 0.15, 0.4, 0.2
TARGET_TEMPERATURE = 0.07

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PictureRecipe(Settings, frozen=True, kw_only=True):
    """The image tower, bound to text.

    train.batch: tiles a step. pictures: photographs and stamps a step. least_crop: of a picture's
    side. blurred: share of the pictures brought to a tile's 32 pixels and back. cut_mix: share of
    the batches. smoothing: of the tiles' targets. own_share: of a soft target on the own texts.
    texts_weight, regression: of the pictures' two losses. hypernyms, groups: as sources.photos.
    """

    size: Size
    seed: int
    window: WindowSettings
    preprocess: PreprocessSettings
    dev: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    train: TrainConfig
    pictures: Annotated[int, msgspec.Meta(ge=1)]
    least_crop: Annotated[float, msgspec.Meta(gt=0, le=1)]
    blurred: _Share
    cut_mix: _Share
    smoothing: _Share
    own_share: _Share
    texts_weight: Annotated[float, msgspec.Meta(ge=0)]
    regression: Annotated[float, msgspec.Meta(ge=0)]
    hypernyms: tuple[tuple[str, ...], ...]
    groups: dict[str, tuple[str, ...]]


def crops(
    pictures: Tensor,
    size: int,
    scale: tuple[float, float],
    shift: float | None,
    turn_rad: float,
    colour: float,
    generator: torch.Generator,
) -> Tensor:
    """(n, channels, rows, columns) to (n, channels, size, size): one square of each at a random
    place, turned, half of them mirrored, brighter or darker by channel.

    scale: of the side. shift: most, of the side; None: anywhere inside.
    """
    count = len(pictures)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    side = uniform(*scale)
    most = 1 - side if shift is None else torch.full_like(side, 2 * shift)
    x, y = uniform(-1, 1) * most, uniform(-1, 1) * most
    angle = turn_rad * torch.randn(count, generator=generator)
    stretch = uniform(1 - ASPECT, 1 + ASPECT)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([side * mirror * angle.cos(), -side * angle.sin(), x], 1),
        torch.stack([side * mirror * angle.sin(), side * stretch * angle.cos(), y], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [count, 1, size, size], align_corners=False)
    cut = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    channels = (count, pictures.shape[1], 1, 1)
    gain = 1 + colour * (torch.rand(channels, generator=generator) - 0.5)
    return cut * gain + colour * (torch.rand(channels, generator=generator) - 0.5)


def cut_mix(pictures: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of each picture is another's, and its target in proportion. New tensors."""
    rows, columns = pictures.shape[2:]
    share = torch.rand(2, generator=generator)
    height, width = (1 + (share[0] * (rows - 1)).int()), (1 + (share[1] * (columns - 1)).int())
    top = int(torch.randint(rows - int(height) + 1, (), generator=generator))
    left = int(torch.randint(columns - int(width) + 1, (), generator=generator))
    other = torch.randperm(len(pictures), generator=generator)
    place = (..., slice(top, top + int(height)), slice(left, left + int(width)))
    mixed = pictures.clone()
    mixed[place] = pictures[other][place]
    part = float(height * width) / (rows * columns)
    return mixed, (1 - part) * targets + part * targets[other]


def picture_objective(
    recipe: PictureRecipe,
    size: int,
    classes: Float32Array,
    pictures: Tensor,
    own: Tensor,
    bank: Float32Array,
) -> Objective:
    """The loss of a step. Batches are tiles with their class as label.

    size: pixels of the tower's views. classes: (m, dim) anchors of the tiles. pictures: float32
    (n, 3, rows, columns), normalised as views are; own: (n, k) weights of their texts in the bank
    (k, dim).
    """
    anchors, texts = torch.from_numpy(classes), torch.from_numpy(bank)
    smooth = recipe.smoothing / len(anchors)
    by_class = torch.eye(len(anchors)) * (1 - recipe.smoothing) + smooth
    by_text = soft_targets(own, texts, recipe.own_share, TARGET_TEMPERATURE)
    means = F.normalize(own / own.sum(1, keepdim=True) @ texts, dim=1)

    def loss(tower: nn.Module, batch: Batch, scale: Tensor, generator: torch.Generator) -> Tensor:
        tiles = crops(
            batch.views, size, TILE_SCALE, TILE_SHIFT, TILE_TURN_RAD, TILE_COLOUR, generator
        )
        targets = by_class[batch.labels]
        if float(torch.rand((), generator=generator)) < recipe.cut_mix:
            tiles, targets = cut_mix(tiles, targets, generator)
        drawn = torch.randint(len(pictures), (recipe.pictures,), generator=generator)
        whole = crops(pictures[drawn], size, (recipe.least_crop, 1.0), None, 0.0, COLOUR, generator)
        coarse = F.interpolate(whole, (TILE_PIXELS, TILE_PIXELS), mode="area")
        coarse = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)
        chosen = torch.rand(recipe.pictures, generator=generator) < recipe.blurred
        whole = torch.where(chosen[:, None, None, None], coarse, whole)
        vectors = tower(torch.cat([tiles, whole]).contiguous(memory_format=torch.channels_last))
        of_tiles, of_pictures = vectors[: len(tiles)], vectors[len(tiles) :]
        return (
            anchor_cross_entropy(of_tiles, anchors, targets, scale)
            + recipe.texts_weight * anchor_cross_entropy(of_pictures, texts, by_text[drawn], scale)
            + recipe.regression * cosine_regression(of_pictures, means[drawn])
        )

    return loss
