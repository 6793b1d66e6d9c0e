"""Ranks, recall, precision and chance against hand-worked figures and their definitions."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from encoders.bind.scoring import Pool, relevant_ranks, score_retrieval


def unit(*rows: list[float]) -> np.ndarray:
    array = np.array(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_ranks_by_hand() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.7])
    assert relevant_ranks(scores, np.array([True, False, True, False])).tolist() == [3, 4]
    assert relevant_ranks(scores, np.array([False, True, False, False])).tolist() == [1]


def test_of_equal_scores_the_relevant_come_last() -> None:
    relevant = np.array([True, False, True, False, False])
    assert relevant_ranks(np.full(5, 0.5), relevant).tolist() == [4, 5]
    nearly = 0.5 + np.array([3e-8, 0, 2e-8, 1e-8, 0])
    assert relevant_ranks(nearly, relevant).tolist() == [4, 5]


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12).filter(
        lambda pairs: any(relevant for _, relevant in pairs)
    )
)
def test_ranks_are_the_worst_of_all_orders_that_the_scores_allow(
    pairs: list[tuple[int, bool]],
) -> None:
    scores = np.array([score for score, _ in pairs], np.float64)
    relevant = np.array([flag for _, flag in pairs])
    expected = []
    for own in scores[relevant]:
        above = int((scores > own).sum())
        tied_others = int(((scores == own) & ~relevant).sum())
        expected.append((above + tied_others, own))
    counts: dict[float, int] = {}
    worst = []
    for base, own in sorted(expected):
        counts[own] = counts.get(own, 0) + 1
        worst.append(base + counts[own])
    assert relevant_ranks(scores, relevant).tolist() == sorted(worst)


def test_recall_and_precision_by_hand() -> None:
    # Average precision: (1/2 + 2/3) / 2, 1, and 1/6.
    ranks = [np.array([2, 3]), np.array([1]), np.array([6])]
    scores = score_retrieval(ranks, [10, 10, 10])
    assert scores.queries == 3
    assert scores.recall[1].value == pytest.approx(1 / 3)
    assert scores.recall[5].value == pytest.approx(2 / 3)
    assert scores.map.value == pytest.approx((7 / 12 + 1 + 1 / 6) / 3)
    assert scores.chance[1] == pytest.approx((0.2 + 0.1 + 0.1) / 3)
    # 1 - (8 * 7 * 6 * 5 * 4) / (10 * 9 * 8 * 7 * 6) for two of ten among five.
    assert scores.chance[5] == pytest.approx((7 / 9 + 0.5 + 0.5) / 3)
    for estimate in (*scores.recall.values(), scores.map):
        assert estimate.low <= estimate.value <= estimate.high


def test_chance_is_what_all_orders_give() -> None:
    orders = list(permutations([True, True, False, False, False]))
    for k in (1, 2, 3, 5):
        expected = np.mean([any(order[:k]) for order in orders])
        scores = score_retrieval([np.array([1, 2])], [5], (k,))
        assert scores.chance[k] == pytest.approx(expected)


def test_the_interval_shrinks_with_queries() -> None:
    def width(n: int) -> float:
        recall = score_retrieval([np.array([1 + i % 2]) for i in range(n)], [4] * n).recall[1]
        return recall.high - recall.low

    # 2 * 1.96 * sqrt(0.25 / n) for a share of one half.
    assert width(400) == pytest.approx(0.098, abs=0.015)
    assert width(100) == pytest.approx(0.196, abs=0.03)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_one_part_and_one_view_score_by_cosine(candidates: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query = unit(*rng.normal(size=(1, 16)).tolist())
    vectors = unit(*rng.normal(size=(candidates, 16)).tolist())
    scores = Pool([vector[np.newaxis] for vector in vectors]).scores(query)
    np.testing.assert_allclose(scores, vectors @ query[0], rtol=1e-4, atol=1e-4)


@given(st.integers(3, 8), st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_each_part_has_equal_say_however_its_cosines_spread(
    candidates: int, seed: int, near: float
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(*rng.normal(size=(candidates, 16)).tolist())
    vectors[:, 15] = 0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    one, two = unit(*rng.normal(size=(2, 16)).tolist())
    aside = np.eye(16, dtype=np.float32)[15]  # at right angles to every candidate
    two[15] = 0
    two /= np.linalg.norm(two)
    faint = near * two + np.sqrt(1 - near**2) * aside  # all its cosines are `near` times as large
    pool = Pool([vector[np.newaxis] for vector in vectors])
    expected = pool.scores(np.stack([one, two]))
    np.testing.assert_allclose(pool.scores(np.stack([one, faint])), expected, rtol=1e-3, atol=1e-3)


@given(st.integers(1, 8), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_what_is_as_near_as_is_usual_has_no_lead(candidates: int, parts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(*rng.normal(size=(candidates, 16)).tolist())
    asked = unit(*rng.normal(size=(parts, 16)).tolist())
    pool = Pool([vector[np.newaxis] for vector in vectors])
    means = asked.astype(float) @ vectors.T  # as near as is usual, each of them
    deviations = rng.uniform(0.01, 0.2, means.shape)
    usual = np.stack([means, deviations], axis=-1)
    np.testing.assert_allclose(pool.scores(asked, usual), 0, atol=1e-3)
    usual[:, 0, 0] -= 2 * deviations[:, 0]  # the first is two deviations nearer
    scores = pool.scores(asked, usual)
    assert relevant_ranks(scores, np.arange(candidates) == 0)[0] == 1
    if parts == 1:
        assert scores[0] == pytest.approx(2, abs=1e-3)


def test_each_part_may_find_its_own_view() -> None:
    dog, clock, sea = np.eye(3, dtype=np.float32)
    blend = unit([1, 1, 0])
    tiled = np.concatenate([blend, np.stack([dog, clock])])  # a picture of both and two tiles of it
    pool = Pool([blend, tiled, sea[np.newaxis]])
    assert len(pool) == 3
    whole = 2**-0.5
    expected = [whole, (whole + 1) / 2, 0]
    np.testing.assert_allclose(pool.scores(dog[np.newaxis]), expected, atol=1e-6)
    np.testing.assert_allclose(pool.scores(clock[np.newaxis]), expected, atol=1e-6)
    both = pool.scores(np.stack([dog, clock]))
    assert both.argmax() == 1
    np.testing.assert_allclose(both, (np.array(expected) - np.mean(expected)) / np.std(expected))


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_view_more_is_never_further_away(views: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query = unit(*rng.normal(size=(1, 16)).tolist())
    candidate = unit(*rng.normal(size=(views, 16)).tolist())
    scores = [Pool([candidate[:k]]).scores(query)[0] for k in range(1, views + 1)]
    assert (np.diff(scores) >= -1e-12).all()  # products of other shapes round in other ways


def test_nothing_to_score_is_said() -> None:
    with pytest.raises(ConfigError, match="0 candidates"):
        Pool([])
    with pytest.raises(ConfigError, match="expected at least 1 each"):
        score_retrieval([], [])
    with pytest.raises(ConfigError, match="expected at least 1 each"):
        score_retrieval([np.array([], np.int64)], [3])
