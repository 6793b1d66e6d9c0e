"""ImageBind's sensor towers tuned on one's own recordings: low-rank changes, or the head alone.

LoRA (Hu et al. 2021, arXiv:2106.09685): the weights W of a layer stay as they are, and what is
learned is a product of two thin matrices beside them, W + alpha / rank * B A. A begins as noise and
B at zero, so that the tower begins as the published one. Merged, it costs nothing to run.

Needs the extra `bind`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from agent.errors import ConfigError
from agent.extras import needs_extra
from encoders.imagebind.checkpoint import Checkpoint
from encoders.imagebind.dims import GEOMETRY
from encoders.imagebind.entries import SENSES
from encoders.imagebind.model import ImageBind, load
from encoders.preprocess.base import Float32Array

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn
    from torch.func import functional_call
    from torch.nn import functional

__all__ = ["TUNABLE", "HeadTower", "LoraTower", "TunedTower", "merged", "open_tower"]

# Pictures and text hold the space together: what they are moved by, all other senses lose.
TUNABLE = ("audio", "depth", "thermal", "imu")
ROWS = 16  # at once where nothing is learned; a huge tower takes some 10 MB a row


class TunedTower(Protocol):
    """What `LoraTower` and `HeadTower` have beside an nn.Module that train.fit takes. The
    published tower follows them to another device.
    """

    def inputs(self, views: Sequence[Float32Array]) -> list[Float32Array]:
        """What it is trained on, of what the preprocessing gives."""

    def changed(self) -> dict[str, Tensor]:
        """float32 on the CPU, newly made: the weights that differ, by a checkpoint's keys."""


def open_tower(checkpoint: Checkpoint, sense: str, view_shape: tuple[int, ...]) -> ImageBind:
    """The sense's published tower, frozen; its weights are the file's own memory.

    Raises ConfigError for a sense that is not of TUNABLE or not in the checkpoint, and for views of
    another shape than its tower takes.
    """
    if sense not in TUNABLE:
        raise ConfigError(f"--modality: {sense!r}, expected one to tune: {', '.join(TUNABLE)}")
    expected = GEOMETRY[SENSES[sense]].input
    if view_shape != expected:
        raise ConfigError(
            f"{sense} views: {list(view_shape)}, expected {list(expected)} of ImageBind's "
            "preprocessing"
        )
    return load(checkpoint, [SENSES[sense]]).requires_grad_(False)


def merged(checkpoint: Checkpoint, sense: str, changed: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint with `changed` in place of the sense's own weights; nothing is read here."""
    tower = SENSES[sense]

    def read(name: str) -> dict[str, Tensor]:
        tensors = checkpoint.tensors(name)
        return {**tensors, **changed} if name == tower else tensors

    return replace(checkpoint, read=read)


class LoraTower(nn.Module):
    """A sense's tower with a low-rank change of every attention's four products.

    Hu et al. (section 7.1) found these the ones to change; query, key and value have matrices of
    their own, as theirs do. Its state, what an optimiser, a mean of weights and a checkpoint take
    of it, is the changes alone: the tower itself is shared by all of its copies.
    """

    def __init__(
        self, model: ImageBind, sense: str, rank: int = 8, alpha: float = 16.0, seed: int = 0
    ) -> None:
        """model: of `open_tower`, shared. alpha: the change is alpha / rank times B A. A is normal
        with a deviation of width^-1/2, so that A x has the size of x.

        Raises ConfigError for a rank under 1 or over half the tower's width, where the change would
        have as many weights as what it changes, and for an alpha that is not above 0.
        """
        super().__init__()
        self._frozen = _Frozen(model, SENSES[sense])
        weights = self._frozen.attention(torch.empty(0))
        width = next(iter(weights.values())).shape[1]
        if not 1 <= rank <= width // 2:
            raise ConfigError(f"--rank: {rank}, expected 1..{width // 2} for {sense}")
        if not 0 < alpha < math.inf:
            raise ConfigError(f"--alpha: {alpha:g}, expected a number above 0")
        generator = torch.Generator().manual_seed(seed)
        self.keys = tuple(weights)
        self.changes = nn.ModuleList(
            _LowRank(weight, rank, alpha / rank, generator) for weight in weights.values()
        )

    def forward(self, views: Tensor) -> Tensor:
        """float (n, *view) to unit vectors, float (n, dim)."""
        weights = self._weights()
        if self.training:
            return self._frozen(views, weights, training=True)
        parts = [self._frozen(part, weights, training=False) for part in torch.split(views, ROWS)]
        return torch.cat(parts)

    def inputs(self, views: Sequence[Float32Array]) -> list[Float32Array]:
        """The views themselves."""
        return list(views)

    @torch.no_grad()
    def changed(self) -> dict[str, Tensor]:
        """The weights with the product added."""
        return {key: weight.detach().float().cpu() for key, weight in self._weights().items()}

    def _weights(self) -> dict[str, Tensor]:
        own = self._frozen.attention(next(self.parameters()))
        return {
            key: own[key] + change() for key, change in zip(self.keys, self.changes, strict=True)
        }


class HeadTower(nn.Module):
    """A sense's head alone, a norm and a linear layer, on what its frozen blocks give.

    The blocks see each view once, before training: so there is no augmentation, and a step takes a
    millisecond whatever the tower takes.
    """

    def __init__(self, model: ImageBind, sense: str) -> None:
        """model: of `open_tower`, shared; its head is copied."""
        super().__init__()
        self._frozen = _Frozen(model, SENSES[sense])
        self._prefix = f"modality_heads.{SENSES[sense]}"
        self.head = copy.deepcopy(model.modality_heads[SENSES[sense]]).requires_grad_(True)

    def forward(self, features: Tensor) -> Tensor:
        """float (n, 1, width) of `inputs` to unit vectors, float (n, dim)."""
        return functional.normalize(self.head(features), dim=-1)

    def inputs(self, views: Sequence[Float32Array]) -> list[Float32Array]:
        """float32 (1, width) a view: its class token after the last block."""
        found: list[Float32Array] = []
        for i in range(0, len(views), ROWS):
            rows = torch.from_numpy(np.stack(views[i : i + ROWS])).to(next(self.parameters()))
            found.extend(self._frozen.class_tokens(rows).float().cpu().numpy())
        return found

    def changed(self) -> dict[str, Tensor]:
        """The head's norm and linear layer."""
        state = self.head.state_dict()
        return {
            f"{self._prefix}.{key}": value.detach().float().cpu().clone()
            for key, value in state.items()
        }


class _LowRank(nn.Module):
    """scale * B A, of the shape of one weight; of a packed one a product for each of its parts."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        parts = rows // columns  # query, key and value lie in one
        down = torch.randn(parts, rank, columns, generator=generator) * columns**-0.5
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(parts, columns, rank, device=weight.device))
        self._scale = scale

    def forward(self) -> Tensor:
        return (self.up @ self.down).flatten(0, 1) * self._scale


class _Frozen:
    """A tower that runs with other weights in place of some of its own.

    It is no module and is not copied, so that a module that holds it has no part of it in what is
    copied, averaged, moved or saved.
    """

    def __init__(self, model: ImageBind, tower: str) -> None:
        self._module = _Vectors(model, tower)

    def __deepcopy__(self, memo: object) -> _Frozen:
        return self

    def __call__(self, views: Tensor, weights: Mapping[str, Tensor], training: bool) -> Tensor:
        self._module.train(training)
        named = {f"model.{key}": weight for key, weight in weights.items()}
        vectors: Tensor = functional_call(self._module, named, (views,))
        return vectors

    def attention(self, like: Tensor) -> dict[str, Tensor]:
        """The weights of its attentions' products, by a checkpoint's keys. like: on whose device
        and in whose type it runs from now on.
        """
        names = ("attn.in_proj_weight", "attn.out_proj.weight")
        parameters = self._module.to(like).model.named_parameters()
        return {key: weight for key, weight in parameters if key.endswith(names)}

    @torch.no_grad()
    def class_tokens(self, views: Tensor) -> Tensor:
        """(n, 1, width), on the device of `views` and in their type."""
        module = self._module.to(views).eval()
        model, tower = module.model, module.tower
        tokens: Tensor = model.modality_trunks[tower](model.modality_preprocessors[tower](views))
        return tokens[:, :1]


class _Vectors(nn.Module):
    """`ImageBind.vectors` of one tower as the forward that functional_call needs."""

    def __init__(self, model: ImageBind, tower: str) -> None:
        super().__init__()
        self.model, self.tower = model, tower

    def forward(self, views: Tensor) -> Tensor:
        return self.model.vectors(self.tower, views)
