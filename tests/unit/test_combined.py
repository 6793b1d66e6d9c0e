"""Combined: what senses say together, with their correlation counted, as often as is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from agent.match.combined import Combined, weighted_sum
from tests.fakes.streams import stream
from tests.unit.test_matcher import CAM, MIC, Rig, brief, text
from tests.unit.test_tail import correlated

RATE = {"max_false_alarms_per_hour": 1.0}
BOTH = np.array([True, True])


def pair(windows: int, queries: int, correlation: float) -> Any:
    """(windows, queries, 2): two streams, each a normal noise, as like as they are correlated."""
    rng = np.random.default_rng(4)
    first, second = (correlated(rng, windows, queries, 0.6) for _ in range(2))
    second = correlation * first + np.sqrt(1 - correlation**2) * second
    return np.stack([first, second], axis=2)


def listening(noise: Any) -> tuple[Combined, Any]:
    """What it has learned of it, and its z of the second half."""
    queries = noise.shape[1]
    combined, told = Combined(queries, ("mic", "cam"), 1.0), []
    for z in noise:
        combined.observe(z, np.ones((queries, 2), bool), np.zeros((queries, 2), bool), 0)
        told.append(combined.z)
        combined.learn(np.ones(queries, bool), np.ones(queries))
    return combined, np.array(told[len(told) // 2 :])


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_it_has_a_deviation_of_one_however_much_the_streams_are_alike(correlation: float) -> None:
    combined, z = listening(pair(6000, 8, correlation))
    assert combined.correlation[:, 0, 1].mean() == pytest.approx(correlation, abs=0.06)
    assert z.std() == pytest.approx(1.0, abs=0.05)


def test_a_stream_that_is_not_there_is_left_out_of_either_sum() -> None:
    combined = Combined(3, ("mic", "cam", "watch"), 1.0)
    z = np.array([[2.0, 2.0, 9.0]] * 3)
    fresh = np.array([[True, True, False], [True, True, True], [True, False, False]])
    combined.observe(z, fresh, np.zeros((3, 3), bool), 0)
    assert combined.there.tolist() == [True, True, False]
    np.testing.assert_allclose(combined.z, [4 / np.sqrt(2), 13 / np.sqrt(3), 0.0])


def test_one_querys_correlations_can_be_taken_over() -> None:
    old, _ = listening(pair(500, 2, 0.7))
    new = Combined(1, ("mic", "cam"), 1.0)
    new.take(old, np.array([0]), np.array([1]))
    assert new.correlation[0].tolist() == old.correlation[1].tolist()
    new.learn(np.array([True]), np.ones(1))
    assert new.seen[0, 0, 1] == old.seen[1, 0, 1] + 1, "a copy, not a share"


@given(
    z=st.lists(st.floats(-20, 20), min_size=3, max_size=3),
    weights=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9]), min_size=3, max_size=3),
    times=st.floats(0.5, 2.0),
)
def test_only_the_ratio_of_weights_counts(
    z: list[float], weights: list[float], times: float
) -> None:
    like = np.array([[[1.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 1.0]]])
    row, own = np.array([z]), np.array([weights])
    once = weighted_sum(row, own, like)
    np.testing.assert_allclose(weighted_sum(row, times * own, like), once, rtol=1e-9, atol=1e-9)
    if np.count_nonzero(own) == 1:
        np.testing.assert_allclose(once, row[own > 0], rtol=1e-9)
    if not own.any():
        assert once == 0.0


def test_measured_weights_are_asked_of_one_stream_alone_too_and_others_are_as_they_were() -> None:
    weights = np.array([[0.8, 0.2], [1.0, 0.0], [0.0, 0.0]])
    fresh, z = np.ones((3, 2), bool), np.array([[2.0, 4.0]] * 3)
    low = np.zeros((3, 2), bool)
    combined = Combined(3, ("mic", "cam"), 1.0, weights)
    combined.observe(z, fresh, low, 0)
    assert combined.measured.tolist() == [True, True, False]
    np.testing.assert_allclose(combined.z, [2.4 / np.sqrt(0.68), 2.0, 6 / np.sqrt(2)])
    combined.observe(z, fresh & [False, True], low, 0)
    assert combined.there.tolist() == [True, False, False], "a weight of 0 says nothing"
    np.testing.assert_allclose(combined.z, [4.0, 0.0, 0.0])


def test_what_is_known_to_be_there_is_not_learned_as_ordinary() -> None:
    low, every = np.zeros((2, 2), bool), np.ones(2, bool)
    combined = Combined(2, ("mic", "cam"), 1.0)
    rng = np.random.default_rng(2)
    for n in range(2000):
        there = n % 50 < 5
        z = rng.normal(9.0 * there, 1.0, (2, 2))
        combined.observe(z, np.ones((2, 2), bool), low, 0)
        combined.learn(every, np.full(2, 1e-3), np.array([there, False]))
    assert combined.tail.level(np.ones(2))[0] < 6.0 < combined.tail.level(np.ones(2))[1]
    assert abs(combined.correlation[0, 0, 1]) < 0.1 < combined.correlation[1, 0, 1]
    assert combined.tail.ahead[0] == pytest.approx(0.0, abs=0.01), "no alarm was told"


def agreeing(events: int) -> Combined:
    """Of three streams the first two have z 3 or so at each event."""
    rng = np.random.default_rng(3)
    combined = Combined(4, ("mic", "cam", "watch"), 0.5)
    fresh = np.ones((4, 3), bool)
    for _ in range(events):
        for z in [[3.0, 3.0, 0.0]] * 6 + [[0.0, 0.0, 0.0]] * 20:
            row = np.array([z] * 4) + rng.normal(0.0, 0.3, (4, 3))
            combined.observe(row, fresh, row > 2.0, 0)
    return combined


def test_a_stream_that_never_agrees_with_another_counts_for_little() -> None:
    combined = agreeing(20)
    assert combined.times[:, 0].tolist() == [[20.0] * 3] * 4, "an event is one time, however long"
    mic, cam, watch = combined.worth.T
    np.testing.assert_allclose(mic, cam, rtol=0.1)
    assert (watch < 0.25 * mic).all()
    combined.observe(
        np.array([[3.0, 3.0, 0.0]] * 4), np.ones((4, 3), bool), np.zeros((4, 3), bool), 0
    )
    assert combined.z.min() > 4.1, "nearly the 6 / sqrt(2) of the two, and not 6 / sqrt(3)"


def test_a_stream_that_is_often_wrong_counts_for_less_and_the_others_for_no_less() -> None:
    rng = np.random.default_rng(3)
    combined = Combined(4, ("mic", "cam", "watch"), 0.5)
    for there in [[3.0, 3.0, 3.0], [3.0, 0.0, 0.0], [3.0, 0.0, 0.0], [3.0, 0.0, 0.0]] * 20:
        for z in [there] * 6 + [[0.0, 0.0, 0.0]] * 20:
            row = np.array([z] * 4) + rng.normal(0.0, 0.3, (4, 3))
            combined.observe(row, np.ones((4, 3), bool), row > 2.0, 0)
    mic, cam, watch = combined.worth.T
    np.testing.assert_allclose(cam, watch, rtol=0.1)
    assert (mic < 0.5 * cam).all()
    assert cam.min() > 2.0


def test_two_streams_weigh_the_same_whatever_they_were_worth() -> None:
    combined = agreeing(20)
    fresh = np.array([[True, False, True]] * 4)
    combined.observe(np.array([[2.0, 9.0, 2.0]] * 4), fresh, np.zeros((4, 3), bool), 0)
    np.testing.assert_allclose(combined.z, 4 / np.sqrt(2))


def test_one_querys_worths_can_be_taken_over() -> None:
    old, new = agreeing(5), Combined(1, ("mic", "cam", "watch"), 0.5)
    new.take(old, np.array([0]), np.array([2]))
    assert new.worth[0].tolist() == old.worth[2].tolist()
    assert new.worth[0, 2] < new.worth[0, 0]


def started(rig: Rig, mic: float, cam: float) -> list[Any]:
    """Ordinary seconds, then one of the given cosines; of deviation 0.1 and mean 0 at first."""
    noise = np.random.default_rng(2).normal(0.0, 0.1, (240, 2))
    events = []
    for n, (heard, looked) in enumerate([*noise.tolist(), [mic, cam]]):
        events += rig.at(1.0 + n, "mic", glass=heard)
        events += rig.at(1.4 + n, "cam", glass=looked)
    return events


def test_what_neither_sense_says_alone_they_say_together() -> None:
    asked = text("glass", **RATE)
    assert started(Rig(asked), 0.4, 0.0) == started(Rig(asked), 0.0, 0.4) == []
    (start,) = started(Rig(asked), 0.4, 0.4)
    assert (start.score.kind, start.score.threshold) == ("false_alarm_rarity", 0.5)
    assert start.score.value >= 0.5
    assert start.score.far_per_hour == 1.0
    shares = [part.share for part in start.evidence]
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)
    assert min(shares) > 0.3
    assert all(part.far_per_hour > 1.0 / 3 for part in start.evidence), "neither by itself"


def test_one_sense_alone_still_says_what_it_is_sure_of() -> None:
    (start,) = started(Rig(text("glass", **RATE)), 0.9, 0.0)
    assert start.evidence[0].stream == "mic"
    assert start.evidence[0].share > 0.9


def test_a_stale_sense_is_left_out_and_named() -> None:
    rig = Rig(text("glass", **RATE), max_age_s=2.0)
    assert started(rig, 0.0, 0.4) == []
    assert rig.at(245.0, "mic", glass=0.4) == [], "the picture is too old to count"
    (message,) = rig.matcher.scores(245 * NS_PER_S)
    assert [(part.stream, part.status) for part in message.evidence] == [
        ("mic", "ok"),
        ("cam", "stale"),
    ]
    assert message.evidence[1].share is None


def test_an_event_of_two_senses_ends_once() -> None:
    rig = Rig(text("glass", **RATE), streams=(MIC, CAM))
    events = started(rig, 0.4, 0.4)
    for n in range(4):
        events += rig.at(242.0 + n, "mic", glass=0.0)
        events += rig.at(242.4 + n, "cam", glass=0.0)
    assert [row[1] for row in brief(events)] == ["start", "end"]


def test_streams_are_measured_by_what_others_find_of_the_query() -> None:
    watch = stream("watch", "imu")
    rig = Rig(text("glass", **RATE), streams=(MIC, CAM, watch))
    noise = np.random.default_rng(2).normal(0.0, 0.1, (240, 3))
    for n, (heard, looked, worn) in enumerate(noise.tolist()):
        loud = 0.8 * (n % 20 == 19)
        rig.at(1.0 + n, "mic", glass=min(heard + loud, 0.95))
        rig.at(1.4 + n, "cam", glass=min(looked + loud, 0.95))
        rig.at(1.7 + n, "watch", glass=worn)
    (worth,) = rig.matcher._fusion._combined.worth  # what no message tells
    mic, cam, worn = worth.tolist()
    assert min(mic, cam) > 2 * worn
