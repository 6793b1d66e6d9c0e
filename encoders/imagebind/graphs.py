"""ImageBind's towers as graphs that run fast: the same vectors as model.py's, of fewer operations.

What is exact algebra and done once, here, is not done at every run: weights lie as a MatMul wants
them, 1/sqrt(head width) is part of the query's projection, the class token part of the positions.
Tokens are batch first. The last block is computed for the pooled token alone, a text for its own
length alone (the causal mask lets no later token matter), and vision's two frames are six channels
of one 2-D convolution. Operations are those that ONNX Runtime fuses. Needs the extra `export`.
"""

from __future__ import annotations

import math

from agent.extras import needs_extra
from encoders.imagebind.dims import CONTEXT, GEOMETRY, TowerDims
from encoders.imagebind.model import AUDIO_STRIDE, EPS, IMU_TICKS, STEM_EPS

with needs_extra("export"):
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

__all__ = ["tower_graph"]

LEAST_LENGTH = 1e-12  # as torch.nn.functional.normalize has it


def tower_graph(
    tensors: dict[str, Tensor], dims: TowerDims, tower: str, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """One tower, for exporting: float32 (n, *GEOMETRY[tower].input) to float32 (n, out) unit
    vectors; text takes int64 (n, length), length at most 77, 0 after each row's end token.

    tensors: as Checkpoint.tensors; each is taken out once it is used, so that a tower is in memory
    about once. dtype: of weights and products; float32 inside LayerNormalization, by its ONNX
    definition, and where lengths are made one.
    """
    graph = _Text(tensors, dims, dtype) if tower == "text" else _Sense(tensors, dims, tower, dtype)
    return graph.eval()


class _Sense(nn.Module):
    """A class token and patches; the class token is what is pooled."""

    def __init__(
        self, tensors: dict[str, Tensor], dims: TowerDims, tower: str, dtype: torch.dtype
    ) -> None:
        super().__init__()
        geometry, pre, is_imu = GEOMETRY[tower], f"modality_preprocessors.{tower}", tower == "imu"
        holder = pre if is_imu else f"{pre}.pos_embedding_helper"
        positions = tensors.pop(f"{holder}.pos_embed").clone()
        positions[:, :1] += tensors.pop(f"{pre}.cls_token")
        self.register_buffer("positions", positions.to(dtype))
        stem = tensors.pop(f"{pre}.{geometry.stem}.weight").to(dtype)
        # IMU's product of tokens of ticks, channel-major, is a convolution too. As one it stays
        # float32 in int8, as the others do: m/s^2 and rad/s have no scale in common (measured at
        # full size: least cosine 0.892 with it in int8, 0.998 without).
        kernel = stem.reshape(len(stem), -1, IMU_TICKS) if is_imu else stem.flatten(1, -3)
        self.register_buffer("kernel", kernel.contiguous())
        self._stride = AUDIO_STRIDE if tower == "audio" else kernel.shape[-1]
        self.stem_norm: nn.Module = nn.Identity()
        if geometry.stem_norm:
            norm = f"{pre}.{geometry.stem.split('.')[0]}.norm_layer"
            self.stem_norm = _norm(tensors, norm, dtype, STEM_EPS)
        self.norm: nn.Module = nn.Identity()
        if tower == "vision":
            self.norm = _norm(tensors, f"modality_trunks.{tower}.pre_transformer_layer.0", dtype)
        self.blocks = _blocks(tensors, dims, tower, dtype)
        self.head = _Head(tensors, tower, "0", "3" if is_imu else "2", dtype)

    positions: Tensor
    kernel: Tensor

    def forward(self, input: Tensor) -> Tensor:
        x = input.to(self.kernel.dtype)
        if self.kernel.ndim == 3:
            patches = functional.conv1d(x, self.kernel, stride=self._stride)
        else:
            x = x.flatten(1, -3)
            patches = functional.conv2d(x, self.kernel, stride=self._stride).flatten(2)
        patches = patches.transpose(1, 2)
        # A row of zeros where the class token comes: it is in the positions.
        tokens = functional.pad(self.stem_norm(patches), (0, 0, 1, 0)) + self.positions
        tokens = self.norm(tokens)
        for block in self.blocks[:-1]:
            tokens = block(tokens, tokens)
        pooled: Tensor = self.head(self.blocks[-1](tokens[:, :1], tokens))
        return pooled


class _Text(nn.Module):
    """Causal; the end token is what is pooled."""

    def __init__(self, tensors: dict[str, Tensor], dims: TowerDims, dtype: torch.dtype) -> None:
        super().__init__()
        pre = "modality_preprocessors.text"
        table = tensors.pop(f"{pre}.{GEOMETRY['text'].stem}.weight")
        self.register_buffer("table", table.to(dtype))
        self.register_buffer("positions", tensors.pop(f"{pre}.pos_embed").to(dtype))
        # -inf is a number of half precision too, and no row is without one that is finite.
        mask = torch.full((CONTEXT, CONTEXT), -math.inf, dtype=dtype).triu(1)
        self.register_buffer("mask", mask)
        self.blocks = _blocks(tensors, dims, "text", dtype)
        self.head = _Head(tensors, "text", "proj.0", "proj.1", dtype)

    table: Tensor
    positions: Tensor
    mask: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        tokens = functional.embedding(ids, self.table) + self.positions[:, :length]
        mask = self.mask[:, :length]
        for block in self.blocks[:-1]:
            tokens = block(tokens, tokens, mask[:length])
        ends = ids.argmax(dim=1)
        end = tokens.gather(1, ends[:, None, None].expand(-1, 1, tokens.shape[2]))
        # Rows of a batch end at different places, and see no further.
        pooled: Tensor = self.head(self.blocks[-1](end, tokens, mask[ends][:, None, None]))
        return pooled


class _Block(nn.Module):
    """Pre-norm attention of `rows` to `tokens`, and the MLP of `rows`; all but the last block
    take each token as a row.
    """

    def __init__(
        self, tensors: dict[str, Tensor], dims: TowerDims, prefix: str, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.heads = dims.heads
        self.norm_1 = _norm(tensors, f"{prefix}.norm_1", dtype)
        self.norm_2 = _norm(tensors, f"{prefix}.norm_2", dtype)
        # Three products in place of one that is split again: as fast in ONNX Runtime, and the
        # last block wants its query of one token only.
        weights = tensors.pop(f"{prefix}.attn.in_proj_weight").chunk(3)
        biases = tensors.pop(f"{prefix}.attn.in_proj_bias").chunk(3)
        scale = (dims.width // dims.heads) ** -0.5
        self.query = _Affine(weights[0] * scale, biases[0] * scale, dtype)
        self.key = _Affine(weights[1], biases[1], dtype)
        self.value = _Affine(weights[2], biases[2], dtype)
        # One more key and value after those of the tokens, where the tower has them.
        for name in ("bias_k", "bias_v"):
            bias = tensors.pop(f"{prefix}.attn.{name}", None)
            self.register_buffer(name, None if bias is None else bias.to(dtype))
        self.out = _affine(tensors, f"{prefix}.attn.out_proj", dtype)
        self.fc1 = _affine(tensors, f"{prefix}.mlp.fc1", dtype)
        self.fc2 = _affine(tensors, f"{prefix}.mlp.fc2", dtype)

    bias_k: Tensor | None
    bias_v: Tensor | None

    def forward(self, rows: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        seen = self.norm_1(tokens)
        query = self.query(seen if rows is tokens else self.norm_1(rows))
        key, value = self.key(seen), self.value(seen)
        if self.bias_k is not None and self.bias_v is not None:
            # By shape: len() would fix the number of rows that the exporter sees.
            key = torch.cat([key, self.bias_k.expand(key.shape[0], -1, -1)], dim=1)
            value = torch.cat([value, self.bias_v.expand(key.shape[0], -1, -1)], dim=1)
        scores = self._split(query).transpose(1, 2) @ self._split(key).permute(0, 2, 3, 1)
        if mask is not None:
            scores = scores + mask
        mixed = scores.softmax(dim=-1) @ self._split(value).transpose(1, 2)
        rows = rows + self.out(mixed.transpose(1, 2).flatten(2))
        hidden = functional.gelu(self.fc1(self.norm_2(rows)))
        out: Tensor = rows + self.fc2(hidden)
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(n, tokens, width) to (n, tokens, heads, width / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1)


class _Head(nn.Module):
    """(n, 1, width) to float32 (n, out) unit vectors."""

    def __init__(
        self, tensors: dict[str, Tensor], tower: str, norm: str, linear: str, dtype: torch.dtype
    ) -> None:
        super().__init__()
        head = f"modality_heads.{tower}"
        self.norm = _norm(tensors, f"{head}.{norm}", dtype)
        self.register_buffer("weight", _columns(tensors.pop(f"{head}.{linear}.weight"), dtype))

    weight: Tensor

    def forward(self, x: Tensor) -> Tensor:
        raw = (self.norm(x[:, 0]) @ self.weight).float()
        vectors: Tensor = raw / raw.norm(dim=-1, keepdim=True).clamp_min(LEAST_LENGTH)
        return vectors


class _Affine(nn.Module):
    """x @ weight + bias. Not nn.Linear: its weight lies the other way round."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", _columns(weight, dtype))
        self.register_buffer("bias", bias.to(dtype))

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def _affine(tensors: dict[str, Tensor], prefix: str, dtype: torch.dtype) -> _Affine:
    return _Affine(tensors.pop(f"{prefix}.weight"), tensors.pop(f"{prefix}.bias"), dtype)


def _columns(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(out, in) to (in, out), laid out so."""
    return weight.to(dtype).T.contiguous()


def _norm(
    tensors: dict[str, Tensor], prefix: str, dtype: torch.dtype, eps: float = EPS
) -> nn.LayerNorm:
    weight, bias = (tensors.pop(f"{prefix}.{name}").to(dtype) for name in ("weight", "bias"))
    norm = nn.LayerNorm(len(weight), eps=eps, dtype=dtype)
    norm.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return norm.requires_grad_(False)


def _blocks(
    tensors: dict[str, Tensor], dims: TowerDims, tower: str, dtype: torch.dtype
) -> nn.ModuleList:
    trunk = f"modality_trunks.{tower}.blocks"
    return nn.ModuleList(
        _Block(tensors, dims, f"{trunk}.{number}", dtype) for number in range(dims.blocks)
    )
