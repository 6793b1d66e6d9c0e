"""Clocks: whole nanoseconds that never go back, and waits that can be stopped."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S, ManualClock, SystemClock, from_s, to_s


@given(st.integers(-(2**53), 2**53))
def test_seconds_and_nanoseconds_round_trip(duration_ns: int) -> None:
    assert from_s(to_s(duration_ns)) == pytest.approx(duration_ns, abs=1)


def test_the_agents_clock_reads_as_utc_and_does_not_go_back() -> None:
    clock = SystemClock()
    assert abs(clock.utc_offset_ns()) < NS_PER_S
    assert clock.uncertainty_ns >= 0
    readings = [clock.now_ns() for _ in range(1000)]
    assert readings == sorted(readings)


def test_a_step_of_utc_moves_the_offset_and_not_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before, utc = clock.now_ns(), time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: utc() - 3600 * NS_PER_S)
    assert clock.now_ns() >= before
    assert clock.utc_offset_ns() == pytest.approx(-3600 * NS_PER_S, abs=NS_PER_S)


def test_a_wait_reaches_its_time() -> None:
    clock, stop = SystemClock(), threading.Event()
    for given_stop in (None, stop):
        until = clock.now_ns() + 2_000_000
        assert clock.wait_until_ns(until, given_stop)
        assert clock.now_ns() >= until
    assert clock.wait_until_ns(0, stop), "what is past needs no wait"


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
def test_a_wait_ends_when_it_is_stopped(clock: SystemClock | ManualClock) -> None:
    stop = threading.Event()
    stop.set()
    before = clock.now_ns()
    assert not clock.wait_until_ns(before + 3600 * NS_PER_S, stop)
    assert clock.now_ns() < before + 3600 * NS_PER_S


def test_a_manual_clock_is_moved_by_hand_and_never_back() -> None:
    clock = ManualClock(5)
    clock.advance_to_ns(3)
    assert clock.now_ns() == 5
    assert clock.wait_until_ns(9)
    assert clock.now_ns() == 9
    assert (clock.replay, clock.utc_offset_ns()) == (True, 0)


def test_two_clocks_of_one_anchor_are_one_clock() -> None:
    """As in the process of an isolated driver, which has the agent's anchor."""
    clock = SystemClock()
    other = SystemClock(clock.anchor)
    assert clock.now_ns() <= other.now_ns() <= clock.now_ns()
    assert other.uncertainty_ns == clock.uncertainty_ns
