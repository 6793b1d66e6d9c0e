"""Budget: a tower has no more of the time than it may, on the grid, without flapping."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import NS_PER_S, ManualClock
from agent.config import TowerConfig
from agent.stream.budget import GRACE_NS, Budget
from agent.stream.lane import Lane
from agent.stream.ring import Ring
from agent.stream.windows import Windows
from agent.types import Embedding, Window, WindowSpec
from tests.fakes.streams import block, stream

MS = 1_000_000
HOP = 500 * MS


class Costly:
    """Takes as long as it is told, on the clock, for each window."""

    modality, space, window = "audio", "fake@1", WindowSpec(1.0, HOP / NS_PER_S)

    def __init__(self, clock: ManualClock, costs_ms: Sequence[int]) -> None:
        self.clock, self.costs_ms = clock, costs_ms
        self.runs: list[tuple[int, int]] = []

    def load(self) -> None: ...

    def close(self) -> None: ...

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        started = self.clock.now_ns()
        cost_ms = self.costs_ms[len(self.runs) % len(self.costs_ms)]
        self.clock.advance_to_ns(started + len(windows) * cost_ms * MS)
        self.runs.append((started, self.clock.now_ns()))
        vector = np.array([1.0, 0.0], np.float32)
        return [
            Embedding(self.space, vector, "audio", w.stream.name, w.start_ns, w.end_ns)
            for w in windows
        ]


def live(
    costs_ms: Sequence[int], config: TowerConfig, streams: int, seconds: int
) -> tuple[Lane, list[tuple[int, int]], list[int]]:
    """A lane on streams of 20 Hz for so long: it, its runs, and the ends of the first stream's
    windows.
    """
    clock = ManualClock()
    encoder = Costly(clock, costs_ms)
    lane = Lane(encoder, clock, config)
    for n in range(streams):
        info = stream(f"mic{n}")
        lane.add(Windows(Ring(info, 100), lane.spec, max_backlog=1))
    ends: list[int] = []
    while clock.now_ns() < seconds * NS_PER_S:
        for windows in lane.windows:
            ring = windows.ring
            ticks = clock.now_ns() // (50 * MS) + 1
            if ticks > ring.head:
                stamps = [n * 50 * MS for n in range(ring.head, ticks)]
                ring.push(block(ring.stream, ring.head, stamps))
        if lane.due(clock.now_ns()):
            told = lane.step(clock.now_ns())
            ends += [e.end_ns for e in told if e.stream == "mic0"]
        else:
            clock.advance_to_ns(clock.now_ns() + 50 * MS)
    return lane, encoder.runs, ends


def busy_within(runs: list[tuple[int, int]], start_ns: int, end_ns: int) -> int:
    return sum(max(0, min(e, end_ns) - max(s, start_ns)) for s, e in runs)


costs = st.lists(st.sampled_from([0, 5, 50, 300, 1700]), min_size=1, max_size=8)


@settings(max_examples=40)
@given(costs_ms=costs, max_duty=st.floats(0.02, 1.0), streams=st.integers(1, 3))
def test_over_any_minute_the_duty_is_the_budget_and_one_run_at_most(
    costs_ms: list[int], max_duty: float, streams: int
) -> None:
    _, runs, ends = live(costs_ms, TowerConfig(max_duty=max_duty), streams, 150)
    longest = max(e - s for s, e in runs)
    minute = 60 * NS_PER_S
    for start in [s for s, _ in runs] + [max(0, e - minute) for _, e in runs]:
        busy = busy_within(runs, start, start + minute)
        assert busy <= max_duty * (minute + GRACE_NS) + longest
    assert all(end % HOP == 0 for end in ends), "the grid stays"
    assert all(b > a for a, b in pairwise(ends))


@settings(max_examples=40)
@given(cost_ms=st.integers(1, 2000), max_duty=st.floats(0.02, 1.0), streams=st.integers(1, 3))
def test_a_steady_cost_stretches_the_hop_and_drops_nothing(
    cost_ms: int, max_duty: float, streams: int
) -> None:
    lane, runs, ends = live([cost_ms], TowerConfig(max_duty=max_duty), streams, 150)
    factor = lane.budget.factor
    needed = streams * cost_ms * MS / (max_duty * HOP)
    assert needed <= factor <= 1.25 * needed + 1
    assert lane.budget.reason == ("max_duty" if factor > 1 else "")
    assert {b - a for a, b in pairwise(ends[3:])} <= {factor * HOP}, "evenly, on the stretched hop"
    assert sum(windows.counts.skipped for windows in lane.windows) <= 3 * streams, "at first"
    window = ends[-1] - ends[0]
    assert busy_within(runs, ends[0], ends[-1]) <= 1.02 * max_duty * window + runs[0][1]


def test_it_does_not_flap_where_the_cost_jitters_around_a_border() -> None:
    rng = np.random.default_rng(1)
    budget = Budget(HOP, max_duty=0.1)
    factors = []
    for n in range(1000):
        cost = int(100 * MS * (1 + 0.2 * rng.uniform(-1, 1)))  # two hops' worth, about
        budget.spent(n * NS_PER_S, n * NS_PER_S + cost, 1, 1)
        factors.append(budget.factor)
    assert sum(a != b for a, b in pairwise(factors)) <= 1
    assert factors[-1] == 3


def test_it_comes_down_again_when_windows_are_cheap_again() -> None:
    budget = Budget(HOP, max_duty=0.1)
    for n in range(20):
        budget.spent(n * NS_PER_S, n * NS_PER_S + 400 * MS, 1, 1)
    assert budget.factor == 8
    for n in range(20, 60):
        budget.spent(n * NS_PER_S, n * NS_PER_S + 10 * MS, 1, 1)
    assert (budget.factor, budget.reason) == (1, "")


@pytest.mark.parametrize(
    ("max_hz", "hop_ns", "factor"),
    [
        (2.0, HOP, 1),
        (1.99, HOP, 2),
        (1.0, HOP, 2),
        (0.3, HOP, 7),
        (100.0, HOP, 1),
        (3.0, 333_333_333, 1),
    ],
)
def test_max_hz_holds_at_once(max_hz: float, hop_ns: int, factor: int) -> None:
    budget = Budget(hop_ns, max_hz)
    assert (budget.factor, budget.reason) == (factor, "max_hz" if factor > 1 else "")


@settings(max_examples=40)
@given(max_hz=st.floats(0.1, 4.0), late=st.integers(1, 30))
def test_max_hz_holds_in_a_replay_too_and_max_duty_does_not(max_hz: float, late: int) -> None:
    """No window is lost to a lane that is late, and the cut does not depend on how late."""
    cuts = []
    for every in (1, late):
        lane = Lane(Costly(ManualClock(), [0]), ManualClock(), TowerConfig(max_hz=max_hz))
        ring = Ring(stream("mic"), 1000)
        lane.add(Windows(ring, lane.spec))
        ends = []
        for n in range(900):
            ring.push(block(ring.stream, n, [n * 50 * MS]))
            if n % every == 0 or n == 899:
                ends += [e.end_ns for e in lane.step(n * 50 * MS)]
        cuts.append(ends)
    assert cuts[0] == cuts[1]
    steps = {b - a for a, b in pairwise(cuts[0])}
    assert len(steps) == 1
    assert min(steps) >= NS_PER_S / max_hz * (1 - 1e-6)
    assert lane.windows[0].counts.skipped == 0, "what lies between is not skipped"


def test_the_duty_is_of_the_last_minute() -> None:
    budget = Budget(HOP)
    assert budget.duty(0) == 0.0
    budget.spent(0, 6 * NS_PER_S, 1, 1)
    assert budget.duty(12 * NS_PER_S) == 0.5
    assert budget.duty(60 * NS_PER_S) == 0.1
    assert budget.duty(63 * NS_PER_S) == 0.05
    assert budget.duty(70 * NS_PER_S) == 0.0
    budget.spent(70 * NS_PER_S, 73 * NS_PER_S, 1, 1)
    assert budget.duty(100 * NS_PER_S) == 0.05
