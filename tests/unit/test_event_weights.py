"""Weights from labels: what finds most, in simulations whose best weights are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.match.tail import CLUSTER_S
from tests.unit.test_tail import correlated
from tools.event_scores import Span
from tools.event_weights import PEAKS, Heard, best_weights, highest_peaks, share_of, shrunk

HOP_S = 0.5
HOUR = 7200  # windows


def heard(*seen: float) -> tuple[Heard, list[Span], Any]:
    """Of one query an hour of normal noise of as many streams, and 40 events of four windows in
    which each is so many deviations high; and their correlation, none.
    """
    rng = np.random.default_rng(6)
    z = correlated(rng, HOUR, len(seen), 0.6)
    t_s = HOP_S * np.arange(HOUR, dtype=np.float64)
    spans = [Span(at, at + 2.0) for at in np.arange(40.0, 3600.0, 89.0)]
    known = np.zeros(HOUR, bool)
    for span in spans:
        known |= (t_s >= span.from_s) & (t_s <= span.to_s)
    z += known[:, np.newaxis] * np.array(seen)
    shape = (HOUR, 1, len(seen))
    own = Heard(t_s, z.reshape(shape), np.ones(shape, bool), known[:, np.newaxis])
    return own, spans, np.tile(np.eye(len(seen)), (HOUR, 1, 1, 1))


def weights(*seen: float) -> tuple[int, ...]:
    own, spans, correlation = heard(*seen)
    return best_weights([True] * len(seen), share_of(own, correlation, 0, spans, 0.0))


def test_a_blind_stream_weighs_next_to_nothing() -> None:
    mic, cam = weights(3.0, 0.0)
    assert mic >= 9
    assert mic + cam == 10


def test_equal_streams_weigh_about_the_same_and_a_better_one_more() -> None:
    assert abs(weights(2.5, 2.5)[0] - 5) <= 2
    mic, cam = weights(1.5, 3.0)
    assert 1 <= mic < cam


def test_of_three_streams_the_blind_one_is_left_out() -> None:
    mic, watch, cam = weights(2.5, 0.0, 2.5)
    assert watch <= 1
    assert min(mic, cam) >= 3


def test_what_finds_as_much_with_any_weights_has_equal_ones() -> None:
    assert best_weights([True, True], lambda tenths: 1.0) == (5, 5)
    assert best_weights([True, False, True], lambda tenths: 1.0) == (5, 0, 5)
    assert sorted(best_weights([True] * 3, lambda tenths: 1.0)) == [3, 3, 4]


def test_a_stream_that_is_not_there_says_nothing_and_hides_nothing() -> None:
    own, spans, correlation = heard(7.0, 0.0)
    own.fresh[: HOUR // 2, :, 0] = False
    share = share_of(own, correlation, 0, spans, 0.0)
    assert share((10, 0)) == pytest.approx(0.5, abs=0.03), "heard in the second half alone"


def test_few_events_are_told_by_the_other_queries_and_many_by_themselves() -> None:
    def towards(best: int) -> Any:
        return lambda tenths: 1 - abs(tenths[0] - best) / 10

    few = shrunk(towards(2), 8, [towards(7), towards(7)])
    many = shrunk(towards(2), 200, [towards(7), towards(7)])
    assert best_weights([True, True], few) == (7, 3)
    assert best_weights([True, True], many) == (2, 8)
    assert best_weights([True, True], shrunk(towards(2), 8, [])) == (2, 8)


@given(
    steps=st.lists(st.floats(0.1, 3.0), max_size=60),
    values=st.lists(st.floats(-5, 5), min_size=60, max_size=60),
)
def test_peaks_fall_and_stand_apart(steps: list[float], values: list[float]) -> None:
    t_s, own = np.cumsum(np.array([0.0, *steps])), np.array(values)[: len(steps) + 1]
    own = own[: len(t_s)]
    t_s = t_s[: len(own)]
    peaks = highest_peaks(t_s, own)
    assert len(peaks) == PEAKS
    assert peaks[0] == own.max()
    assert (np.diff(peaks[np.isfinite(peaks)]) <= 0).all()
    assert np.isfinite(peaks).sum() <= 1 + (t_s[-1] - t_s[0]) / CLUSTER_S * 2
    if len(t_s) and t_s[-1] < CLUSTER_S:
        assert np.isfinite(peaks).sum() == 1
