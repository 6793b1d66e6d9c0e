"""Ring: against a list, in the middle of a push, and under threads."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Overrun
from agent.stream.ring import Ring
from agent.supervise import ThreadGroup
from agent.types import Sample
from tests.fakes.streams import block, stream

INFO = stream()

# Steps from tick to tick: equal stamps, jitter, and gaps longer than any ring here.
steps = st.one_of(st.integers(0, 4), st.just(0), st.just(500))
blocks = st.lists(
    st.tuples(st.lists(steps, min_size=1, max_size=25), st.integers(0, 3)), min_size=1, max_size=20
)
asks = st.tuples(
    st.integers(-30, 30),
    st.integers(0, 60),
    st.none() | st.integers(1, 8).map(lambda n: (n, False)) | st.just((2, True)),
)
Ask = tuple[int, int, tuple[int, bool] | None]


class Model:
    """Every tick there ever was: (stamp, lost just before it)."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.ticks: list[tuple[int, int]] = []

    def block(self, deltas: list[int], lost: int) -> Sample:
        t = self.ticks[-1][0] if self.ticks else 0
        stamps = [t := t + delta for delta in deltas]
        made = block(INFO, len(self.ticks), stamps, lost=lost, arrival_ns=stamps[-1] + 7)
        self.ticks += [(t, 0 if n else lost) for n, t in enumerate(stamps)]
        return made

    def expected(
        self, start: int, end: int, ticks: int | None, spread: bool, whole: int, claimed: int
    ) -> list[int] | None:
        """Numbers of the ticks of a window while ticks up to `whole` of `claimed` are written.

        None where the ring must raise Overrun.
        """
        tail = max(0, claimed - self.capacity)
        held = [n for n in range(tail, whole) if start <= self.ticks[n][0] < end]
        if ticks is not None and not spread and len(held) >= ticks:
            return held[-ticks:]
        if any(t >= start for t, _ in self.ticks[:tail]):
            return None
        return held

    def check(self, ring: Ring, ask: Ask, whole: int, claimed: int) -> None:
        offset, length, (ticks, spread) = ask[0], ask[1], ask[2] or (None, False)
        start = self.ticks[max(0, whole - 1)][0] + offset
        end = start + length
        expected = self.expected(start, end, ticks, spread, whole, claimed)
        if expected is None:
            with pytest.raises(Overrun, match="stream mic"):
                ring.window(start, end, ticks, spread)
            return
        window = ring.window(start, end, ticks, spread)
        lost = sum(self.ticks[n][1] for n in expected[1:])
        if spread and len(expected) > 2:
            expected = [expected[0], expected[-1]]
        assert window.data[:, 0].tolist() == expected
        assert window.t_ns.tolist() == [self.ticks[n][0] for n in expected]
        assert window.data[:, 1].tolist() == window.t_ns.tolist()
        assert window.lost == lost
        assert (window.arrival_ns != 0) == bool(expected)
        assert not window.data.flags.writeable


@given(capacity=st.integers(1, 40), pushes=blocks, questions=st.lists(asks, max_size=6))
def test_a_window_is_right_or_an_overrun(
    capacity: int, pushes: list[tuple[list[int], int]], questions: list[Any]
) -> None:
    ring, model = Ring(INFO, capacity), Model(capacity)
    for deltas, lost in pushes:
        ring.push(model.block(deltas, lost))
        count = len(model.ticks)
        assert ring.head == count
        assert ring.newest_t_ns == model.ticks[-1][0]
        held = model.ticks[max(0, count - capacity) :]
        assert ring.oldest_t_ns == held[0][0]
        gone = model.ticks[: -len(held)]
        assert ring.gone_t_ns == (gone[-1][0] if gone else None)
        for question in questions:
            model.check(ring, question, count, count)
            t = model.ticks[-1][0] + question[0]
            assert ring.first_t_ns_from(t) == next((s for s, _ in held if s >= t), None)


class Interrupted(np.ndarray[Any, Any]):
    """An array that calls `hook` between the parts of a write."""

    hook: Callable[[], None] | None = None

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        hook, self.hook = self.hook, None
        if hook is not None:
            hook()
        self.hook = hook


@given(capacity=st.integers(1, 40), pushes=blocks, questions=st.lists(asks, min_size=1, max_size=4))
def test_a_read_in_the_middle_of_a_push_is_right_or_an_overrun(
    capacity: int, pushes: list[tuple[list[int], int]], questions: list[Any]
) -> None:
    ring, model = Ring(INFO, capacity), Model(capacity)
    data = ring._data.view(Interrupted)
    t_ns = ring._t_ns.view(Interrupted)
    ring._data, ring._t_ns = data, t_ns
    for deltas, lost in pushes:
        whole = len(model.ticks)
        sample = model.block(deltas, lost)
        claimed = len(model.ticks)

        def read(whole: int = whole, claimed: int = claimed) -> None:
            for question in questions:
                model.check(ring, question, whole, claimed)
            if whole:
                assert ring.newest_t_ns == model.ticks[whole - 1][0]

        data.hook = t_ns.hook = read
        ring.push(sample)
        data.hook = t_ns.hook = None


def test_a_reader_need_not_wait_for_a_long_push() -> None:
    """Ticks outside the slots being written are there throughout, however often one looks."""
    ring = Ring(INFO, 8)
    ring.push(block(INFO, 0, range(0, 80, 10)))
    ring._data = spy = ring._data.view(Interrupted)
    seen: list[list[int]] = []

    def read() -> None:
        seen.extend(ring.window(30, 80).t_ns.tolist() for _ in range(100))

    spy.hook = read
    ring.push(block(INFO, 8, [80]))
    assert len(seen) == 200  # both parts of the write of a ring
    assert all(t_ns == [30, 40, 50, 60, 70] for t_ns in seen)


@given(held=st.integers(1, 60), ticks=st.integers(2, 9), shift=st.integers(0, 50))
def test_spread_ticks_are_even_over_the_span(held: int, ticks: int, shift: int) -> None:
    ring = Ring(INFO, 60)
    ring.push(block(INFO, 0, range(0, 10 * (shift + held), 10)))
    window = ring.window(10 * shift, 10 * (shift + held), ticks, spread=True)
    numbers = window.data[:, 0]
    assert window.t_ns.tolist() == (numbers * 10).tolist()
    assert (numbers[0], numbers[-1]) == (shift, shift + held - 1)
    assert len(numbers) == min(held, ticks)
    steps = np.diff(numbers)
    assert not len(steps) or steps.max() - steps.min() <= 1


def test_an_empty_ring_has_nothing() -> None:
    ring = Ring(INFO, 3)
    assert ring.newest_t_ns is ring.oldest_t_ns is ring.gone_t_ns is None
    assert ring.first_t_ns_from(0) is None
    assert len(ring.window(0, 100).t_ns) == 0


def test_a_ring_needs_room() -> None:
    with pytest.raises(ValueError, match="capacity 0 must be at least 1"):
        Ring(INFO, 0)


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


WIDE = stream(shape=(64,))  # wide enough that NumPy lets go of the GIL while it copies
PERIOD_NS = 10


@pytest.mark.usefixtures("_eager_threads")
@pytest.mark.parametrize("capacity", [7, 300])
def test_slow_readers_beside_a_fast_writer_never_see_newer_or_torn_ticks(capacity: int) -> None:
    ring = Ring(WIDE, capacity)
    done = threading.Event()
    outcomes = {"read": 0, "overrun": 0}

    def write(stop: threading.Event) -> None:
        rng, number = random.Random(1), 0
        for _ in range(6000):
            count = rng.choice((1, 1, 2, 16, 40, capacity + 3))
            ticks = np.arange(number, number + count)
            rows = np.repeat(ticks[:, None], 64, axis=1)
            ring.push(Sample(WIDE, number, ticks * PERIOD_NS, 1, rows))
            number += count
        done.set()

    def read(seed: int) -> Callable[[threading.Event], None]:
        def run(stop: threading.Event) -> None:
            rng = random.Random(seed)
            while not (done.is_set() or stop.is_set()):
                newest = ring.newest_t_ns
                if newest is None:
                    continue
                end = newest - rng.randrange(0, capacity * PERIOD_NS)
                start = max(0, end - rng.randrange(1, capacity * PERIOD_NS))
                ticks = rng.choice((None, None, 1, 3))
                try:
                    window = ring.window(start, end, ticks)
                except Overrun:
                    outcomes["overrun"] += 1
                    gone = ring.gone_t_ns
                    assert gone is not None
                    assert gone >= start
                    continue
                outcomes["read"] += 1
                expected = np.arange(-(-start // PERIOD_NS), -(-end // PERIOD_NS))
                expected = expected if ticks is None else expected[-ticks:]
                assert window.t_ns.tolist() == (expected * PERIOD_NS).tolist()
                assert (window.data == expected[:, None]).all()

        return run

    with ThreadGroup(join_timeout_s=60.0) as group:
        group.start("writer", write)
        group.start("reader 1", read(2))
        group.start("reader 2", read(3))
        while not (done.wait(0.01) or group.failed):
            pass
    assert outcomes["read"] > 0
