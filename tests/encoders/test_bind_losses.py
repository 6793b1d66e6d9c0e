"""Losses: each against a plain computation in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

pytest.importorskip("torch", reason="needs the extra 'bind'")

import torch

from encoders.bind.losses import (
    Temperature,
    anchor_cross_entropy,
    cosine_regression,
    info_nce,
    kept_negatives,
    soft_targets,
)

UNKNOWN = torch.full((9,), -1)
SEEDS = st.integers(0, 2**32 - 1)


def unit_rows(rng: np.random.Generator, count: int, dim: int = 6) -> NDArray:
    rows = rng.normal(size=(count, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tensors(*arrays: ArrayLike) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(array, np.float32)) for array in arrays]


def plain_info_nce(
    vectors: NDArray,
    anchors: NDArray,
    scale: float,
    groups: NDArray,
    labels: NDArray,
    hardness: float,
) -> float:
    """By loops, as the docstring says it."""
    count, total = len(vectors), 0.0
    for queries, pool in ((vectors, anchors), (anchors, vectors)):
        for i in range(count):
            cosines = pool @ queries[i]
            negatives = [
                j
                for j in range(count)
                if j != i
                and groups[j] != groups[i]
                and not (labels[j] == labels[i] and labels[i] >= 0)
            ]
            weights = np.exp(hardness * cosines[negatives])
            if negatives:
                weights = weights / weights.mean()
            own = np.exp(scale * cosines[i])
            rest = (weights * np.exp(scale * cosines[negatives])).sum()
            total -= np.log(own / (own + rest)) / (2 * count)
    return total


@given(SEEDS, st.integers(1, 9), st.floats(1, 30), st.sampled_from([0.0, 0.5, 3.0]))
def test_contrast_is_what_it_says(seed: int, count: int, scale: float, hardness: float) -> None:
    rng = np.random.default_rng(seed)
    vectors, anchors = unit_rows(rng, count), unit_rows(rng, count)
    groups, labels = rng.integers(0, 4, count), rng.integers(-1, 3, count)
    kept = kept_negatives(torch.from_numpy(groups), torch.from_numpy(labels))
    own = info_nce(*tensors(vectors, anchors), scale, kept, hardness)
    expected = plain_info_nce(vectors, anchors, scale, groups, labels, hardness)
    np.testing.assert_allclose(own.item(), expected, rtol=1e-4, atol=1e-5)


@given(SEEDS, st.integers(2, 9), st.sampled_from([0.0, 2.0]))
def test_contrast_does_not_depend_on_the_order(seed: int, count: int, hardness: float) -> None:
    rng = np.random.default_rng(seed)
    vectors, anchors = tensors(unit_rows(rng, count), unit_rows(rng, count))
    groups = torch.from_numpy(rng.integers(0, 4, count))
    order = torch.from_numpy(rng.permutation(count))
    straight = info_nce(vectors, anchors, 10.0, kept_negatives(groups, UNKNOWN[:count]), hardness)
    kept = kept_negatives(groups[order], UNKNOWN[:count])
    shuffled = info_nce(vectors[order], anchors[order], 10.0, kept, hardness)
    np.testing.assert_allclose(straight, shuffled, rtol=1e-4, atol=1e-5)


def test_harder_negatives_cost_more_and_none_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    vectors, anchors = tensors(unit_rows(rng, 8), unit_rows(rng, 8))
    costs = [info_nce(vectors, anchors, 5.0, None, hardness).item() for hardness in (0, 1, 4)]
    assert costs == sorted(costs)
    alone = kept_negatives(torch.zeros(8, dtype=torch.int64), UNKNOWN[:8])
    for hardness in (0.0, 2.0):
        assert info_nce(vectors, anchors, 5.0, alone, hardness).item() == pytest.approx(0, abs=1e-6)


@given(SEEDS, st.sampled_from([torch.float16, torch.float32]), st.sampled_from([0.0, 2.0]))
def test_gradients_are_finite_at_the_largest_scale(
    seed: int, dtype: torch.dtype, hardness: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors, anchors = tensors(unit_rows(rng, 6, 64), unit_rows(rng, 6, 64))
    vectors = vectors.to(dtype).requires_grad_()
    temperature = Temperature(0.01, learned=True)
    groups = torch.tensor([0, 0, 0, 1, 2, 2])
    kept = kept_negatives(groups, UNKNOWN[:6])
    targets = soft_targets(torch.eye(6), anchors)
    loss = info_nce(vectors, anchors.to(dtype), temperature(), kept, hardness)
    loss = loss + cosine_regression(vectors, anchors)
    loss = loss + anchor_cross_entropy(vectors, anchors.to(dtype), targets, temperature())
    loss.backward()
    assert torch.isfinite(vectors.grad).all()
    assert torch.isfinite(temperature.log_scale.grad)


def test_regression_is_one_minus_the_cosine() -> None:
    vectors, anchors = tensors([[1, 0], [0, 1], [1, 0]], [[1, 0], [1, 0], [-1, 0]])
    assert cosine_regression(vectors, anchors).item() == pytest.approx((0 + 1 + 2) / 3)


@given(SEEDS, st.integers(1, 6), st.integers(2, 9), st.floats(1, 30))
def test_cross_entropy_over_a_bank_is_what_it_says(
    seed: int, count: int, size: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors, bank = unit_rows(rng, count), unit_rows(rng, size)
    targets = rng.dirichlet(np.ones(size), count)
    logits = scale * vectors @ bank.T
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    own = anchor_cross_entropy(*tensors(vectors, bank, targets), scale)
    np.testing.assert_allclose(own.item(), -(targets * logs).sum(1).mean(), rtol=1e-4)
    order = rng.permutation(size)
    shuffled = anchor_cross_entropy(*tensors(vectors, bank[order], targets[:, order]), scale)
    np.testing.assert_allclose(own, shuffled, rtol=1e-4)


@given(SEEDS, st.floats(0, 1))
def test_soft_targets_are_own_anchors_and_what_is_near_them(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    bank = unit_rows(rng, 7)
    own = rng.integers(0, 3, (4, 7)) + np.eye(4, 7)
    weights = own / own.sum(1, keepdims=True)
    mean = weights @ bank
    near = np.exp(mean / np.linalg.norm(mean, axis=1, keepdims=True) @ bank.T / 0.07)
    expected = share * weights + (1 - share) * near / near.sum(1, keepdims=True)
    targets = soft_targets(*tensors(own, bank), share)
    np.testing.assert_allclose(targets, expected, atol=1e-4)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)


def test_a_learned_temperature_stays_in_its_range() -> None:
    temperature = Temperature(0.07, learned=True)
    assert temperature().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        temperature.log_scale.fill_(9.0)
    temperature.clamp()
    assert temperature().item() == pytest.approx(100)
    assert not Temperature(0.07, learned=False).log_scale.requires_grad
