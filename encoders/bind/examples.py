"""What a tower is trained on: views of the new sense beside the frozen anchor's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.errors import ConfigError
from agent.types import Array, Int64Array
from encoders.preprocess.base import Float32Array

__all__ = ["Examples"]


@dataclass(frozen=True)
class Examples:
    """n examples, n >= 1. Nothing is copied: the arrays are shared with who made them.

    views: one entry an example, float32 of one shape, as the tower's preprocessing makes them.
    anchors: float32 (n, dim), unit vectors of the frozen anchor. groups: int64 (n,), number of the
    recording: what is of one recording is alike and never stands on both sides of a split. labels:
    int64 (n,), -1 for none.

    Raises ConfigError where the parts do not fit one another.
    """

    views: list[Float32Array]
    anchors: Float32Array
    groups: Int64Array
    labels: Int64Array

    def __post_init__(self) -> None:
        count = len(self.views)
        if not count:
            raise ConfigError("examples: none, expected at least one")
        shapes = {view.shape for view in self.views}
        if len(shapes) > 1:
            raise ConfigError(f"examples: views of shapes {sorted(shapes)}, expected one shape")
        if self.anchors.ndim != 2 or len(self.anchors) != count:
            raise ConfigError(f"anchors: {list(self.anchors.shape)}, expected [{count}, dim]")
        lengths = np.linalg.norm(self.anchors, axis=1)
        if not bool((np.abs(lengths - 1) < 1e-3).all()):
            raise ConfigError(
                f"anchors: lengths {lengths.min():.3f}..{lengths.max():.3f}, expected unit vectors"
            )
        for name, numbers in (("groups", self.groups), ("labels", self.labels)):
            if numbers.shape != (count,):
                raise ConfigError(f"{name}: {list(numbers.shape)}, expected [{count}]")

    def __len__(self) -> int:
        return len(self.views)

    @property
    def view_shape(self) -> tuple[int, ...]:
        return self.views[0].shape

    def take(self, indices: Sequence[int] | Array) -> Examples:
        """The examples of `indices`, in that order. Raises ConfigError where there are none."""
        chosen = np.asarray(indices, np.int64)
        return Examples(
            [self.views[i] for i in chosen],
            self.anchors[chosen],
            self.groups[chosen],
            self.labels[chosen],
        )

    def split(self, fraction: float, seed: int) -> tuple[Examples, Examples]:
        """Train and dev: about `fraction` (0..1) of the groups for dev, at least one on each side.

        Where there are labels, groups are taken label by label, so that dev has every label that
        has two groups or more; a group counts for the label that it has most. The same seed gives
        the same split. Raises ConfigError where there are fewer than two groups.
        """
        groups, first = np.unique(self.groups, return_index=True)
        if len(groups) < 2:
            raise ConfigError(
                f"examples: {len(groups)} recording, expected at least 2 to keep some apart for dev"
            )
        rng = np.random.default_rng(seed)
        by_label: dict[int, list[int]] = {}
        for group in groups[np.argsort(first)]:
            values, counts = np.unique(self.labels[self.groups == group], return_counts=True)
            by_label.setdefault(int(values[counts.argmax()]), []).append(int(group))
        dev: list[int] = []
        for label in sorted(by_label):
            members = rng.permutation(by_label[label])
            wanted = max(1, round(fraction * len(members))) if len(members) > 1 else 0
            dev.extend(members[: min(wanted, len(members) - 1)].tolist())
        if not dev:  # every label has one group only: whole labels are kept apart
            shuffled = rng.permutation(groups)
            wanted = max(1, round(fraction * len(groups)))
            dev = shuffled[: min(wanted, len(groups) - 1)].tolist()
        apart = np.isin(self.groups, dev)
        return self.take(np.flatnonzero(~apart)), self.take(np.flatnonzero(apart))
