"""Networks by kind and size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'bind'")

import torch

from agent.errors import ConfigError
from encoders.bind.towers import (
    KINDS,
    SIZES,
    build,
    count,
    keep_to_axes_of,
    kind_of,
    one_channel,
)

SHAPES = {"picture": (3, 64, 64), "sound": (1, 64, 192), "signal": (6, 100)}
MOST = {"watch": 1_000_000, "phone": 6_000_000, "desktop": 20_000_000}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_has_the_parameters_of_its_size_and_gives_unit_vectors(kind: Any) -> None:
    counts = []
    for size in SIZES:
        tower = build(kind, size, SHAPES[kind], 256).eval()
        vectors = tower(torch.randn(2, *SHAPES[kind]))
        assert vectors.shape == (2, 256)
        np.testing.assert_allclose(vectors.detach().norm(dim=1), 1, atol=1e-5)
        counts.append(count(tower))
        assert counts[-1] < MOST[size]
    assert counts == sorted(counts)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("picture", (2, 2, 2)),
        ("picture", (1, 17, 33)),
        ("sound", (1, 1, 7)),
        ("signal", (1, 1)),
        ("signal", (3, 41)),
    ],
)
def test_odd_and_tiny_views_are_taken(kind: Any, shape: tuple[int, ...]) -> None:
    tower = build(kind, "phone", shape, 8)
    assert tower(torch.randn(4, *shape)).shape == (4, 8)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (build("signal", "watch", (6, 100), 16, seed=s) for s in (1, 1, 2))
    assert torch.rand(1) == expected
    for own, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(own, same)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_stochastic_depth_passes_blocks_by_in_training_only() -> None:
    tower = build("picture", "watch", (1, 16, 16), 8, drop_path=0.9)
    views = torch.randn(1, 1, 16, 16).repeat(32, 1, 1, 1)
    with torch.no_grad():
        tower.body[:2].eval()
        assert len(tower(views).unique(dim=0)) > 1
        tower.eval()
        np.testing.assert_allclose(tower(views), tower(views[:1]).expand(32, -1), atol=1e-6)


def test_a_colour_tower_made_grey_answers_a_grey_picture_as_before() -> None:
    mean, std = torch.tensor([0.48, 0.46, 0.42]), torch.tensor([0.25, 0.245, 0.26])
    tower = build("picture", "watch", (3, 64, 64), 16).eval()
    grey = torch.rand(2, 1, 64, 64)
    views = (grey - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    with torch.no_grad():
        before, vectors = tower.body[0](views), tower(views)
        one_channel(tower, mean, std, 0.45, 0.25)
        own = (grey - 0.45) / 0.25
        np.testing.assert_allclose(tower.body[0](own)[inside], before[inside], atol=1e-4)
        assert (tower(own) * vectors).sum(1).min() > 0.95


@pytest.mark.parametrize(
    ("kind", "size", "shape", "message"),
    [
        ("touch", "watch", (1, 8), "kind: 'touch', expected one of picture, sound, signal"),
        ("signal", "tiny", (1, 8), "size: 'tiny', expected one of watch, phone, desktop"),
        ("signal", "watch", (1, 8, 8), r"signal tower: views of \[1, 8, 8\], expected channels"),
        ("picture", "watch", (1, 1, 8), "axes of at least 2"),
    ],
)
def test_what_there_is_no_tower_for_is_said(
    kind: Any, size: Any, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(kind, size, shape, 8)


def test_the_kind_follows_the_views() -> None:
    assert kind_of("audio", (1, 64, 192)) == "sound"
    assert kind_of("touch", (1, 8, 8)) == "picture"
    assert kind_of("imu", (6, 100)) == "signal"
    with pytest.raises(ConfigError, match=r"gas: views of \[5\]"):
        kind_of("gas", (5,))


def test_a_tower_says_nothing_on_axes_that_no_anchor_uses() -> None:
    tower = build("signal", "watch", (3, 50), 8).eval()
    anchors = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    anchors[:, 5:] = 0
    views = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = tower(views)
        keep_to_axes_of(tower, anchors)
        after = tower(views)
    assert not after[:, 5:].any()
    kept = torch.nn.functional.normalize(before[:, :5], dim=1)
    np.testing.assert_allclose(after[:, :5], kept, atol=1e-6)
