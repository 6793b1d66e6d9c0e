"""Networks by kind and size: residual convolutions from a view to a unit vector.

Needs the extra `bind`.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from agent.errors import ConfigError
from agent.extras import needs_extra
from encoders.preprocess.base import Float32Array

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = [
    "KINDS",
    "SIZES",
    "Kind",
    "Size",
    "build",
    "count",
    "keep_to_axes_of",
    "kind_of",
    "one_channel",
]

Kind = Literal["picture", "sound", "signal"]
Size = Literal["watch", "phone", "desktop"]
KINDS: tuple[Kind, ...] = ("picture", "sound", "signal")
SIZES: tuple[Size, ...] = ("watch", "phone", "desktop")

AXES: dict[Kind, int] = {"picture": 2, "sound": 2, "signal": 1}
SOUND_DROPOUT = 0.25  # the prototype's, which had about a thousand clips


class Plan(NamedTuple):
    """stem: width, kernel and stride of plain convolutions. stages: width and number of residual
    blocks; the first of a stage halves each axis.
    """

    stem: tuple[tuple[int, int, int], ...]
    stages: tuple[tuple[int, int], ...] = ()


# The watch's are the prototype's, its image tower a little narrower. Dense 3x3 convolutions: on a
# CPU they ran at 44-50 GFLOP/s a core in training, depthwise ones at 26-32.
PLANS: dict[Kind, dict[Size, Plan]] = {
    "picture": {
        "watch": Plan(((32, 4, 2), (56, 3, 2)), ((104, 1), (224, 1))),
        "phone": Plan(((44, 4, 2), (88, 3, 2)), ((176, 2), (360, 2))),
        "desktop": Plan(((64, 4, 2), (128, 3, 2)), ((256, 2), (512, 3))),
    },
    "sound": {
        "watch": Plan(((16, 5, 2), (32, 3, 2)), ((64, 1), (144, 1))),
        "phone": Plan(((40, 5, 2), (80, 3, 2)), ((160, 2), (352, 2))),
        "desktop": Plan(((64, 5, 2), (128, 3, 2)), ((256, 2), (512, 3))),
    },
    "signal": {
        "watch": Plan(((32, 5, 1), (64, 5, 2), (96, 5, 2), (128, 3, 2), (160, 3, 1))),
        "phone": Plan(((64, 5, 1), (128, 5, 2)), ((256, 2), (448, 2))),
        "desktop": Plan(((96, 5, 1), (192, 5, 2)), ((384, 3), (768, 3))),
    },
}


def kind_of(modality: str, view_shape: tuple[int, ...]) -> Kind:
    """Views of two axes are a signal (channels, time); of three a picture (channels, rows,
    columns), or a sound where they are audio's (1, bands, frames). Raises ConfigError otherwise.
    """
    if len(view_shape) == 2:
        return "signal"
    if len(view_shape) == 3:
        return "sound" if modality == "audio" else "picture"
    raise ConfigError(
        f"{modality}: views of {list(view_shape)}, expected [channels, time] or "
        "[channels, rows, columns]"
    )


def build(
    kind: Kind,
    size: Size,
    view_shape: tuple[int, ...],
    dim: int,
    *,
    seed: int = 0,
    dropout: float | None = None,
    drop_path: float = 0.0,
) -> nn.Module:
    """A tower with random weights, the same for the same seed, in training mode.

    It takes float32 (n, *view_shape), scaled about -2..2, and gives float32 (n, dim) unit vectors.
    dropout: before the last layer, the kind's own where it is None. drop_path: chance that the
    last residual block is passed by in training, less in the ones before it in proportion
    (stochastic depth, Huang et al. 2016, arXiv:1603.09382). Raises ConfigError for a kind, size
    or shape that there is none for.
    """
    if kind not in PLANS:
        raise ConfigError(f"kind: {kind!r}, expected one of {', '.join(KINDS)}")
    if size not in PLANS[kind]:
        raise ConfigError(f"size: {size!r}, expected one of {', '.join(SIZES)}")
    axes, plan = AXES[kind], PLANS[kind][size]
    least = 2 if plan.stem[0][1] % 2 == 0 else 1  # an even kernel needs two
    if len(view_shape) != axes + 1 or view_shape[0] < 1 or min(view_shape[1:]) < least:
        raise ConfigError(
            f"{kind} tower: views of {list(view_shape)}, expected channels and {axes} "
            f"axes of at least {least}"
        )
    if dropout is None:
        dropout = SOUND_DROPOUT if kind == "sound" else 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _Tower(kind, plan, view_shape[0], dim, dropout, drop_path)


def count(module: nn.Module) -> int:
    """Parameters, those of buffers (running means) not counted."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def one_channel(
    tower: nn.Module, mean: Tensor, std: Tensor, own_mean: float, own_std: float
) -> None:
    """Make a colour tower of `build` take one channel, in place: it answers a grey picture as it
    did the same picture in colour, but for the border, where the padding is another grey.

    mean, std: (channels,) that colour views are normalised by; own_mean, own_std: of the new ones.
    """
    first, norm = tower.get_submodule("body.0.0"), tower.get_submodule("body.0.1")
    assert isinstance(first, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    weight = first.weight / std.to(first.weight).view(1, -1, 1, 1)
    norm.running_mean -= (weight.sum((2, 3)) * (own_mean - mean.to(weight))).sum(1)
    first.weight = nn.Parameter(weight.sum(1, keepdim=True) * own_std)
    first.in_channels = 1


@torch.no_grad()
def keep_to_axes_of(tower: nn.Module, anchors: Float32Array) -> None:
    """Make a tower of `build` give 0 on the axes that are 0 in all anchors (n, dim): what is left
    there after training is noise to every other tower that uses them.
    """
    last = tower.get_submodule("head")
    assert isinstance(last, nn.Linear)
    unused = torch.from_numpy(~anchors.any(axis=0))
    last.weight[unused] = 0
    last.bias[unused] = 0


class _Tower(nn.Module):
    def __init__(
        self, kind: Kind, plan: Plan, channels: int, dim: int, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.kind = kind
        axes = AXES[kind]
        layers: list[nn.Module] = []
        for width, kernel, stride in plan.stem:
            layers.append(
                nn.Sequential(*_conv_norm(axes, channels, width, kernel, stride), nn.ReLU())
            )
            channels = width
        blocks = sum(number for _, number in plan.stages)
        for width, number in plan.stages:
            for index in range(number):
                done = len(layers) - len(plan.stem) + 1
                stride = 2 if index == 0 else 1
                layers.append(_Block(axes, channels, width, stride, drop_path * done / blocks))
                channels = width
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels if kind == "picture" else 2 * channels, dim)

    def forward(self, views: Tensor) -> Tensor:
        features = self.body(views)
        if self.kind == "picture":
            pooled = features.mean((2, 3))
        else:
            # When something was heard says little, how loud at most and on average says much.
            over_time = features.mean(2) if self.kind == "sound" else features
            pooled = torch.cat([over_time.mean(2), over_time.amax(2)], 1)
        vectors: Tensor = self.head(self.dropout(pooled))
        return nn.functional.normalize(vectors.float(), dim=1)


class _Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016, arXiv:1512.03385), which is a mean pool
    and a 1x1 convolution where shapes differ (ResNet-D, He et al. 2018, arXiv:1812.01187).
    """

    def __init__(self, axes: int, channels: int, width: int, stride: int, drop: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_conv_norm(axes, channels, width, 3, stride),
            nn.ReLU(),
            *_conv_norm(axes, width, width, 3, 1),
        )
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(_HalfMean(axes))
        if stride > 1 or channels != width:
            shortcut += _conv_norm(axes, channels, width, 1, 1)
        self.shortcut = nn.Sequential(*shortcut)
        self.drop = drop

    def forward(self, features: Tensor) -> Tensor:
        branch = self.branch(features)
        if self.training and self.drop:
            kept = torch.rand(len(branch), device=branch.device) >= self.drop
            kept = kept.to(branch.dtype).div_(1 - self.drop)
            branch = branch * kept.view(-1, *[1] * (branch.ndim - 1))
        return nn.functional.relu(self.shortcut(features) + branch)


class _HalfMean(nn.Module):
    """Mean of two a step along each axis, an odd one rounded up as a strided convolution does."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2) if axes == 2 else nn.AvgPool1d(2)

    def forward(self, features: Tensor) -> Tensor:
        odd = [size % 2 for size in reversed(features.shape[2:])]
        if any(odd):
            # Not ceil_mode: onnxruntime 1.32 gives another mean there once it is quantised.
            padding = [part for size in odd for part in (0, size)]
            features = nn.functional.pad(features, padding, mode="replicate")
        pooled: Tensor = self.pool(features)
        return pooled


def _conv_norm(
    axes: int, channels: int, width: int, kernel: int, stride: int
) -> tuple[nn.Module, nn.Module]:
    conv: type[Any] = nn.Conv2d if axes == 2 else nn.Conv1d
    norm: type[Any] = nn.BatchNorm2d if axes == 2 else nn.BatchNorm1d
    made = conv(channels, width, kernel, stride, (kernel - 1) // 2, bias=False)
    # He et al. 2015 (arXiv:1502.01852), over outputs: torchvision's choice for residual networks.
    nn.init.normal_(made.weight, std=math.sqrt(2 / (width * kernel**axes)))
    return made, norm(width)
