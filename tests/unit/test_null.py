"""The running null: against plain NumPy, towards the truth, and not moved by one event."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.config import MatchConfig
from agent.match.calibration import CLIP_Z, Null, logistic

QUIET = np.array([True])


def null(mean: float, deviation: float, **fields: Any) -> Null:
    return Null(MatchConfig(**fields), np.array([mean]), np.array([deviation]))


def feed(one: Null, cosines: Any) -> None:
    for cosine in cosines:
        one.learn(np.array([cosine]), QUIET)


@given(
    prior=st.tuples(st.floats(-0.3, 0.3), st.floats(0.03, 0.2)),
    weight=st.integers(1, 50),
    z=st.lists(st.floats(-2.5, 2.5), min_size=1, max_size=60),
)
def test_without_clipping_it_is_the_weighted_mean_and_variance(
    prior: tuple[float, float], weight: int, z: list[float]
) -> None:
    mean, deviation = prior
    cosines = mean + deviation * np.array(z)
    learned = null(mean, deviation, prior_windows=weight, memory_windows=1000)
    for cosine in cosines:
        assume(abs(learned.z(np.array([cosine]))[0]) <= CLIP_Z)
        feed(learned, [cosine])
    total = weight + len(z)
    expected_mean = (weight * mean + cosines.sum()) / total
    spread = weight * (deviation**2 + (mean - expected_mean) ** 2)
    expected_variance = (spread + ((cosines - expected_mean) ** 2).sum()) / total
    np.testing.assert_allclose(learned.mean, expected_mean, atol=1e-12)
    np.testing.assert_allclose(learned.variance, expected_variance, rtol=1e-9, atol=1e-15)
    assert learned.seen[0] == len(z)


def test_it_comes_to_the_streams_own_null_from_a_wrong_prior() -> None:
    rng = np.random.default_rng(5)
    learned = null(0.0, 0.02, prior_windows=120, memory_windows=2400)
    feed(learned, rng.normal(0.25, 0.06, 12_000))
    assert learned.mean[0] == pytest.approx(0.25, abs=0.005)
    assert learned.deviation[0] == pytest.approx(0.06, rel=0.1)
    assert learned.weight[0] == 2400


def test_it_follows_a_stream_that_changes() -> None:
    rng = np.random.default_rng(6)
    learned = null(0.1, 0.03, prior_windows=10, memory_windows=300)
    feed(learned, rng.normal(0.1, 0.03, 2000))
    feed(learned, rng.normal(0.2, 0.03, 2000))
    assert learned.mean[0] == pytest.approx(0.2, abs=0.01)


@given(burst=st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_a_burst_moves_it_by_a_bounded_amount(burst: list[float]) -> None:
    """An observation adds at most CLIP_Z deviations over the weight to the mean."""
    learned = null(0.1, 0.04, prior_windows=120, memory_windows=2400)
    for cosine in burst:
        mean, variance, deviation = learned.mean[0], learned.variance[0], learned.deviation[0]
        weight = learned.weight[0] + 1
        feed(learned, [cosine])
        assert abs(learned.mean[0] - mean) <= CLIP_Z * deviation / weight + 1e-15
        assert learned.variance[0] <= variance + (CLIP_Z * deviation) ** 2 / weight + 1e-15
        assert learned.variance[0] >= variance * (1 - 1 / weight) - 1e-15
    assert learned.deviation[0] < 2 * 0.04


def test_an_event_is_not_learned() -> None:
    learned = Null(MatchConfig(), np.array([0.1, 0.1]), np.array([0.05, 0.05]))
    learned.learn(np.array([0.12, 0.9]), np.array([True, False]))
    assert learned.seen.tolist() == [1, 0]
    assert learned.mean[0] > learned.mean[1] == 0.1
    assert learned.weight.tolist() == [121.0, 120.0]


def test_the_deviation_has_a_floor() -> None:
    learned = null(0.3, 0.0001, min_deviation=0.02, prior_windows=1)
    feed(learned, [0.3] * 500)
    assert learned.deviation[0] == 0.02
    assert learned.z(np.array([0.34]))[0] == pytest.approx(2.0)


def test_one_querys_null_can_be_taken_over() -> None:
    config = MatchConfig()
    old = Null(config, np.array([0.1, 0.2]), np.array([0.05, 0.06]))
    old.learn(np.array([0.15, 0.25]), np.array([True, True]))
    new = Null(config, np.array([0.0, 0.0, 0.0]), np.array([0.1, 0.1, 0.1]))
    new.take(old.learned(), here=np.array([2]), there=np.array([1]))
    for name in ("mean", "variance", "weight", "seen"):
        assert getattr(new, name)[2] == getattr(old, name)[1]
    assert new.mean[:2].tolist() == [0.0, 0.0]
    new.learn(np.array([0.3, 0.3, 0.3]), np.array([True, True, True]))
    assert old.seen.tolist() == [1, 1], "a copy, not a share"


def test_the_logistic_is_centred_and_never_overflows() -> None:
    score = logistic(np.array([-1e9, 3.3, 4.0, 4.7, 1e9]), 4.0, 0.7)
    np.testing.assert_allclose(score, [0.0, 0.268941, 0.5, 0.731059, 1.0], atol=1e-6)
    assert score[0] > 0, "a fresh stream is never mistaken for no stream"
