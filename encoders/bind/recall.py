"""How a tower does on examples, while it is trained.

Needs the extra `bind`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent.extras import needs_extra
from encoders.bind.examples import Examples
from encoders.bind.losses import kept_negatives
from encoders.preprocess.base import Float32Array

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = ["embed", "negatives", "recall_at_1"]

EMBED_BATCH = 256
SAME = 1 - 1e-5  # anchors with at least this cosine are one anchor, within rounding


@torch.no_grad()
def embed(tower: nn.Module, views: Sequence[Float32Array]) -> Float32Array:
    """float32 (n, dim): the vectors of `views` in evaluation mode, the mode it had put back."""
    device, was = next(tower.parameters()).device, tower.training
    tower.eval()
    parts = [
        tower(torch.from_numpy(np.stack(views[i : i + EMBED_BATCH])).to(device)).float().cpu()
        for i in range(0, len(views), EMBED_BATCH)
    ]
    tower.train(was)
    vectors: Float32Array = torch.cat(parts).numpy()
    return vectors


def recall_at_1(vectors: Float32Array, examples: Examples) -> float:
    """Share of `vectors` (n, dim) whose own anchor is nearer than every other one: those of the
    same recording, label or anchor are left out, and a tie is a miss. NaN where there is no other.
    """
    anchors, groups, labels = map(
        torch.from_numpy, (examples.anchors, examples.groups, examples.labels)
    )
    found = asked = 0
    for rows in torch.split(torch.arange(len(anchors)), EMBED_BATCH):
        cosines = torch.from_numpy(vectors)[rows] @ anchors.T
        others = negatives(anchors, groups, labels, rows)
        nearest = cosines.masked_fill(~others, -torch.inf).amax(1)
        own = cosines.gather(1, rows[:, None])[:, 0]
        asked += int(others.any(1).sum())
        found += int(((own > nearest) & others.any(1)).sum())
    return found / asked if asked else math.nan


def negatives(
    anchors: Tensor, groups: Tensor, labels: Tensor, rows: Tensor | None = None
) -> Tensor:
    """As losses.kept_negatives, without those of the same anchor; of some rows or of all."""
    kept = kept_negatives(groups, labels, rows)
    return kept & (anchors[slice(None) if rows is None else rows] @ anchors.T < SAME)
