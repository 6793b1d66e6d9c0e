"""ImageBind in torch: what exports are compared with, and what is fine-tuned.

Girdhar et al., "ImageBind: One Embedding Space To Bind Them All" (CVPR 2023); the towers are
vision transformers (Dosovitskiy et al., 2021) and CLIP's text tower (Radford et al., 2021).
Written from their description; parameters have the published names, so that a published
checkpoint loads as it is. Needs the extra `export`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from agent.errors import EncodeFailed
from agent.extras import needs_extra
from encoders.imagebind.checkpoint import Checkpoint
from encoders.imagebind.dims import (
    CONTEXT,
    GEOMETRY,
    MLP_RATIO,
    VOCABULARY,
    Dims,
    TowerDims,
)

with needs_extra("export"):
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

__all__ = ["ImageBind", "load"]

STEM_EPS = 1e-5
EPS = 1e-6  # of every other LayerNorm
AUDIO_STRIDE = 10  # of its 16 x 16 patches, which overlap; all others lie side by side
IMU_TICKS = 8  # a token
IMU_DROPOUT = 0.5
TEXT_SCALE = 1 / 0.07  # before training, as CLIP's
MAX_SCALE = 100.0
# Axes of a batch of clips; texts and IMU windows have none.
CLIP_AXES = {t: len(g.input) + 2 for t, g in GEOMETRY.items() if t not in ("text", "imu")}


class ImageBind(nn.Module):
    """Some or all of the towers, without weights of any meaning until `load` gives them.

    In training mode only, the IMU's head drops out half of its input; there is no stochastic
    depth.
    """

    def __init__(self, dims: Dims, towers: Sequence[str] | None = None) -> None:
        super().__init__()
        sizes = {tower: dims.towers[tower] for tower in (dims.towers if towers is None else towers)}
        self.modality_preprocessors = nn.ModuleDict(
            {t: _Text(d) if t == "text" else _Sense(t, d) for t, d in sizes.items()}
        )
        self.modality_trunks = nn.ModuleDict({t: _Trunk(t, d) for t, d in sizes.items()})
        self.modality_heads = nn.ModuleDict({t: _head(t, d, dims.out) for t, d in sizes.items()})
        self.modality_postprocessors = nn.ModuleDict({t: _postprocessor(t) for t in sizes})

    @property
    def towers(self) -> tuple[str, ...]:
        """The towers it has."""
        return tuple(self.modality_trunks)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The published outputs by tower: float (n, out), unit vectors times the tower's scale.

        inputs: as `vectors` takes them; pictures and sound may have an axis of clips after the
        first, (n, clips, *item), and then give the mean over the clips of what each gives, which
        is shorter than the scale. Raises EncodeFailed as `vectors` does.
        """
        outputs = {}
        for tower, x in inputs.items():
            clips = x.ndim == CLIP_AXES.get(tower)
            self._check(tower, x, 2 if clips else 1)
            items = x.flatten(0, 1) if clips else x
            scaled: Tensor = self.modality_postprocessors[tower](self._raw(tower, items))
            outputs[tower] = scaled.reshape(*x.shape[:2], -1).mean(1) if clips else scaled
        return outputs

    def vectors(self, tower: str, x: Tensor) -> Tensor:
        """Unit vectors, float (n, out), of n items.

        x: float vision (n, 3, 224, 224) or, of 1 or 2 frames, (n, 3, frames, 224, 224); audio
        (n, 1, 128, 204); depth and thermal (n, 1, 224, 224); imu (n, 6, 2000); text int64 (n, 77),
        each row's end token the greatest and 0 after it. Raises EncodeFailed for any other shape,
        also for those that the published model takes and gives a wrong vector for: three frames,
        of which it drops one; a video without clips, which it reads as pictures; IMU ticks over.
        """
        self._check(tower, x, 1)
        return functional.normalize(self._raw(tower, x), dim=-1)

    def _raw(self, tower: str, x: Tensor) -> Tensor:
        preprocessor, trunk = self.modality_preprocessors[tower], self.modality_trunks[tower]
        tokens = preprocessor(x)
        if tower == "text":
            tokens = trunk(tokens, preprocessor.mask)
            raw: Tensor = self.modality_heads[tower](tokens, x)
        else:
            raw = self.modality_heads[tower](trunk(tokens))
        return raw

    def _check(self, tower: str, x: Tensor, leading: int) -> None:
        if tower not in self.modality_trunks:
            raise EncodeFailed(f"no {tower} tower, expected one of {', '.join(self.towers)}")
        item = GEOMETRY[tower].input
        items = [item]
        if tower == "vision":
            items.append((item[0], 1, *item[2:]))
            if leading == 1:
                items.append((item[0], *item[2:]))
        is_text = tower == "text"
        right_type = x.dtype == torch.int64 if is_text else x.is_floating_point()
        if tuple(x.shape[leading:]) not in items or not right_type or 0 in x.shape[1:leading]:
            kind, lead = "int64" if is_text else "float", "n, clips" if leading == 2 else "n"
            shapes = " or ".join(f"[{lead}, {', '.join(map(str, shape))}]" for shape in items)
            found = f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
            raise EncodeFailed(f"{tower} input is {found}, expected {kind}{shapes}")


def load(checkpoint: Checkpoint, towers: Sequence[str] | None = None) -> ImageBind:
    """The towers named, or all that `checkpoint` holds, in evaluation mode.

    The weights are the checkpoint's own memory, mapped where its are, not a copy of it: training
    changes this process's pages and never the file. Raises ConfigError for a tower it lacks.
    """
    chosen = checkpoint.towers if towers is None else tuple(towers)
    tensors = {key: value for t in chosen for key, value in checkpoint.tensors(t).items()}
    with torch.device("meta"):
        model = ImageBind(checkpoint.dims, chosen)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()


class _Sense(nn.Module):
    """(n, *item) to (n, tokens, width): the class token and the patches, each in its place."""

    def __init__(self, tower: str, dims: TowerDims) -> None:
        super().__init__()
        self._stem = GEOMETRY[tower].stem.split(".")[0]
        self._positions = "pos_embed" if tower == "imu" else "pos_embedding_helper.pos_embed"
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims.width))
        self.add_module(self._stem, _Stem(tower, dims.width))
        positions = nn.Parameter(torch.zeros(1, GEOMETRY[tower].tokens, dims.width))
        if tower == "imu":
            self.pos_embed = positions
        else:
            self.pos_embedding_helper = nn.ParameterDict({"pos_embed": positions})

    def forward(self, x: Tensor) -> Tensor:
        patches = self.get_submodule(self._stem)(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1)
        return tokens + self.get_parameter(self._positions)


class _Stem(nn.Module):
    """(n, *item) to (n, patches, width)."""

    def __init__(self, tower: str, width: int) -> None:
        super().__init__()
        channels, *sides = GEOMETRY[tower].kernel
        side = sides[-1] if sides else 0
        stride = AUDIO_STRIDE if tower == "audio" else side
        self.proj: nn.Module
        if tower == "imu":
            self.proj = nn.Linear(channels, width, bias=False)
        elif tower == "vision":
            kernel = (sides[0], side, side)
            conv = nn.Conv3d(channels, width, kernel, stride=kernel, bias=False)
            self.proj = nn.Sequential(_TwoFrames(), conv)
        else:
            self.proj = nn.Conv2d(channels, width, side, stride=stride, bias=False)
        self.norm_layer = (
            nn.LayerNorm(width, eps=STEM_EPS) if GEOMETRY[tower].stem_norm else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.proj, nn.Linear):
            ticks = x.reshape(*x.shape[:2], -1, IMU_TICKS).transpose(1, 2)
            patches = self.proj(ticks.flatten(2))
        else:
            patches = self.proj(x).flatten(2).transpose(1, 2)
        tokens: Tensor = self.norm_layer(patches)
        return tokens


class _TwoFrames(nn.Module):
    """(n, 3, h, w), (n, 3, 1, h, w) or (n, 3, 2, h, w) to the last: a still is given twice."""

    def forward(self, x: Tensor) -> Tensor:
        clip = x.unsqueeze(2) if x.ndim == 4 else x
        return clip.expand(-1, -1, 2, -1, -1)


class _Text(nn.Module):
    """int64 (n, 77) to (n, 77, width); its causal mask is part of a checkpoint."""

    mask: Tensor

    def __init__(self, dims: TowerDims) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, dims.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, CONTEXT, dims.width))
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), -math.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.token_embedding(x)
        return tokens + self.pos_embed


class _Trunk(nn.Module):
    """(n, tokens, width) to the same; mask: added to the scores."""

    def __init__(self, tower: str, dims: TowerDims) -> None:
        super().__init__()
        before = [nn.LayerNorm(dims.width, eps=EPS)] if tower == "vision" else []
        self.pre_transformer_layer = nn.Sequential(*before)
        bias_kv = GEOMETRY[tower].bias_kv
        self.blocks = nn.ModuleList(_Block(dims, bias_kv) for _ in range(dims.blocks))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        # Tokens first: with the batch first, torch takes another path in evaluation than in
        # training, which rounds otherwise.
        x = self.pre_transformer_layer(x).transpose(0, 1)
        for block in self.blocks:
            x = block(x, mask)
        return x.transpose(0, 1)


class _Block(nn.Module):
    """(tokens, n, width) to the same. Pre-norm: attention, then an MLP with the exact (erf) GELU.

    Some towers attend to one more key and value, learned, after those of the tokens.
    """

    def __init__(self, dims: TowerDims, bias_kv: bool) -> None:
        super().__init__()
        width, hidden = dims.width, MLP_RATIO * dims.width
        self.norm_1 = nn.LayerNorm(width, eps=EPS)
        self.attn = nn.MultiheadAttention(width, dims.heads, add_bias_kv=bias_kv)
        self.norm_2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, hidden), gelu=nn.GELU(), fc2=nn.Linear(hidden, width))
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        mixed: Tensor = x + self.mlp(self.norm_2(x))
        return mixed


def _head(tower: str, dims: TowerDims, out: int) -> nn.Module:
    norm, linear = nn.LayerNorm(dims.width, eps=EPS), nn.Linear(dims.width, out, bias=False)
    if tower == "text":
        return _TextHead(norm, linear)
    dropout = [nn.Dropout(IMU_DROPOUT)] if tower == "imu" else []
    return nn.Sequential(norm, _ClassToken(), *dropout, linear)


class _ClassToken(nn.Module):
    """(n, tokens, width) to (n, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class _TextHead(nn.Module):
    """(n, 77, width), int64 (n, 77) to (n, out): of the end token, which has the greatest id."""

    def __init__(self, norm: nn.Module, linear: nn.Module) -> None:
        super().__init__()
        self.proj = nn.Sequential(norm, linear)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        ends = x[torch.arange(len(x), device=x.device), ids.argmax(dim=-1)]
        out: Tensor = self.proj(ends)
        return out


def _postprocessor(tower: str) -> nn.Module:
    scale = TEXT_SCALE if tower == "text" else GEOMETRY[tower].scale
    scaling = [] if scale is None else [_Scale(scale, learned=tower == "text")]
    return nn.Sequential(_Unit(), *scaling)


class _Unit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=-1)


class _Scale(nn.Module):
    """Times a factor that is kept as its logarithm, at most 100."""

    log_logit_scale: Tensor

    def __init__(self, scale: float, learned: bool) -> None:
        super().__init__()
        log_scale = torch.tensor(math.log(scale))
        if learned:
            self.log_logit_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_logit_scale", log_scale)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.log_logit_scale.exp().clamp(max=MAX_SCALE)
