"""Counting alarms against what happened, intervals, and fixed thresholds through the gate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from agent.config import GateConfig
from agent.match.gate import Gate
from tools.event_scores import Alarm, Span, count, poisson_interval, quantile, wilson_interval
from tools.event_traces import alarms_at

WHOLE = (0.0, 3600.0)


def alarm(from_s: float, to_s: float) -> Alarm:
    return Alarm(from_s, from_s + 0.5, to_s)


def test_one_found_one_missed_one_false() -> None:
    spans = [Span(100, 105), Span(200, 205)]
    counts = count([alarm(101, 106), alarm(300, 310)], spans, WHOLE, slack_s=2)
    assert (counts.happened, counts.found, counts.false) == (2, 1, 1)
    assert counts.delays_s == (1.5,)
    assert counts.hours == pytest.approx((3600 - 14) / 3600)


def test_an_alarm_that_is_always_open_finds_nothing() -> None:
    spans = [Span(100, 105), Span(200, 205)]
    counts = count([alarm(5, 3600)], spans, WHOLE, slack_s=2)
    assert (counts.found, counts.false) == (0, 1)


def test_an_alarm_that_was_right_finds_what_follows_while_it_is_open() -> None:
    counts = count([alarm(101, 111)], [Span(100, 105), Span(110, 115)], WHOLE, slack_s=2)
    assert (counts.found, counts.false) == (2, 0)


def test_evidence_may_come_a_window_later_and_no_more() -> None:
    spans = [Span(100, 105)]
    assert count([alarm(106.9, 108)], spans, WHOLE, slack_s=2).found == 1
    assert count([alarm(107.1, 108)], spans, WHOLE, slack_s=2).false == 1


def test_what_began_before_is_not_asked_for_again() -> None:
    """A part of a run: its events are those that begin in it, its hours without any of them."""
    spans = [Span(95, 105), Span(150, 155)]
    counts = count([alarm(104, 106), alarm(150, 152)], spans, (100.0, 200.0), slack_s=0)
    assert (counts.happened, counts.found, counts.false) == (1, 1, 0)
    assert counts.hours == pytest.approx(90 / 3600)


@pytest.mark.parametrize(
    ("events", "low", "high"), [(0, 0.0, 3.689), (1, 0.0253, 5.572), (6, 2.202, 13.059)]
)
def test_garwoods_interval(events: int, low: float, high: float) -> None:
    """Of the published table (Garwood 1936, to 95 %)."""
    assert poisson_interval(events, 1.0) == pytest.approx((low, high), abs=2e-3)
    assert poisson_interval(events, 2.0) == pytest.approx((low / 2, high / 2), abs=2e-3)


@given(st.integers(0, 200), st.integers(0, 200))
def test_intervals_hold_what_was_measured(found: int, more: int) -> None:
    low, high = wilson_interval(found, found + more)
    assert 0 <= low <= high <= 1
    if found + more:
        assert low - 1e-9 <= found / (found + more) <= high + 1e-9
    low, high = poisson_interval(found, 1.0)
    assert low <= found <= high


def test_wilsons_interval_of_the_textbook() -> None:
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_no_delay_of_nothing() -> None:
    assert math.isnan(quantile((), 0.5))


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=60),
    st.floats(0.05, 0.95),
    st.sampled_from([0.0, 0.7]),
)
def test_a_threshold_tells_what_the_gate_tells(
    values: list[float], threshold: float, min_duration_s: float
) -> None:
    """Leaving out what is below the threshold while the gate is idle changes nothing."""
    config = GateConfig(min_duration_s=min_duration_s)
    t_s = np.arange(len(values)) * 0.5
    told = alarms_at(t_s, np.array(values), threshold, config, 0.5)
    gate = Gate(GateConfig(enter=threshold, exit=threshold, min_duration_s=min_duration_s))
    starts, ends = [], []
    for at_s, value in zip(t_s, values, strict=True):
        t_ns = int(at_s * NS_PER_S)
        transition = gate.step(t_ns, value, t_ns - NS_PER_S // 2)
        if transition is not None and transition.phase == "start":
            starts.append(transition.start_ns / NS_PER_S)
        elif transition is not None and transition.phase == "end":
            ends.append(transition.end_ns / NS_PER_S)
    assert [one.from_s for one in told] == pytest.approx(starts)
    assert [one.to_s for one in told][: len(ends)] == pytest.approx(ends)
