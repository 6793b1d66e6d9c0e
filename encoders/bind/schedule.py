"""How a tower is trained: what is chosen, the learning rate over a run, and a step's examples."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
import numpy as np

from agent.types import Array, Int64Array, Settings
from encoders.bind.examples import Examples

__all__ = ["Sampler", "TrainConfig", "rate_share"]

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_AtLeast0 = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class TrainConfig(Settings, frozen=True, kw_only=True):
    """How a tower is trained. steps or minutes, one of them: how long.

    batch: examples a step. rate: the highest learning rate, reached after the share `warmup` of
    the run and then brought to 0. weight_decay: of weights, not of biases and norms. ema: decay a
    step of the running mean of the weights that is evaluated and kept, smaller in the first steps;
    0 keeps the last weights. clip: longest gradient. contrast, regression: parts of InfoNCE and of
    1 - cosine in the loss. temperature: of InfoNCE. hardness: as losses.info_nce.

    sampling: examples each alike; recordings each alike ("groups"); or an example by 1 over the
    square root of how many its label has ("labels"). evaluations: on the dev examples, over the
    run. patience: so many of them without a better one end the run. checkpoint_s: at most so much
    work is lost in a break.
    """

    steps: _Count | None = None
    minutes: _Positive | None = None
    batch: Annotated[int, msgspec.Meta(ge=2)] = 64
    optimiser: Literal["adamw", "sgd"] = "adamw"
    rate: _Positive = 1e-3
    weight_decay: _AtLeast0 = 0.03
    warmup: _Share = 0.1
    schedule: Literal["cosine", "linear"] = "cosine"
    ema: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.999
    clip: _Positive = 1.0
    contrast: _AtLeast0 = 1.0
    regression: _AtLeast0 = 0.5
    temperature: _Positive = 0.07
    learned_temperature: bool = False
    hardness: _AtLeast0 = 0.0
    sampling: Literal["uniform", "groups", "labels"] = "uniform"
    evaluations: _Count = 20
    patience: _Count | None = None
    checkpoint_s: _AtLeast0 = 60.0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(f"steps {self.steps}, minutes {self.minutes}, expected one of them")


def rate_share(share: float, warmup: float, schedule: str) -> float:
    """The learning rate over its highest, at `share` (0..1) of a run."""
    if share < warmup:
        return share / warmup
    left = (1 - share) / (1 - warmup) if warmup < 1 else 0.0
    return (1 - math.cos(math.pi * left)) / 2 if schedule == "cosine" else left


class Sampler:
    """Which examples a step takes, by seed and step alone."""

    def __init__(self, examples: Examples, config: TrainConfig) -> None:
        self._seed = config.seed
        self._count = len(examples)
        self._batch = min(config.batch, self._count)
        self._weights: Array | None = None
        if config.sampling != "uniform":
            numbers = examples.groups if config.sampling == "groups" else examples.labels
            _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
            power = 1.0 if config.sampling == "groups" else 0.5
            self._weights = counts[inverse] ** -power

    def __call__(self, step: int) -> Int64Array:
        if self._weights is None:
            epoch, place = divmod(step, self._count // self._batch)
            order = np.random.default_rng([self._seed, epoch]).permutation(self._count)
            return order[place * self._batch : (place + 1) * self._batch]
        # Without replacement: the first to ring of exponential clocks, one an example at its
        # weight's rate (Efraimidis and Spirakis 2006).
        rng = np.random.default_rng([self._seed, step])
        times = rng.exponential(size=self._count) / self._weights
        return np.argpartition(times, self._batch - 1)[: self._batch].astype(np.int64)
