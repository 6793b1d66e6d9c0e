"""Gate: at its thresholds and times to the nanosecond, and the shape of what it tells."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import from_s
from agent.config import GateConfig
from agent.match.gate import Gate, Transition

MS = 1_000_000


def gate(**fields: Any) -> Gate:
    plain = {"enter": 0.7, "exit": 0.4, "min_duration_s": 0.0, "hold_s": 1.0, "cool_down_s": 2.0}
    return Gate(GateConfig(**(plain | fields)))


def run(gate: Gate, *steps: tuple[int, float]) -> list[tuple[int, str]]:
    """(time in ms, phase) of what is told; steps are (time in ms, score)."""
    told = [(t, gate.step(t * MS, score)) for t, score in steps]
    return [(t, transition.phase) for t, transition in told if transition]


def test_enter_is_reached_by_equality() -> None:
    assert run(gate(), (0, 0.6999)) == []
    assert run(gate(), (0, 0.7)) == [(0, "start")]


def test_between_exit_and_enter_an_event_neither_opens_nor_ends() -> None:
    assert run(gate(), (0, 0.6), (5000, 0.6)) == []
    told = run(gate(hold_s=0.0), (0, 0.8), (500, 0.4), (999, 0.5))
    assert told == [(0, "start")]


def test_a_hold_of_zero_ends_at_the_first_score_below_exit() -> None:
    assert run(gate(hold_s=0.0), (0, 0.8), (10, 0.3999)) == [(0, "start"), (10, "end")]


def test_hold_is_counted_from_the_last_evidence_and_reached_exactly() -> None:
    opened = gate(update_s=60.0)
    assert run(opened, (0, 0.7), (100, 0.5), (1099, 0.0)) == [(0, "start")]
    end = opened.step(1100 * MS, 0.0)
    assert end == Transition("end", 0, 100 * MS, 0.7, "quiet")


def test_evidence_within_the_hold_goes_on() -> None:
    told = run(gate(update_s=60.0), (0, 0.7), (900, 0.0), (950, 0.4), (1949, 0.0), (1950, 0.0))
    assert told == [(0, "start"), (1950, "end")]


def test_the_minimum_duration_is_reached_exactly_and_the_start_is_its_beginning() -> None:
    opening = gate(min_duration_s=0.5)
    assert run(opening, (100, 0.9), (300, 0.4), (599, 0.5)) == []
    start = opening.step(600 * MS, 0.4)
    assert start == Transition("start", 100 * MS, 600 * MS, 0.9)


def test_a_dip_below_exit_starts_the_minimum_duration_anew() -> None:
    opening = gate(min_duration_s=0.5)
    assert run(opening, (0, 0.9), (300, 0.39), (400, 0.9), (899, 0.9)) == []
    start = opening.step(900 * MS, 0.9)
    assert start is not None
    assert start.start_ns == 400 * MS


def test_the_cool_down_is_counted_from_the_end_and_over_exactly() -> None:
    steps = ((0, 0.9), (1000, 0.0), (1001, 0.9), (2999, 0.9), (3000, 0.9))
    assert run(gate(), *steps) == [(0, "start"), (1000, "end"), (3000, "start")]


def test_a_minimum_duration_begins_after_the_cool_down() -> None:
    steps = ((0, 0.9), (500, 0.9), (1500, 0.0), (2000, 0.9), (3500, 0.9), (4000, 0.9))
    assert run(gate(min_duration_s=0.5, update_s=60.0), *steps) == [
        (500, "start"),
        (1500, "end"),
        (4000, "start"),
    ]


def test_updates_come_at_their_pace_or_with_a_higher_peak() -> None:
    opened = gate(update_s=1.0)
    steps = ((0, 0.7), (100, 0.7), (200, 0.74), (300, 0.76), (1299, 0.7), (1300, 0.7), (1400, 0.7))
    assert run(opened, *steps) == [(0, "start"), (300, "update"), (1300, "update")]


def test_no_update_comes_without_evidence() -> None:
    assert run(gate(update_s=0.1), (0, 0.9), (500, 0.0), (900, 0.1)) == [(0, "start")]


def test_time_that_goes_backwards_stands_still() -> None:
    opened = gate()
    assert run(opened, (1000, 0.9), (0, 0.0), (1500, 0.0)) == [(1000, "start")]
    end = opened.step(2000 * MS, 0.0)
    assert end == Transition("end", 1000 * MS, 1000 * MS, 0.9, "quiet")


def test_an_event_begins_with_its_evidence_but_after_the_event_before() -> None:
    opened = gate(hold_s=0.0, cool_down_s=0.0)
    first = opened.step(1000 * MS, 0.9, start_ns=800 * MS)
    assert first == Transition("start", 800 * MS, 1000 * MS, 0.9)
    end = opened.step(1100 * MS, 0.0)
    assert end == Transition("end", 800 * MS, 1000 * MS, 0.9, "quiet")
    second = opened.step(1200 * MS, 0.9, start_ns=700 * MS)
    assert second == Transition("start", 1000 * MS + 1, 1200 * MS, 0.9)


def test_evidence_cannot_begin_after_it_was_seen() -> None:
    start = gate().step(5, 0.9, start_ns=9)
    assert start == Transition("start", 5, 5, 0.9)


def test_what_goes_on_for_too_long_is_ended_and_begins_anew_only_after_a_pause() -> None:
    stuck = gate(max_duration_s=3.0, hold_s=1.0, cool_down_s=0.0, update_s=60.0)
    assert run(stuck, (0, 0.9), (2999, 0.9)) == [(0, "start")]
    end = stuck.step(3000 * MS, 0.9)
    assert end == Transition("end", 0, 3000 * MS, 0.9, "max_duration")
    assert (stuck.is_quiet, stuck.is_idle) == (True, False)
    assert run(stuck, (4000, 0.9), (4500, 0.0), (5400, 0.4), (6399, 0.0)) == []
    assert run(stuck, (6400, 0.0)) == []
    assert stuck.is_idle
    assert run(stuck, (6500, 0.9)) == [(6500, "start")]


def test_what_opens_nothing_costs_no_cool_down() -> None:
    opening = gate(min_duration_s=0.5, cool_down_s=60.0)
    assert run(opening, (0, 0.9), (300, 0.0), (400, 0.9), (900, 0.9)) == [(900, "start")]


def test_quiet_is_neither_pending_nor_open() -> None:
    watched = gate(min_duration_s=0.5)
    states = [(watched.step(t * MS, score), watched.is_quiet)[1] for t, score in (
        (0, 0.1), (100, 0.9), (600, 0.9), (1600, 0.0),
    )]  # fmt: skip
    assert states == [True, False, False, True]


def test_closing_ends_what_is_open_once() -> None:
    opened = gate()
    assert opened.close() is None
    opened.step(0, 0.9)
    opened.step(500 * MS, 0.5)
    assert opened.close() == Transition("end", 0, 500 * MS, 0.9)
    assert opened.close() is None
    assert opened.is_idle
    assert opened.step(501 * MS, 0.9) is None, "closing begins a cool-down as any end does"


def test_closing_forgets_what_was_pending() -> None:
    pending = gate(min_duration_s=1.0)
    assert pending.step(0, 0.9) is None
    assert not pending.is_idle
    assert pending.close() is None
    assert pending.is_idle


@pytest.mark.parametrize("exit_", [0.0, 0.4])
def test_a_score_below_any_exit_ends(exit_: float) -> None:
    opened = gate(exit=exit_)
    opened.step(0, 0.9)
    end = opened.step(1000 * MS, -1.0)
    assert end is not None
    assert end.phase == "end"


seconds = st.sampled_from([0.0, 0.001, 0.1, 0.5, 2.0])
configs = st.builds(
    GateConfig,
    enter=st.sampled_from([0.5, 0.7, 1.0]),
    exit=st.sampled_from([0.0, 0.3, 0.5]),
    min_duration_s=seconds,
    hold_s=seconds,
    cool_down_s=seconds,
    update_s=st.sampled_from([0.001, 0.5, 5.0]),
    max_duration_s=st.sampled_from([0.001, 0.3, 2.0, 300.0]),
)
gate_steps = st.lists(
    st.tuples(
        st.one_of(st.integers(-300, 900), st.just(0), st.sampled_from([1, 100, 500, 2000])),
        st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9, 1.0])),
        st.none() | st.integers(0, 3000),
    ),
    max_size=60,
)


def told_by(config: GateConfig, steps: list[Any], shift_ns: int = 0) -> list[tuple[int, Any]]:
    """(when, what) of everything told, with a close at the end."""
    gate = Gate(config)
    t, now, told = 10_000, 0, []
    for delta, score, lead in steps:
        t += delta
        now = max(now, t)
        began = None if lead is None else (t - lead) * MS + shift_ns
        told.append((now * MS, gate.step(t * MS + shift_ns, score, began)))
    told += [(now * MS, gate.close()), (now * MS, gate.close())]
    return [(when, transition) for when, transition in told if transition]


@given(config=configs, steps=gate_steps)
def test_what_is_told_is_events_one_after_another(config: GateConfig, steps: list[Any]) -> None:
    opened: Transition | None = None
    ended: tuple[int, Transition] | None = None
    for when, told in told_by(config, steps):
        assert told.start_ns <= told.end_ns <= when
        if told.phase == "start":
            assert opened is None
            if ended is not None:
                assert when - ended[0] >= from_s(config.cool_down_s)
                assert told.start_ns > ended[1].end_ns
            assert told.peak >= config.enter
        else:
            assert opened is not None
            assert told.start_ns == opened.start_ns
            assert told.end_ns >= opened.end_ns
            assert told.peak >= opened.peak
            if told.reason == "max_duration":
                assert told.phase == "end"
                assert told.end_ns == when
        opened = None if told.phase == "end" else told
        ended = (when, told) if told.phase == "end" else ended
    assert opened is None


@given(config=configs, steps=gate_steps)
def test_no_event_lasts_longer_than_it_may_but_by_one_step(
    config: GateConfig, steps: list[Any]
) -> None:
    gate, t, opened_ns = Gate(config), 10_000, None
    for delta, score, _ in steps:
        t = max(t, t + delta)
        told = gate.step(t * MS, score)
        if told and told.phase == "start":
            opened_ns = t * MS
        elif told and told.phase == "end":
            opened_ns = None
        elif opened_ns is not None and score >= config.exit:
            assert t * MS - opened_ns < from_s(config.max_duration_s)


@given(config=configs, steps=gate_steps, shift_ns=st.integers(-(2**40), 2**60))
def test_only_differences_of_time_count(
    config: GateConfig, steps: list[Any], shift_ns: int
) -> None:
    here = [(told.phase, told.start_ns, told.end_ns) for _, told in told_by(config, steps)]
    there = [
        (told.phase, told.start_ns - shift_ns, told.end_ns - shift_ns)
        for _, told in told_by(config, steps, shift_ns)
    ]
    assert here == there
