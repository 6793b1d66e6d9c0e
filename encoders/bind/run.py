"""A training while it runs, and all that a checkpoint keeps of it.

Needs the extra `bind`.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from agent.clock import Clock, SystemClock, from_s, to_s
from agent.errors import ConfigError, EncoderError
from agent.extras import needs_extra
from encoders.bind.checkpoint import read_checkpoint, write_checkpoint
from encoders.bind.examples import Examples
from encoders.bind.losses import Temperature
from encoders.bind.precision import half_type
from encoders.bind.recall import embed, recall_at_1
from encoders.bind.schedule import Sampler, TrainConfig, rate_share

with needs_extra("bind"):
    import torch
    from torch import Tensor, nn

__all__ = ["CHECKPOINT_NAME", "Batch", "Evaluation", "Objective", "Run", "Step"]

CHECKPOINT_NAME = "checkpoint.pt"
MOMENTUM = 0.9  # of SGD


class Batch(NamedTuple):
    """Of one step, on the tower's device. views: (n, *view_shape) as they are in the examples;
    anchors: (n, dim); groups, labels, indices: int64 (n,), indices into the examples.
    """

    views: Tensor
    anchors: Tensor
    groups: Tensor
    labels: Tensor
    indices: Tensor


class Step(NamedTuple):
    """share: of the run, 0..1. recall: of the newest evaluation, NaN before it."""

    number: int
    share: float
    loss: float
    recall: float
    elapsed_s: float


class Evaluation(NamedTuple):
    """On the dev examples, after `step` steps. recall: `recall_at_1`; cosine: mean with the own
    anchor; loss: mean of training since the evaluation before.
    """

    step: int
    recall: float
    cosine: float
    loss: float


# A loss of (tower, batch, 1 / temperature, generator): what CutMix, pairs cropped alike and banks
# of texts need, as they change views and targets together.
Objective: TypeAlias = Callable[[nn.Module, Batch, Tensor, torch.Generator], Tensor]


class Run:
    """A training and everything that a checkpoint keeps of it: `out`/checkpoint.pt.

    tower, train, dev, config, objective: as train.fit. Raises ConfigError for a tower without a
    parameter to train.
    """

    def __init__(
        self,
        tower: nn.Module,
        train: Examples,
        dev: Examples,
        config: TrainConfig,
        out: Path,
        objective: Objective,
        clock: Clock | None,
    ) -> None:
        self._tower, self._train, self._dev = tower, train, dev
        self._config, self._path, self._objective = config, out / CHECKPOINT_NAME, objective
        self._clock = clock or SystemClock()
        self.device = next(tower.parameters()).device
        self._pictures = len(train.view_shape) == 3
        if self._pictures:  # what convolutions on a CPU and tensor cores take without a copy
            tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub leaves it out for modules
        self._ema = copy.deepcopy(tower) if config.ema else tower
        self.temperature = Temperature(config.temperature, config.learned_temperature)
        self.temperature.to(self.device)
        self._optimiser = self._make_optimiser()
        self._half = half_type(self.device)
        self._scaler = torch.amp.GradScaler("cuda", enabled=self._half is torch.float16)
        self._sample = Sampler(train, config)
        self.step, self.done = 0, False
        self.history: list[Evaluation] = []
        self.best: Evaluation | None = None
        self.best_state: dict[str, Tensor] = {}
        self._evaluated = 0  # parts of the run, of config.evaluations
        self._losses: list[float] = []
        self._started_ns = self._saved_ns = self._clock.now_ns()

    def elapsed_ns(self) -> int:
        """Since the start, breaks not counted."""
        return self._clock.now_ns() - self._started_ns

    def advance(self) -> Step:
        """One step, and what is due after it. Raises EncoderError where its loss is not finite."""
        config = self._config
        loss = self._learn()
        self._losses.append(loss)
        self.step += 1
        share = self._share()
        if (part := int(share * config.evaluations)) > self._evaluated:
            self._evaluated = part
            self._evaluate()
        self.done = share >= 1 or self._stale()
        now_ns = self._clock.now_ns()
        if self.done or now_ns - self._saved_ns >= from_s(config.checkpoint_s):
            self._save()
            self._saved_ns = now_ns
        recall = self.history[-1].recall if self.history else math.nan
        return Step(self.step, share, loss, recall, to_s(self.elapsed_ns()))

    def _share(self) -> float:
        config = self._config
        if config.steps is not None:
            return min(1.0, self.step / config.steps)
        assert config.minutes is not None
        return min(1.0, to_s(self.elapsed_ns()) / (60 * config.minutes))

    def _stale(self) -> bool:
        if self._config.patience is None or self.best is None:
            return False
        return len(self.history) - 1 - self.history.index(self.best) >= self._config.patience

    def _learn(self) -> float:
        config = self._config
        rate = config.rate * rate_share(self._share(), config.warmup, config.schedule)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        # Dropout draws from torch's own generator, augmentation from ours.
        seed = int(np.random.SeedSequence([config.seed, self.step]).generate_state(1)[0])
        torch.manual_seed(seed)
        generator = torch.Generator()  # of the CPU: noise is the same wherever a tower is trained
        generator.manual_seed(seed)
        self._tower.train()
        with torch.autocast("cuda", self._half, enabled=self._half is not None):
            loss = self._objective(self._tower, self._batch(), self.temperature(), generator)
        if not torch.isfinite(loss):
            raise EncoderError(
                f"training: loss is {loss.item()} at step {self.step}, expected a finite number: "
                f"try a lower rate than {config.rate:g}"
            )
        self._optimiser.zero_grad()
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own

        self._scaler.unscale_(self._optimiser)
        nn.utils.clip_grad_norm_(
            [p for group in self._optimiser.param_groups for p in group["params"]], config.clip
        )
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.temperature.clamp()
        self._average()
        return loss.item()

    def _batch(self) -> Batch:
        indices = self._sample(self.step)
        train = self._train
        views = torch.from_numpy(np.stack([train.views[i] for i in indices])).to(self.device)
        if self._pictures:
            views = views.contiguous(memory_format=torch.channels_last)
        rest = (train.anchors[indices], train.groups[indices], train.labels[indices], indices)
        return Batch(views, *(torch.from_numpy(part).to(self.device) for part in rest))

    @torch.no_grad()
    def _average(self) -> None:
        if self._ema is self._tower:
            return
        # A short run would else keep the random weights it began with: the start-up that
        # TensorFlow's ExponentialMovingAverage documents for num_updates.
        decay = min(self._config.ema, (1 + self.step) / (10 + self.step))
        news = self._tower.state_dict()
        for name, kept in self._ema.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(news[name], 1 - decay)
            else:
                kept.copy_(news[name])

    def _evaluate(self) -> None:
        vectors = embed(self._ema, self._dev.views)
        cosine = float((vectors * self._dev.anchors).sum(axis=1).mean())
        recall = recall_at_1(vectors, self._dev)
        evaluation = Evaluation(
            self.step, recall, cosine, math.fsum(self._losses) / len(self._losses)
        )
        self._losses = []
        self.history.append(evaluation)
        # Few dev examples give the same recall often: then the nearer to the anchors is better.
        if self.best is None or (recall, cosine) > (self.best.recall, self.best.cosine):
            self.best = evaluation
            self.best_state = {
                name: value.detach().cpu().clone().contiguous()
                for name, value in self._ema.state_dict().items()
            }

    def _make_optimiser(self) -> torch.optim.Optimizer:
        config = self._config
        learned = [p for p in self._tower.parameters() if p.requires_grad]
        if not learned:
            raise ConfigError("tower: no parameter requires a gradient, expected some to train")
        free = [p for p in (*learned, *self.temperature.parameters()) if p.ndim < 2]
        groups = [
            {"params": [p for p in learned if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in free if p.requires_grad], "weight_decay": 0.0},
        ]
        if config.optimiser == "adamw":
            return torch.optim.AdamW(groups, lr=config.rate)
        return torch.optim.SGD(groups, lr=config.rate, momentum=MOMENTUM, nesterov=True)

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in."""
        digest = hashlib.sha256()
        for examples in (self._train, self._dev):
            digest.update(repr(examples.view_shape).encode())
            for part in (examples.anchors, examples.groups, examples.labels):
                digest.update(part.tobytes())
        config = msgspec.to_builtins(self._config)
        del config["checkpoint_s"]
        return {"config": config, "examples": digest.hexdigest()}

    def _save(self) -> None:
        content = {
            **self._identity(),
            "tower": self._tower.state_dict(),
            "ema": self._ema.state_dict(),
            "temperature": self.temperature.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "step": self.step,
            "done": self.done,
            "evaluated": self._evaluated,
            "losses": self._losses,
            "history": [list(evaluation) for evaluation in self.history],
            "best": self.history.index(self.best) if self.best else -1,
            "best_state": self.best_state,
            "elapsed_ns": self.elapsed_ns(),
        }
        write_checkpoint(self._path, content)

    def restore(self) -> None:
        """Go on where the checkpoint stopped; nothing where there is none. Raises ConfigError."""
        if not self._path.exists():
            return
        content = read_checkpoint(self._path, self.device)
        for name, own in self._identity().items():
            if content.get(name) != own:
                raise ConfigError(
                    f"{self._path}: is of another run, its {name} differ: expected the same "
                    "ones, or another folder"
                )
        try:
            self._tower.load_state_dict(content["tower"])
            self._ema.load_state_dict(content["ema"])
        except RuntimeError as exc:
            raise ConfigError(
                f"{self._path}: is of another tower, expected one of the same layers"
            ) from exc
        self.temperature.load_state_dict(content["temperature"])
        self._optimiser.load_state_dict(content["optimiser"])
        self._scaler.load_state_dict(content["scaler"])
        self.step, self.done = content["step"], content["done"]
        self._evaluated, self._losses = content["evaluated"], content["losses"]
        self.history = [Evaluation(*values) for values in content["history"]]
        self.best = self.history[content["best"]] if content["best"] >= 0 else None
        self.best_state = {name: value.cpu() for name, value in content["best_state"].items()}
        self._started_ns = self._clock.now_ns() - content["elapsed_ns"]
