"""Turns: fair shares, no starvation, a slot for the short, and an end to waiting."""

from __future__ import annotations

import heapq
import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import ManualClock, SystemClock
from agent.stream.turns import LONG_RATIO, Turns, slots_for
from agent.supervise import ThreadGroup

MS = 1_000_000


class Simulation:
    """Lanes of (ms a turn, ms idle between turns) on `slots`, by hand."""

    def __init__(self, slots: int, lanes: dict[str, tuple[int, int]]) -> None:
        self.clock = ManualClock()
        self.turns = Turns(slots, self.clock)
        self.lanes = lanes
        self.busy_ns = dict.fromkeys(lanes, 0)
        self.longest_wait_ns = dict.fromkeys(lanes, 0)
        self.asked_ns: dict[str, int] = {}
        self.running: set[str] = set()
        self.known: set[str] = set()
        self.seen: list[tuple[set[str], set[str]]] = []  # running, and measured by then

    def run(self, until_ns: int) -> None:
        events = [(0, n, "ask", lane) for n, lane in enumerate(self.lanes)]
        number = len(events)
        while events and events[0][0] <= until_ns:
            now, _, what, lane = heapq.heappop(events)
            self.clock.advance_to_ns(now)
            number += 1
            if what == "ask":
                self.turns.ask(lane)
                self.asked_ns[lane] = now
            else:
                self.turns.done(lane)
                self.running.remove(lane)
                self.known.add(lane)
                self.busy_ns[lane] += self.lanes[lane][0] * MS
                heapq.heappush(events, (now + self.lanes[lane][1] * MS, number, "ask", lane))
            while started := [w for w in list(self.asked_ns) if self.turns.try_start(w)]:
                for each in started:
                    number += 1
                    waited = now - self.asked_ns.pop(each)
                    self.longest_wait_ns[each] = max(self.longest_wait_ns[each], waited)
                    self.running.add(each)
                    end = now + self.lanes[each][0] * MS
                    heapq.heappush(events, (end, number, "done", each))
                self.seen.append((set(self.running), set(self.known)))


lengths = st.sampled_from([1, 5, 20, 100, 400])
several = st.lists(st.tuples(lengths, st.sampled_from([0, 0, 1, 50, 2000])), min_size=1, max_size=6)


def named(lanes: list[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {f"lane{n}": lane for n, lane in enumerate(lanes)}


@settings(max_examples=50)
@given(slots=st.integers(1, 4), lanes=several)
def test_no_lane_is_starved(slots: int, lanes: list[tuple[int, int]]) -> None:
    """Each other lane may go before it twice for what it had itself, and twice for its own."""
    simulation = Simulation(slots, named(lanes))
    simulation.run(3_000 * MS)
    for lane, (own, _) in simulation.lanes.items():
        others = sum(own + each for name, (each, _) in simulation.lanes.items() if name != lane)
        assert simulation.longest_wait_ns[lane] <= 2 * others * MS
        waiting = simulation.asked_ns.get(lane)
        assert waiting is None or simulation.clock.now_ns() - waiting <= 2 * others * MS


@settings(max_examples=50)
@given(slots=st.integers(1, 4), lanes=several)
def test_no_more_run_than_there_are_slots(slots: int, lanes: list[tuple[int, int]]) -> None:
    simulation = Simulation(slots, named(lanes))
    simulation.run(1_000 * MS)
    assert all(len(running) <= slots for running, _ in simulation.seen)


@settings(max_examples=50)
@given(slots=st.integers(2, 4), lanes=several)
def test_long_turns_never_hold_every_slot(slots: int, lanes: list[tuple[int, int]]) -> None:
    """Once it is known which are long, and while a short one is in use."""
    simulation = Simulation(slots, named(lanes) | {"short": (1, 50)})
    simulation.run(2_000 * MS)
    for running, known in simulation.seen:
        if "short" in known:
            long = {n for n in known & running if simulation.lanes[n][0] > LONG_RATIO}
            assert len(long) < slots


@given(length=lengths, lanes=st.integers(2, 6), slots=st.integers(1, 4))
def test_lanes_that_are_alike_get_equal_shares(length: int, lanes: int, slots: int) -> None:
    simulation = Simulation(slots, named([(length, 0)] * lanes))
    simulation.run(50 * length * MS)
    shares = simulation.busy_ns.values()
    assert max(shares) - min(shares) <= 2 * length * MS
    if slots <= lanes:
        assert sum(shares) >= 49 * length * slots * MS, "no slot was left empty"


def test_a_lane_that_was_idle_banks_no_credit() -> None:
    clock = ManualClock()
    turns = Turns(1, clock)

    def take(lane: str, ms: int) -> None:
        assert turns.try_start(lane)
        clock.advance_to_ns(clock.now_ns() + ms * MS)
        turns.done(lane)

    for _ in range(100):
        turns.ask("busy")
        take("busy", 100)
    turns.ask("busy")
    turns.ask("idle")
    take("idle", 100)  # it is first once, ...
    turns.ask("idle")
    assert not turns.try_start("idle")  # ... and not for the ten seconds that the other had
    take("busy", 100)
    take("idle", 100)


def test_a_short_lane_need_not_wait_for_two_long_ones() -> None:
    simulation = Simulation(2, {"image": (900, 0), "audio": (200, 0), "imu": (5, 20)})
    simulation.run(30_000 * MS)
    short = simulation.longest_wait_ns.pop("imu")
    assert short <= 900 * MS, "only before it was known who is short"
    simulation.longest_wait_ns["imu"] = 0
    simulation.run(60_000 * MS)
    assert simulation.longest_wait_ns["imu"] == 0
    assert simulation.busy_ns["audio"] > 0.2 * simulation.busy_ns["image"]


def test_lanes_alike_use_every_slot() -> None:
    simulation = Simulation(2, {"left": (100, 0), "right": (100, 0)})
    simulation.run(10_000 * MS)
    assert simulation.longest_wait_ns == {"left": 0, "right": 0}


def test_waiting_ends_with_the_agent_and_gives_no_turn() -> None:
    turns, stop, got = Turns(1, SystemClock()), threading.Event(), []

    def wait(_: threading.Event) -> None:
        with turns.turn("audio", stop) as mine:
            got.append(mine)

    with turns.turn("image", stop) as mine, ThreadGroup() as group:
        assert mine
        group.start("lane audio", wait)
        while not turns.waiting:
            stop.wait(0.001)
        stop.set()
    assert got == [False]
    assert turns.waiting == 0
    with turns.turn("imu", threading.Event()) as mine:
        assert mine, "nobody holds the slot any more"


def test_threads_take_turns_and_an_error_gives_the_turn_back() -> None:
    turns, stop = Turns(2, SystemClock()), threading.Event()
    inside, most, done = set(), [0], []

    def run(name: str) -> Any:
        def lane(_: threading.Event) -> None:
            for _n in range(50):
                try:
                    with turns.turn(name, stop) as mine:
                        assert mine
                        inside.add(name)
                        most[0] = max(most[0], len(inside))
                        inside.remove(name)
                        raise KeyError(name)
                except KeyError:
                    continue
            done.append(name)

        return lane

    with ThreadGroup(join_timeout_s=60.0) as group:
        for n in range(4):
            group.start(f"lane {n}", run(f"lane{n}"))
        while len(done) < 4 and not group.failed:
            stop.wait(0.001)
    assert sorted(done) == ["lane0", "lane1", "lane2", "lane3"]
    assert 1 <= most[0] <= 2


def test_slots_are_at_least_two() -> None:
    assert slots_for(10_000) == 2
    assert slots_for(1) >= 2
