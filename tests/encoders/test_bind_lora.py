"""A published tower that learns little of itself: what stays, what changes, and what it costs."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the extra 'bind'")

import torch

from agent.errors import ConfigError
from encoders.bind.checkpoint import read_checkpoint
from encoders.bind.examples import Examples
from encoders.bind.lora import TUNABLE, HeadTower, LoraTower, TunedTower, merged, open_tower
from encoders.bind.recall import embed
from encoders.bind.schedule import TrainConfig
from encoders.bind.train import CHECKPOINT_NAME, fit
from encoders.imagebind.checkpoint import Checkpoint
from encoders.imagebind.dims import GEOMETRY, TINY
from encoders.imagebind.entries import SENSES
from encoders.imagebind.model import ImageBind, load
from encoders.imagebind.random_weights import random_checkpoint

CPU = torch.device("cpu")
CHECKPOINT = random_checkpoint(TINY, 1, TUNABLE)


def _open(sense: str = "thermal", checkpoint: Checkpoint = CHECKPOINT) -> ImageBind:
    return open_tower(checkpoint, sense, GEOMETRY[SENSES[sense]].input)


def _views(count: int, sense: str = "thermal", seed: int = 0) -> list[np.ndarray]:
    """Each a plain tilt of its own, seen with noise."""
    rng = np.random.default_rng(seed)
    shape = GEOMETRY[SENSES[sense]].input
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[-2:]), indexing="ij")
    made = rng.normal(size=(2, count, 1, 1)) * 2
    views = made[0] * rows + made[1] * columns + 0.1 * rng.normal(size=(count, *shape[-2:]))
    return list(np.broadcast_to(views[:, np.newaxis], (count, *shape)).astype(np.float32))


def _published(
    sense: str, views: list[np.ndarray], checkpoint: Checkpoint = CHECKPOINT
) -> np.ndarray:
    model = load(checkpoint, [SENSES[sense]])
    with torch.no_grad():
        return model.vectors(SENSES[sense], torch.from_numpy(np.stack(views))).numpy()


@pytest.mark.parametrize("sense", ["audio", "depth", "thermal"])
def test_a_tower_begins_as_the_published_one_bit_for_bit(sense: str) -> None:
    views = _views(3, sense)
    tower = LoraTower(_open(sense), sense)
    assert (embed(tower, views) == _published(sense, views)).all()
    tower.train()
    assert (tower(torch.from_numpy(np.stack(views))).detach() == _published(sense, views)).all()


def test_motion_is_tuned_with_the_dropout_that_it_was_trained_with() -> None:
    views = [np.random.default_rng(i).normal(size=(6, 2000)).astype(np.float32) for i in range(3)]
    tower = LoraTower(_open("imu"), "imu")
    batch = torch.from_numpy(np.stack(views))
    tower.train()
    assert not torch.equal(tower(batch), tower(batch))
    assert (embed(tower, views) == _published("imu", views)).all()


@settings(deadline=None, max_examples=10)
@given(rank=st.integers(1, 24), alpha=st.floats(0.1, 100), seed=st.integers(0, 99))
def test_whatever_the_rank_it_begins_unchanged_and_the_scale_is_alpha_over_rank(
    rank: int, alpha: float, seed: int
) -> None:
    tower = LoraTower(_open(), "thermal", rank, alpha, seed)
    own = CHECKPOINT.tensors("thermal")
    changed = tower.changed()
    assert all(torch.equal(weight, own[key]) for key, weight in changed.items())
    with torch.no_grad():
        first = tower.changes[0]
        first.up.fill_(1.0)
    key = tower.keys[0]
    delta = tower.changed()[key] - own[key]
    expected = torch.ones(48, rank) @ first.down[1].detach() * (alpha / rank)
    torch.testing.assert_close(delta[48:96], expected, rtol=1e-3, atol=1e-4)
    assert torch.linalg.matrix_rank(delta.double(), atol=1e-3, rtol=0) <= 3


def _learned(tower: LoraTower | HeadTower) -> LoraTower | HeadTower:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return tower


@pytest.mark.parametrize("kind", [LoraTower, HeadTower])
@pytest.mark.parametrize("sense", ["depth", "thermal"])
def test_what_was_learned_is_in_the_merged_checkpoint_and_nothing_else_is(
    kind: type[LoraTower] | type[HeadTower], sense: str
) -> None:
    tower: TunedTower = kind(_open(sense), sense)
    views = _views(4, sense)
    np.testing.assert_allclose(
        embed(tower, tower.inputs(views)), _published(sense, views), atol=1e-6
    )
    _learned(tower)
    new = merged(CHECKPOINT, sense, tower.changed())
    apart = _published(sense, views, new)
    np.testing.assert_allclose(embed(tower, tower.inputs(views)), apart, atol=1e-5)
    assert np.abs(apart - _published(sense, views)).max() > 0.01
    before, after = CHECKPOINT.tensors(SENSES[sense]), new.tensors(SENSES[sense])
    differing = {key for key in before if not torch.equal(before[key], after[key])}
    assert list(after) == list(before)
    assert differing == set(tower.changed())
    other = new.tensors("audio")
    assert all(torch.equal(other[k], v) for k, v in CHECKPOINT.tensors("audio").items())


def test_gradients_are_the_whole_weights_own_through_the_product() -> None:
    """dL/dB = s dL/dW A^T and dL/dA = s B^T dL/dW, of torch's gradient of the plain tower."""
    views = torch.from_numpy(np.stack(_views(3)))
    target = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    tower = _learned(LoraTower(_open(), "thermal", rank=4, alpha=8.0))
    tower.train()
    (tower(views) * target).sum().backward()
    plain = load(merged(CHECKPOINT, "thermal", tower.changed()), ["thermal"])
    (plain.vectors("thermal", views) * target).sum().backward()
    weights = dict(plain.named_parameters())
    for key, change in zip(tower.keys, tower.changes, strict=True):
        whole = weights[key].grad.unflatten(0, (-1, 48))
        torch.testing.assert_close(change.up.grad, 2 * whole @ change.down.mT, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(change.down.grad, 2 * change.up.mT @ whole, rtol=1e-3, atol=1e-5)


def test_the_published_tower_goes_where_the_change_goes() -> None:
    views = torch.from_numpy(np.stack(_views(2))).double()
    for tower in (LoraTower(_open(), "thermal"), HeadTower(_open(), "thermal")):
        tower.double()
        given = views if isinstance(tower, LoraTower) else tower._frozen.class_tokens(views)
        np.testing.assert_allclose(
            tower(given).detach(), _published("thermal", _views(2)), atol=1e-6
        )


def test_only_the_change_is_learned_copied_and_saved(tmp_path: Path) -> None:
    model = _open()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tower = LoraTower(model, "thermal", rank=2)
    learned = sum(p.numel() for p in tower.parameters())
    assert learned == 2 * 2 * (48 * 2) * 4  # blocks, rank, A and B, of q, k, v and the output
    assert sum(v.numel() for v in tower.state_dict().values()) == learned
    assert copy.deepcopy(tower)._frozen is tower._frozen
    views, anchors = _views(24), np.eye(48, dtype=np.float32)[:24]
    train = Examples(views, anchors, np.arange(24), np.full(24, -1))
    dev = train.take(range(8))
    config = TrainConfig(steps=6, batch=8, evaluations=2)
    fitted = fit(tower, train, dev, config, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert any(not torch.equal(w, before[key]) for key, w in tower.changed().items())
    assert set(fitted.state) == set(tower.state_dict())
    saved = read_checkpoint(tmp_path / CHECKPOINT_NAME, CPU)
    assert set(saved["tower"]) == set(saved["ema"]) == set(tower.state_dict())
    moments = saved["optimiser"]["state"].values()
    assert sum(state["exp_avg"].numel() for state in moments) == learned


@pytest.mark.parametrize("kind", [LoraTower, HeadTower])
def test_training_brings_it_nearer_to_its_anchors(
    tmp_path: Path, kind: type[LoraTower] | type[HeadTower]
) -> None:
    """Anchors are a fixed function of what is seen, which random weights do not know."""
    views = _views(72)
    means = np.stack([(v[0, 0].mean(), v[0, -1].mean(), v[0, :, 0].mean()) for v in views])
    anchors = np.cos(means @ np.random.default_rng(1).normal(size=(3, 48))).astype(np.float32)
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    tower: TunedTower = kind(_open(), "thermal")
    examples = Examples(tower.inputs(views), anchors, np.arange(72), np.full(72, -1))
    train, dev = examples.take(range(56)), examples.take(range(56, 72))
    untuned = embed(tower, dev.views)
    config = TrainConfig(steps=40, batch=16, rate=5e-3, evaluations=4)
    fitted = fit(tower, train, dev, config, tmp_path)
    assert fitted.history[-1].loss < 0.9 * fitted.history[0].loss
    tuned = embed(tower, dev.views)
    assert (tuned * dev.anchors).sum(1).mean() > (untuned * dev.anchors).sum(1).mean() + 0.1


def test_what_cannot_be_tuned_is_said() -> None:
    with pytest.raises(ConfigError, match="'image', expected one to tune: audio, depth"):
        open_tower(CHECKPOINT, "image", (3, 224, 224))
    with pytest.raises(ConfigError, match=r"\[1, 64, 64\], expected \[1, 224, 224\]"):
        open_tower(CHECKPOINT, "thermal", (1, 64, 64))
    with pytest.raises(ConfigError, match="has no audio tower"):
        _open("audio", random_checkpoint(TINY, 1, ("imu",)))
    for rank in (0, 25):
        with pytest.raises(ConfigError, match=rf"--rank: {rank}, expected 1..24"):
            LoraTower(_open(), "thermal", rank)
    with pytest.raises(ConfigError, match="--alpha: 0, expected a number above 0"):
        LoraTower(_open(), "thermal", 4, 0.0)
