"""ImageBind's towers with seeded random weights, which behave as trained ones do.

Needs the extra `export`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.extras import needs_extra
from encoders.imagebind.checkpoint import Checkpoint, Tensors
from encoders.imagebind.dims import GEOMETRY, TOWERS, Dims, Shape, TowerDims, expected_shapes

with needs_extra("export"):
    import torch
    from torch import Tensor

__all__ = ["random_checkpoint"]


def random_checkpoint(dims: Dims, seed: int, towers: Sequence[str] = TOWERS) -> Checkpoint:
    """Untrained weights of the size `dims`; a tower is made anew each time it is asked for.

    A tower depends on `seed` >= 0 and its own sizes alone, not on which others there are.
    """
    chosen = Dims(dims.out, {tower: dims.towers[tower] for tower in TOWERS if tower in towers})

    def make(tower: str) -> Tensors:
        size = chosen.towers[tower]
        generator = torch.Generator().manual_seed(seed * len(TOWERS) + TOWERS.index(tower))
        return {
            key: _random(key, shape, size, generator)
            for key, shape in expected_shapes(tower, size, chosen.out).items()
        }

    return Checkpoint(f"random-{seed}", chosen, make)


def _random(key: str, shape: Shape, size: TowerDims, generator: torch.Generator) -> Tensor:
    """Tokens of about unit variance, and a residual stream that grows by as much over all blocks
    (the initialisation of GPT-2 and CLIP); where that gives nearly the same vector for every
    input, as a trained tower rather than a fresh one.
    """
    tower, name = key.split(".")[1], key.rsplit(".", 1)[-1]
    if name == "log_logit_scale":
        scale = GEOMETRY[tower].scale or 1 / 0.07  # CLIP's, before training
        return torch.tensor(math.log(scale))
    if name == "mask":
        return torch.full(shape, -math.inf).triu(1)
    made = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return made.mul_(0.02).add_(1.0 if name == "weight" else 0.0)
    if name in ("cls_token", "pos_embed"):
        return made.mul_(0.1)
    if "token_embedding" in key:
        return made
    made *= math.prod(shape[1:]) ** -0.5
    if key.endswith(("out_proj.weight", "fc2.weight")):
        made *= (2 * size.blocks) ** -0.5
    if name == "in_proj_weight":
        made[: 2 * size.width] *= 1.5  # sharper scores, or attention gives the mean of all patches
    if "_stem." in key:
        # Trained stems look at contrast; the plain mean would drown it (gravity, a grey picture).
        patches = made.view(size.width, GEOMETRY[tower].input[0], -1)
        patches -= 0.9 * patches.mean(-1, keepdim=True)
    return made
