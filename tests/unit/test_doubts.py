"""Doubts: streams that run and say nothing, and streams that are only quiet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import NS_PER_S, from_s
from agent.match.agreement import WITHIN_S, Agreement
from agent.match.stillness import BLOCK_S, IN_A_ROW, LEAST_BLOCKS, Stillness
from agent.types import Embedding
from tests.fakes.streams import stream
from tests.unit.test_matcher import Rig, text

MIC, CAM, EAR = stream("mic", "audio"), stream("cam", "image"), stream("ear", "audio")
KEYS = [("glass", "1"), ("dog", "1"), ("fall", "1")]
HOP_S = 3.0
TOLD_S = IN_A_ROW * BLOCK_S


def moved(still: Stillness, from_min: float, minutes: float, noise: float, seed: int = 1) -> None:
    """One vector every HOP_S, of so much noise about one direction."""
    rng = np.random.default_rng(seed)
    for n in range(round(minutes * 60 / HOP_S)):
        vector = np.array([1.0, 0, 0, 0]) + rng.normal(0, 1, 4) * noise
        vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        end_ns = from_s(from_min * 60 + n * HOP_S)
        still.observe(Embedding("fake@1", vector, "audio", "mic", end_ns - NS_PER_S, end_ns))


def test_a_stream_that_stands_still_is_told_within_minutes_until_it_moves() -> None:
    still = Stillness()
    moved(still, 0, 30, 0.1)
    assert still.since_ns is None
    moved(still, 30, TOLD_S / 60 + 1.1, 0.0)
    assert still.since_ns is not None
    assert 29 * 60 <= still.since_ns / NS_PER_S <= 31 * 60 + HOP_S
    since_ns = still.since_ns
    moved(still, 35, 300, 0.0)
    assert still.since_ns == since_ns, "hours of it are not taken for ordinary"
    moved(still, 335, 2.1, 0.1)
    assert still.since_ns is None


def test_less_noise_alone_is_no_stillness() -> None:
    still = Stillness()
    moved(still, 0, 30, 0.1)
    moved(still, 30, 30, 0.07)  # half the spread
    assert still.since_ns is None


def test_a_stream_that_never_moved_is_not_doubted() -> None:
    still = Stillness()
    moved(still, 0, 120, 0.0)
    assert still.since_ns is None


def test_quiet_minutes_that_end_by_themselves_become_ordinary() -> None:
    still = Stillness()
    moved(still, 0, 30, 0.1)
    moved(still, 30, 2, 0.01)
    moved(still, 32, 10, 0.1)
    moved(still, 42, 30, 0.01)
    assert still.since_ns is None


def test_nothing_is_said_before_enough_is_known() -> None:
    still = Stillness()
    moved(still, 0, LEAST_BLOCKS - 2, 0.1)
    moved(still, LEAST_BLOCKS - 2, 60, 0.0)
    assert still.since_ns is None


def test_windows_that_were_not_encoded_are_not_taken_for_stillness() -> None:
    still = Stillness()
    moved(still, 0, 30, 0.1)
    for n in range(200):
        end_ns = from_s(1800 + n * HOP_S)
        vector = np.array([1, 0, 0, 0], np.float32)
        still.observe(
            Embedding("fake@1", vector, "audio", "mic", end_ns - 1, end_ns, reused=bool(n % 10))
        )
    assert still.since_ns is None


@given(
    noises=st.lists(st.floats(0.07, 1.0), min_size=3, max_size=20),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_whatever_is_noise_is_never_still(noises: list[float], seed: int) -> None:
    """Minutes of any loudness above 0.7 of the floor: half its spread."""
    still = Stillness()
    moved(still, 0, LEAST_BLOCKS, 0.1, seed)
    for n, noise in enumerate(noises):
        moved(still, LEAST_BLOCKS + 2 * n, 2, noise, seed + n)
        assert still.since_ns is None


class Pair:
    """A microphone and a second stream, a window of each every second."""

    def __init__(self, second: Any = CAM, seed: int = 1) -> None:
        self.agreement, self.second = Agreement(), second
        for info in (MIC, second):
            self.agreement.add_stream(info)
        self.agreement.ask(KEYS)
        self.rng = np.random.default_rng(seed)
        self.now_s = 100.0
        self.may = np.ones(3, bool)

    def event(self, answered: bool) -> None:
        """Half a minute of noise; then one thing, of one of the queries, for three seconds."""
        row = int(self.rng.integers(3))
        for n in range(33):
            for info, there in ((MIC, True), (self.second, answered)):
                z = self.rng.normal(0, 0.7, 3)
                if n >= 30 and there:
                    z[row] += 5.0
                per_hour = np.where(z > 4.0, 0.1, 100.0)
                may = self.may if info is self.second else np.ones(3, bool)
                end_ns = round(self.now_s * NS_PER_S)
                self.agreement.observe(info.name, end_ns, z, per_hour, may)
            self.now_s += 1.0

    def after(self, events: int, rate: float) -> dict[str, str]:
        for _ in range(events):
            self.event(bool(self.rng.random() < rate))
        return self.agreement.doubts()


def test_a_stream_that_stops_to_answer_is_told_until_it_answers_again() -> None:
    pair = Pair()
    assert pair.after(60, 0.7) == {}
    (told,) = pair.after(20, 0.0).items()
    name, sentence = told
    assert name == "cam"
    assert sentence.startswith("answered ")
    assert "times that mic found something" in sentence
    assert list(pair.after(60, 0.0)) == ["cam"], "it is not taken for ordinary"
    assert pair.after(8, 1.0) == {}


@pytest.mark.parametrize("seed", range(3))
def test_one_that_answers_now_and_then_as_it_used_to_is_not_doubted(seed: int) -> None:
    pair = Pair(seed=seed)
    for _ in range(8):
        assert pair.after(25, 0.5) == {}


def test_senses_that_never_agreed_are_not_doubted() -> None:
    assert Pair().after(150, 0.0) == {}


def test_streams_of_one_sense_are_not_compared() -> None:
    pair = Pair(second=EAR)
    pair.after(60, 1.0)
    assert pair.after(30, 0.0) == {}


def test_what_a_stream_may_not_answer_is_not_expected_of_it() -> None:
    pair = Pair()
    pair.after(60, 1.0)
    pair.may = np.zeros(3, bool)
    assert pair.after(30, 0.0) == {}


def test_a_stream_that_is_away_is_not_judged() -> None:
    pair = Pair()
    pair.after(60, 1.0)
    for n in range(30):
        high = np.array([6.0, 0, 0])
        end_ns = round((pair.now_s + 4 * WITHIN_S * n) * NS_PER_S)
        pair.agreement.observe("mic", end_ns, high, np.where(high > 4, 0.1, 100), pair.may)
    assert pair.agreement.doubts() == {}


def test_what_was_learned_of_a_query_that_stays_is_kept() -> None:
    pair = Pair()
    pair.after(60, 0.7)
    pair.agreement.ask([*KEYS, ("cow", "1")])
    pair.agreement.ask(KEYS)
    assert list(pair.after(20, 0.0)) == ["cam"]


def test_a_matcher_tells_of_a_stream_that_stands_still() -> None:
    rig = Rig(text("glass"))
    rng = np.random.default_rng(1)
    for n in range(400):
        rig.at(4.0 * n, "mic", glass=float(rng.normal(0, 0.1)))
        rig.at(4.0 * n + 1, "cam", glass=float(rng.normal(0, 0.1)) if n < 330 else 0.0)
    (told,) = rig.matcher.doubts(1600 * NS_PER_S).items()
    name, sentence = told
    assert name == "cam"
    assert sentence.startswith("has hardly changed for 5 min")
