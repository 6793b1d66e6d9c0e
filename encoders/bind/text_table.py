"""The static text tower: a vector a token, fitted so that their mean is a sentence model's vector.

Needs the extra `bind`. A sentence is the unit mean of its tokens' vectors (encoders/table.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

import msgspec
import numpy as np

from agent.extras import needs_extra
from agent.types import Settings
from encoders.preprocess.base import Float32Array

with needs_extra("bind"):
    import torch
    from torch import Tensor
    from torch.nn import functional as F

__all__ = [
    "Projection",
    "TableFit",
    "TableSettings",
    "agreement",
    "fit_table",
    "quantise",
    "sentence_vectors",
    "write_table",
]

ADAM_BETAS = (0.9, 0.98)  # few steps: the second moment must follow within them
INT8_LIMIT = 127

Progress = Callable[[int, int], None]
_Positive = Annotated[float, msgspec.Meta(gt=0)]


class TableSettings(Settings, frozen=True, kw_only=True):
    """steps: of Adam over all sentences. learning_rate: at the first step, falling to 0.

    hold: weight of the squared distance of each row from where it began, which keeps rows of rare
    tokens near what the model says of the token alone.
    """

    steps: Annotated[int, msgspec.Meta(ge=1)]
    learning_rate: _Positive
    hold: Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class Projection:
    """From the model's space to the table's: (x - centre) @ axes.

    centre: float32 (384,). axes: float32 (384, dim), orthonormal columns.
    """

    centre: Float32Array
    axes: Float32Array

    @classmethod
    def of(cls, vectors: Float32Array, dim: int) -> Projection:
        """The first `dim` principal axes of `vectors` (n, 384)."""
        centre = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - centre
        # Ascending; a sign is free, so the largest part of each is made positive, or two machines
        # would not make the same space.
        _, axes = np.linalg.eigh(centred.T @ centred)
        chosen = axes[:, ::-1][:, :dim]
        largest = chosen[np.abs(chosen).argmax(axis=0), np.arange(dim)]
        return cls(centre.astype(np.float32), (chosen * np.sign(largest)).astype(np.float32))

    def __call__(self, vectors: Float32Array) -> Float32Array:
        """float32 (n, dim), not normalised."""
        return np.asarray((vectors - self.centre) @ self.axes, np.float32)


@dataclass(frozen=True)
class TableFit:
    """table: float32 (vocabulary, dim). losses: one a step."""

    table: Float32Array
    losses: list[float]


def fit_table(
    start: Float32Array,
    bags: Sequence[Sequence[int]],
    targets: Float32Array,
    settings: TableSettings,
    progress: Progress | None = None,
) -> TableFit:
    """Move the rows of `start` (vocabulary, dim), which is left as it is, so that the mean of each
    bag's rows points where its row of `targets` (n, dim), unit vectors, does.

    Full-batch Adam (Kingma and Ba 2015); the loss is the mean of 1 - cosine over sentences and
    `hold` times the mean over used rows of the squared move. Deterministic on one thread.
    """
    offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])[:-1]])
    ids = torch.from_numpy(np.concatenate([np.asarray(bag, np.int64) for bag in bags]))
    used, compact_ids = torch.unique(ids, return_inverse=True)
    begin = torch.from_numpy(start)[used]
    rows = begin.clone().requires_grad_()
    wanted, edges = torch.from_numpy(targets), torch.from_numpy(offsets)
    optimiser = torch.optim.Adam([rows], lr=settings.learning_rate, betas=ADAM_BETAS)
    losses = []
    for step in range(settings.steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        optimiser.zero_grad(set_to_none=True)
        means = F.embedding_bag(compact_ids, rows, edges, mode="mean")
        loss = (1 - F.cosine_similarity(means, wanted)).mean()
        moved: Tensor = (rows - begin).square().sum(1).mean()
        torch.autograd.backward(loss + settings.hold * moved)
        optimiser.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step + 1, settings.steps)
    table = start.copy()
    table[used.numpy()] = rows.detach().numpy()
    return TableFit(table, losses)


def sentence_vectors(table: Float32Array, bags: Sequence[Sequence[int]]) -> Float32Array:
    """float32 (n, dim), unit vectors."""
    means = np.stack([table[list(bag)].mean(axis=0) for bag in bags])
    unit: Float32Array = means / np.linalg.norm(means, axis=1, keepdims=True)
    return unit


def agreement(
    table: Float32Array,
    bags: Sequence[Sequence[int]],
    targets: Float32Array,
    original: Float32Array,
) -> tuple[float, float]:
    """Mean cosine of the sentences with `targets` (n, dim), and the correlation of their pairwise
    cosines with those of `original` (n, any): both 1 for a table that loses nothing.
    """
    vectors = sentence_vectors(table, bags)
    cosine = float((vectors * targets).sum(axis=1).mean())
    upper = np.triu_indices(len(vectors), 1)
    reference = original / np.linalg.norm(original, axis=1, keepdims=True)
    pairs = np.corrcoef((vectors @ vectors.T)[upper], (reference @ reference.T)[upper])
    return cosine, float(pairs[0, 1])


def quantise(table: Float32Array) -> tuple[Any, Float32Array]:
    """int8 (n, dim) and float32 (n,): row i is about q[i] * scale[i]. A row of zeros stays one, and
    one so small that its scale would be none becomes one.
    """
    largest = np.abs(table).max(axis=1)
    least = INT8_LIMIT * np.finfo(np.float32).tiny
    scale = (np.where(largest > least, largest, 1) / INT8_LIMIT).astype(np.float32)
    return np.rint(table / scale[:, np.newaxis]).astype(np.int8), scale


def write_table(file: BinaryIO, table: Float32Array) -> None:
    """The .npz that encoders/table.py reads; the same bytes for the same table."""
    q, scale = quantise(table)
    np.savez_compressed(file, q=q, scale=scale)
