"""Training a tower against a frozen anchor, on the minute and taken up again after a break.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from agent.clock import Clock, to_s
from agent.errors import ConfigError
from agent.extras import needs_extra
from agent.types import Array
from encoders.bind.examples import Examples
from encoders.bind.losses import cosine_regression, info_nce
from encoders.bind.recall import negatives
from encoders.bind.run import CHECKPOINT_NAME, Batch, Evaluation, Objective, Run, Step
from encoders.bind.schedule import TrainConfig

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = [
    "CHECKPOINT_NAME",
    "Augment",
    "Batch",
    "Evaluation",
    "Fitted",
    "Objective",
    "Step",
    "TrainConfig",
    "fit",
]

Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Fitted:
    """state: of the best evaluation, which the tower has too. temperature: the last. seconds: of
    the whole run, breaks not counted.
    """

    history: list[Evaluation]
    best: Evaluation
    state: dict[str, Tensor]
    temperature: float
    steps: int
    seconds: float


def fit(
    tower: nn.Module,
    train: Examples,
    dev: Examples,
    config: TrainConfig,
    out: Path,
    augment: Augment | None = None,
    progress: Callable[[Step], None] | None = None,
    *,
    objective: Objective | None = None,
    resume: bool = False,
    clock: Clock | None = None,
) -> Fitted:
    """Train those parameters of `tower` that require gradients, in place and where they are; it
    ends with the best weights, in evaluation mode. Mixed precision on CUDA only.

    out: folder for checkpoint.pt, made where it is not there. augment: of the default objective
    only. objective: in place of InfoNCE with what is alike masked, and regression. progress: told
    of each step; what it raises ends the run. resume: go on from checkpoint.pt, if it is there.

    Batches and noise are drawn by seed and step alone: on one thread a run by steps gives the same
    weights each time, broken off and resumed or not. Raises ConfigError for examples that tell
    nothing apart and for another run's checkpoint, EncoderError where the loss is not finite.
    """
    for name, examples in (("train", train), ("dev", dev)):
        parts: dict[str, Array] = {
            "recording": examples.groups,
            "label": examples.labels,
            "anchor": examples.anchors,
        }
        for part, values in parts.items():
            if (values == values[0]).all() and not (part == "label" and values[0] < 0):
                raise ConfigError(f"{name} examples: all of one {part}, expected at least two")
    run = Run(tower, train, dev, config, out, objective or _binding(config, augment), clock)
    if resume:
        run.restore()
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        while not run.done:
            step = run.advance()
            if progress is not None:
                progress(step)
    assert run.best is not None
    tower.load_state_dict(run.best_state)
    tower.eval()
    return Fitted(
        run.history,
        run.best,
        run.best_state,
        1 / run.temperature().item(),
        run.step,
        to_s(run.elapsed_ns()),
    )


def _binding(config: TrainConfig, augment: Augment | None) -> Objective:
    def loss(tower: nn.Module, batch: Batch, scale: Tensor, generator: torch.Generator) -> Tensor:
        views = batch.views
        if augment is not None:
            views = augment(views.cpu(), generator).to(views.device)
        vectors = tower(views)
        alike_left_out = negatives(batch.anchors, batch.groups, batch.labels)
        contrast = info_nce(vectors, batch.anchors, scale, alike_left_out, config.hardness)
        regression = cosine_regression(vectors, batch.anchors)
        return config.contrast * contrast + config.regression * regression

    return loss
