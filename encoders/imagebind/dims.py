"""What an ImageBind is made of: the towers' geometry, their sizes, and every key of a checkpoint.

No torch here. Names and shapes are those of the published checkpoint (1,311 entries at HUGE); the
towers go by its names, of which "vision" is the sense that the agent calls "image".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "BUFFERS",
    "CONTEXT",
    "GEOMETRY",
    "HUGE",
    "TINY",
    "TOWERS",
    "VOCABULARY",
    "Dims",
    "Geometry",
    "TowerDims",
    "expected_shapes",
    "is_buffer",
]

Shape = tuple[int, ...]

CONTEXT = 77  # tokens of a text
VOCABULARY = 49_408
MLP_RATIO = 4


@dataclass(frozen=True)
class Geometry:
    """Of a tower, the same at every size.

    input: of one item, without the batch. tokens: into the blocks, with the class token.
    stem: key below the preprocessor, without ".weight", and its kernel (channels first).
    scale: what the published unit vectors are multiplied by; None: not at all, or (text) learned.
    """

    input: Shape
    tokens: int
    stem: str
    kernel: Shape
    stem_norm: bool = True
    bias_kv: bool = True
    scale: float | None = None


GEOMETRY: Mapping[str, Geometry] = MappingProxyType(
    {
        "vision": Geometry((3, 2, 224, 224), 257, "rgbt_stem.proj.1", (3, 2, 14, 14), False, False),
        "text": Geometry((CONTEXT,), CONTEXT, "token_embedding", (), False, False),
        "audio": Geometry((1, 128, 204), 229, "rgbt_stem.proj", (1, 16, 16), scale=20.0),
        "depth": Geometry((1, 224, 224), 197, "depth_stem.proj", (1, 16, 16), scale=5.0),
        "thermal": Geometry((1, 224, 224), 197, "rgbt_stem.proj", (1, 16, 16), scale=10.0),
        # A token is 8 ticks of 6 channels, channel-major.
        "imu": Geometry((6, 2000), 251, "imu_stem.proj", (48,), scale=5.0),
    }
)
TOWERS = tuple(GEOMETRY)


@dataclass(frozen=True)
class TowerDims:
    """width: of a token; the MLP is four times as wide. heads: a divisor of width."""

    width: int
    blocks: int
    heads: int

    def __post_init__(self) -> None:
        if min(self.width, self.blocks, self.heads) < 1 or self.width % self.heads:
            raise ValueError(f"{self}: expected positive numbers and heads that divide the width")


@dataclass(frozen=True)
class Dims:
    """Of some or all of the towers. out: length of every vector."""

    out: int
    towers: Mapping[str, TowerDims]


HUGE = Dims(
    1024,
    MappingProxyType(
        {
            "vision": TowerDims(1280, 32, 16),
            "text": TowerDims(1024, 24, 16),
            "audio": TowerDims(768, 12, 12),
            "depth": TowerDims(384, 12, 8),
            "thermal": TowerDims(768, 12, 12),
            "imu": TowerDims(512, 6, 8),
        }
    ),
)
# Small enough for a test to export in seconds; nothing was ever trained at this size.
TINY = Dims(
    48,
    MappingProxyType(
        {
            "vision": TowerDims(64, 2, 4),
            "text": TowerDims(32, 2, 4),
            "audio": TowerDims(48, 2, 4),
            "depth": TowerDims(32, 2, 4),
            "thermal": TowerDims(48, 2, 4),
            "imu": TowerDims(32, 2, 4),
        }
    ),
)

BUFFERS = frozenset(
    [f"modality_postprocessors.{t}.1.log_logit_scale" for t in TOWERS if GEOMETRY[t].scale]
    + ["modality_preprocessors.text.mask"]
)


def is_buffer(key: str) -> bool:
    """Whether `key` is in a checkpoint without being trained: four fixed scales, one mask."""
    return key in BUFFERS


def expected_shapes(tower: str, dims: TowerDims, out: int) -> dict[str, Shape]:
    """Every key of one tower in a checkpoint, with its shape. All are float32."""
    geometry, width = GEOMETRY[tower], dims.width
    pre, trunk = f"modality_preprocessors.{tower}", f"modality_trunks.{tower}"
    head, post = f"modality_heads.{tower}", f"modality_postprocessors.{tower}.1.log_logit_scale"
    shapes: dict[str, Shape] = {}
    if tower == "text":
        shapes[f"{pre}.pos_embed"] = (1, CONTEXT, width)
        shapes[f"{pre}.mask"] = (CONTEXT, CONTEXT)
        shapes[f"{pre}.{geometry.stem}.weight"] = (VOCABULARY, width)
    else:
        shapes[f"{pre}.cls_token"] = (1, 1, width)
        shapes[f"{pre}.{geometry.stem}.weight"] = (width, *geometry.kernel)
        if geometry.stem_norm:
            norm = f"{pre}.{geometry.stem.split('.')[0]}.norm_layer"
            shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
        holder = pre if tower == "imu" else f"{pre}.pos_embedding_helper"
        shapes[f"{holder}.pos_embed"] = (1, geometry.tokens, width)
    if tower == "vision":
        before = f"{trunk}.pre_transformer_layer.0"
        shapes |= {f"{before}.weight": (width,), f"{before}.bias": (width,)}
    for number in range(dims.blocks):
        block = f"{trunk}.blocks.{number}"
        for norm in ("norm_1", "norm_2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        for name, rows, columns in (
            ("attn.in_proj", 3 * width, width),
            ("attn.out_proj", width, width),
            ("mlp.fc1", MLP_RATIO * width, width),
            ("mlp.fc2", width, MLP_RATIO * width),
        ):
            # torch's packed projection is a bare parameter, the others are layers.
            dot = "_" if name == "attn.in_proj" else "."
            shapes[f"{block}.{name}{dot}weight"] = (rows, columns)
            shapes[f"{block}.{name}{dot}bias"] = (rows,)
        if geometry.bias_kv:
            shapes |= {f"{block}.attn.bias_{name}": (1, 1, width) for name in "kv"}
    norm, linear = {
        "text": ("proj.0", "proj.1"),
        "imu": ("0", "3"),  # a dropout takes the place before
    }.get(tower, ("0", "2"))
    shapes |= {f"{head}.{norm}.weight": (width,), f"{head}.{norm}.bias": (width,)}
    shapes[f"{head}.{linear}.weight"] = (out, width)
    if tower == "text" or geometry.scale:
        shapes[post] = ()
    return shapes
