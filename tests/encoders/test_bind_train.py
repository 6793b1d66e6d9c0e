"""Training: what must bind does, what must not does not, and a break changes nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the extra 'bind'")

import torch

from agent.clock import NS_PER_S, ManualClock
from agent.errors import ConfigError, EncoderError
from encoders.bind.examples import Examples
from encoders.bind.recall import embed, recall_at_1
from encoders.bind.schedule import Sampler, TrainConfig, rate_share
from encoders.bind.towers import build
from encoders.bind.train import CHECKPOINT_NAME, Batch, Step, fit
from tests.encoders.bind_examples import CHANNELS, DIM, TICKS, VIEWS, made_examples

SHORT = TrainConfig(steps=12, batch=16, evaluations=3, checkpoint_s=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tower(seed: int = 0) -> torch.nn.Module:
    return build("signal", "watch", (CHANNELS, TICKS), DIM, seed=seed, dropout=0.1)


def noise(views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return views + 0.05 * torch.randn(views.shape, generator=generator)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_sense_is_bound_by_true_pairs_and_not_by_shuffled_ones(
    tmp_path: Path, shuffled: bool
) -> None:
    train, dev = made_examples(150, 1, shuffled), made_examples(25, 2)
    config = TrainConfig(steps=100, rate=3e-3, evaluations=5)
    fitted = fit(tower(), train, dev, config, tmp_path, noise)
    chance = 1 / 25
    # Of 100 views; the best of 5 evaluations is luckier than one.
    assert (fitted.best.recall < 5 * chance) if shuffled else (fitted.best.recall > 20 * chance)
    assert math.isfinite(fitted.temperature)


def test_what_is_kept_is_the_best_evaluation(tmp_path: Path) -> None:
    train, dev = made_examples(40, 1), made_examples(10, 2)
    own = tower()
    fitted = fit(own, train, dev, SHORT, tmp_path)
    assert same(own.state_dict(), fitted.state)
    assert not own.training
    assert fitted.best == max(fitted.history, key=lambda e: (e.recall, e.cosine))
    assert recall_at_1(embed(own, dev.views), dev) == pytest.approx(fitted.best.recall)
    assert [e.step for e in fitted.history] == [4, 8, 12]


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_the_same_seed_gives_the_same_weights_whatever_ran_before(
    tmp_path: Path, optimiser: str
) -> None:
    train, dev = made_examples(20, 1), made_examples(6, 2)
    config = replaced(SHORT, optimiser=optimiser)
    made = []
    for run, seed in enumerate((3, 3, 4)):
        torch.manual_seed(run)
        own = tower()
        fit(own, train, dev, replaced(config, seed=seed), tmp_path / str(run), noise)
        made.append(weights(own))
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


def replaced(config: TrainConfig, **changes: object) -> TrainConfig:
    import msgspec

    return msgspec.structs.replace(config, **changes)


class Stopped(Exception):
    pass


def stop_at(step: int, clock: ManualClock) -> Callable[[Step], None]:
    """A run of a second a step that is killed."""

    def progress(now: Step) -> None:
        clock.advance_to_ns(clock.now_ns() + NS_PER_S)
        if now.number == step:
            raise Stopped

    return progress


@pytest.mark.parametrize("killed", [2, 5, 7, 11, 12])
def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path, killed: int) -> None:
    train, dev = made_examples(20, 1), made_examples(6, 2)
    config = replaced(SHORT, checkpoint_s=3, learned_temperature=True)
    whole = tower()
    expected = fit(whole, train, dev, config, tmp_path / "whole", noise)
    clock = ManualClock()
    with pytest.raises(Stopped):
        fit(tower(), train, dev, config, tmp_path, noise, stop_at(killed, clock), clock=clock)
    resumed = tower(seed=9)  # its weights come from the checkpoint, if there is one yet
    if killed == 2:
        resumed = tower()
    fitted = fit(resumed, train, dev, config, tmp_path, noise, resume=True)
    assert same(weights(whole), weights(resumed))
    assert fitted.history == expected.history
    assert fitted.temperature == expected.temperature
    assert list(tmp_path.glob("*.partial")) == []


def test_a_run_by_the_clock_ends_on_the_minute_and_counts_no_break(tmp_path: Path) -> None:
    train, dev = made_examples(20, 1), made_examples(6, 2)
    config = replaced(SHORT, steps=None, minutes=0.2)
    clock = ManualClock()
    with pytest.raises(Stopped):
        fit(tower(), train, dev, config, tmp_path, None, stop_at(5, clock), clock=clock)
    clock.advance_to_ns(clock.now_ns() + 1000 * NS_PER_S)
    fitted = fit(
        tower(), train, dev, config, tmp_path, None, stop_at(-1, clock), resume=True, clock=clock
    )
    # 12 s of a second a step, the one that was cut counted by when its checkpoint was written.
    assert fitted.steps == 14
    assert 12 <= fitted.seconds <= 13


def test_it_ends_early_where_nothing_gets_better(tmp_path: Path) -> None:
    train, dev = made_examples(10, 1), made_examples(6, 2)
    config = replaced(SHORT, steps=400, evaluations=200, patience=3, rate=1e-9, ema=0.0)
    own = tower()
    for module in own.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.momentum = 0.0
    fitted = fit(own, train, dev, config, tmp_path)
    assert fitted.steps < 400
    assert len(fitted.history) - 1 - fitted.history.index(fitted.best) == 3


def test_an_objective_of_ones_own_sees_the_batch_it_is_for(tmp_path: Path) -> None:
    train, dev = made_examples(10, 1), made_examples(6, 2)

    def objective(
        module: torch.nn.Module, batch: Batch, scale: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        views = np.stack([train.views[i] for i in batch.indices])
        np.testing.assert_array_equal(batch.views, views)
        np.testing.assert_array_equal(batch.anchors, train.anchors[batch.indices])
        return (1 - (module(batch.views) * batch.anchors).sum(1)).mean() + 0 * scale

    fit(tower(), train, dev, SHORT, tmp_path, objective=objective)


def test_only_what_requires_a_gradient_is_trained(tmp_path: Path) -> None:
    train, dev = made_examples(10, 1), made_examples(6, 2)
    own = tower()
    for parameter in own.body.parameters():
        parameter.requires_grad_(False)
    before = weights(own)
    fit(own, train, dev, replaced(SHORT, ema=0.0), tmp_path)
    after = weights(own)
    assert torch.equal(before["body.0.0.weight"], after["body.0.0.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])
    own.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter requires a gradient"):
        fit(own, train, dev, SHORT, tmp_path)


def test_faults_are_one_line(tmp_path: Path) -> None:
    train, dev = made_examples(10, 1), made_examples(6, 2)
    one = dev.take(np.flatnonzero(dev.groups == 0))
    with pytest.raises(ConfigError, match="dev examples: all of one recording"):
        fit(tower(), train, one, SHORT, tmp_path)
    labelled = replace(train, labels=np.zeros(len(train), np.int64))
    with pytest.raises(ConfigError, match="train examples: all of one label"):
        fit(tower(), labelled, dev, SHORT, tmp_path)
    with pytest.raises(EncoderError, match="loss is nan at step 0, expected a finite number"):
        fit(tower(), train, dev, SHORT, tmp_path, lambda views, _: views * math.nan)
    fit(tower(), train, dev, SHORT, tmp_path)
    with pytest.raises(ConfigError, match="its config differ"):
        fit(tower(), train, dev, replaced(SHORT, rate=1e-4), tmp_path, resume=True)
    with pytest.raises(ConfigError, match="its examples differ"):
        fit(tower(), dev, train, SHORT, tmp_path, resume=True)
    other = build("signal", "phone", (CHANNELS, TICKS), DIM)
    with pytest.raises(ConfigError, match="is of another tower"):
        fit(other, train, dev, SHORT, tmp_path, resume=True)
    (tmp_path / CHECKPOINT_NAME).write_bytes(b"broken")
    with pytest.raises(ConfigError, match="cut off or no archive, expected"):
        fit(tower(), train, dev, SHORT, tmp_path, resume=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written"):
        fit(tower(), train, dev, SHORT, tmp_path / "file")
    with pytest.raises(ValueError, match="expected one of them"):
        TrainConfig(steps=3, minutes=1.0)


def test_pictures_are_trained_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    anchors = np.eye(8, dtype=np.float32)[np.arange(24) % 8]
    views = [rng.normal(size=(1, 12, 12)).astype(np.float32) for _ in range(24)]
    numbers = np.arange(24)
    examples = Examples(views, anchors, numbers // 2, numbers % 8)
    own = build("picture", "watch", (1, 12, 12), 8, drop_path=0.1)
    fitted = fit(own, examples, examples, replaced(SHORT, steps=3), tmp_path)
    assert len(fitted.history) == 3


def test_recall_leaves_out_what_is_alike_and_counts_ties_as_misses() -> None:
    anchors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    groups, labels = np.array([0, 0, 1, 2]), np.array([-1, -1, 5, 5])
    examples = Examples([np.zeros((1, 1), np.float32)] * 4, anchors, groups, labels)
    assert recall_at_1(anchors, examples) == 1.0
    assert recall_at_1(np.full((4, 3), 3**-0.5, np.float32), examples) == 0.0
    # The third is nearer to the fourth's anchor, which has its label.
    near = np.array([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.8], [0, 0, 1]], np.float32)
    assert recall_at_1(near, examples) == 0.75
    alone = replace(examples, groups=np.zeros(4, np.int64))
    assert math.isnan(recall_at_1(anchors, alone))


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["cosine", "linear"]))
def test_the_rate_rises_and_falls_within_0_and_1(share: float, warmup: float, kind: str) -> None:
    rate = rate_share(share, warmup, kind)
    assert 0 <= rate <= 1
    if share < warmup:
        assert rate == share / warmup
    assert rate_share(1, warmup, kind) == 0 or warmup == 1


@pytest.mark.parametrize(
    ("sampling", "share"), [("uniform", 0.8), ("groups", 0.2), ("labels", 2 / 3)]
)
def test_examples_are_drawn_as_the_sampling_says(sampling: str, share: float) -> None:
    """Four of five groups' worth of examples are one recording and one label."""
    groups = np.array([0] * 16 + [1, 2, 3, 4])
    labels = np.array([0] * 16 + [1] * 4)
    anchors = np.eye(5, dtype=np.float32)[groups]
    examples = Examples([np.zeros((1, 1), np.float32)] * 20, anchors, groups, labels)
    sampler = Sampler(examples, TrainConfig(steps=1, batch=2, sampling=sampling))
    drawn = [sampler(step) for step in range(2000)]
    assert all(len(set(part.tolist())) == 2 for part in drawn)
    counts = Counter(labels[np.concatenate(drawn)].tolist())
    # Without replacement two of a batch repel one another a little.
    assert counts[0] / 4000 == pytest.approx(share, abs=0.06)


def test_an_epoch_takes_each_example_once() -> None:
    examples = made_examples(5)
    sampler = Sampler(examples, TrainConfig(steps=1, batch=VIEWS))
    epochs = [np.concatenate([sampler(step) for step in range(5 * e, 5 * e + 5)]) for e in (0, 1)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
