"""Windows: which are due, each once, whatever the blocks and however often one asks."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from agent.errors import BadData, ConfigError
from agent.stream.ring import Ring
from agent.stream.windows import Windows
from agent.types import Sample, Window, WindowSpec
from tests.fakes.streams import block, stream

MS = 1_000_000
INFO = stream()
NEVER = -(10**30)  # a time so early that nothing is due by the clock

specs = st.builds(
    lambda cut, **lengths: WindowSpec(**lengths, ticks=cut[0], spread=cut[1]),
    length_s=st.sampled_from([0.05, 0.1, 0.25, 1.0]),
    hop_s=st.sampled_from([0.02, 0.1, 0.3, 1.0]),
    cut=st.sampled_from([(None, False), (None, False), (1, False), (3, False), (2, True)]),
)
# Steps in ms: steady, duplicates, bursts, and gaps longer than any window here.
steps = st.one_of(st.integers(1, 40), st.just(0), st.just(10), st.sampled_from([900, 5000]))
stamps = st.tuples(st.integers(0, 10**6), st.lists(steps, min_size=1, max_size=120)).map(
    lambda drawn: ((drawn[0] + np.cumsum(drawn[1])) * MS).tolist()
)


def expected_windows(
    t_ns: list[int], spec: WindowSpec, until_ns: int, min_ticks: int = 1
) -> list[tuple[int, list[int]]]:
    """(end, stamps) of every window of the grid that ends by `until_ns` and holds enough."""
    length, hop = round(spec.length_s * NS_PER_S), round(spec.hop_s * NS_PER_S)
    first = t_ns[0] + (length if spec.whole else 1)
    out = []
    for end in range(-(-first // hop) * hop, until_ns + 1, hop):
        inside = [t for t in t_ns if end - length <= t < end]
        if spec.spread:
            inside = [inside[0], inside[-1]] if len(inside) > 1 else inside
        elif spec.ticks is not None:
            inside = inside[-spec.ticks :]
        if inside and len(inside) >= min_ticks:
            out.append((end, inside))
    return out


def told(windows: list[Window]) -> list[tuple[int, list[int]]]:
    return [(w.end_ns, w.t_ns.tolist()) for w in windows]


@given(t_ns=stamps, spec=specs, data=st.data())
def test_the_cut_depends_on_stamps_alone(t_ns: list[int], spec: WindowSpec, data: Any) -> None:
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    ring = Ring(INFO, len(t_ns))
    windows = Windows(ring, spec)
    given_windows: list[Window] = []
    number = 0
    while number < len(t_ns):
        count = rng.randint(1, 20)
        ring.push(block(INFO, number, t_ns[number : number + count]))
        number += count
        for _ in range(rng.choice((0, 0, 1, 2))):
            given_windows += windows.take(NEVER)
            assert all(w.end_ns <= t_ns[min(number, len(t_ns)) - 1] for w in given_windows)
    given_windows += windows.take(NEVER)
    assert told(given_windows) == expected_windows(t_ns, spec, t_ns[-1])
    assert windows.counts.taken == len(given_windows)
    assert windows.counts.overruns == windows.counts.skipped == windows.counts.short == 0
    for window in given_windows:
        assert window.end_ns - window.start_ns == round(spec.length_s * NS_PER_S)
        assert (window.data[:, 1] == window.t_ns).all()


@given(t_ns=stamps, spec=specs, data=st.data())
def test_ticks_that_are_late_by_less_than_the_lateness_are_in(
    t_ns: list[int], spec: WindowSpec, data: Any
) -> None:
    """Windows fall due by the clock too, at any moment between two arrivals."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    lateness_ns = 50 * MS
    arrivals = [t + rng.randrange(lateness_ns) for t in t_ns]
    arrivals = [max(arrivals[: n + 1]) for n in range(len(arrivals))]  # one line, in order
    # A tick that waits behind another may be later than that: leave those out.
    kept = [n for n in range(len(t_ns)) if arrivals[n] - t_ns[n] < lateness_ns]
    t_ns, arrivals = [t_ns[n] for n in kept], [arrivals[n] for n in kept]
    ring = Ring(INFO, len(t_ns))
    windows = Windows(ring, spec, lateness_s=lateness_ns / NS_PER_S)
    given_windows: list[Window] = []
    for number, (t, arrival) in enumerate(zip(t_ns, arrivals, strict=True)):
        ring.push(block(INFO, number, [t], arrival_ns=arrival))
        following = arrivals[number + 1] if number + 1 < len(arrivals) else arrival
        for now in sorted(rng.randint(arrival, following) for _ in range(rng.randrange(3))):
            taken = windows.take(now)
            assert all(w.end_ns <= t or w.end_ns + lateness_ns <= now for w in taken)
            given_windows += taken
    given_windows += windows.take(10**18)
    everything = t_ns[-1] + round((spec.length_s + spec.hop_s) * NS_PER_S)
    assert told(given_windows) == expected_windows(t_ns, spec, everything)


def test_a_window_is_due_at_a_tick_at_its_end_and_not_before() -> None:
    ring = Ring(INFO, 100)
    windows = Windows(ring, WindowSpec(0.1, 0.1))
    ring.push(block(INFO, 0, [n * 10 * MS for n in range(10)] + [100 * MS - 1]))
    assert windows.take(NEVER) == []
    ring.push(block(INFO, 11, [100 * MS]))
    (window,) = windows.take(NEVER)
    assert (window.start_ns, window.end_ns, len(window.t_ns)) == (0, 100 * MS, 11)
    assert windows.take(NEVER) == []


def test_silence_makes_a_window_due_by_the_clock() -> None:
    ring = Ring(INFO, 100)
    windows = Windows(ring, WindowSpec(0.1, 0.1), lateness_s=0.03)
    ring.push(block(INFO, 0, [n * 10 * MS for n in range(13)]))
    assert len(windows.take(0)) == 1
    assert windows.take(230 * MS - 1) == []
    (last,) = windows.take(230 * MS)
    assert last.t_ns.tolist() == [100 * MS, 110 * MS, 120 * MS]
    assert windows.take(10**18) == [], "a window with no tick is nobody's"
    ring.push(block(INFO, 13, [900 * MS]))
    assert windows.take(1030 * MS - 1) == []
    assert told(windows.take(1030 * MS)) == [(1000 * MS, [900 * MS])]


def test_short_windows_are_counted_and_not_given() -> None:
    info = stream(rate_hz=100.0)
    ring = Ring(info, 1000)
    windows = Windows(ring, WindowSpec(0.1, 0.1), min_coverage=0.75)
    t_ns = [n * 10 * MS for n in range(100) if not 40 <= n < 43 and not 70 <= n < 77]
    ring.push(block(info, 0, t_ns))
    assert told(windows.take(NEVER)) == expected_windows(t_ns, WindowSpec(0.1, 0.1), t_ns[-1], 7)
    assert windows.counts.taken == 8
    assert windows.counts.short == 1, "three of ten missing is in, seven of ten is not"


class CountingRing(Ring):
    """How often it was asked for anything."""

    asked = 0

    def first_t_ns_from(self, t_ns: int) -> int | None:
        self.asked += 1
        return super().first_t_ns_from(t_ns)

    def window(
        self, start_ns: int, end_ns: int, ticks: int | None = None, spread: bool = False
    ) -> Window:
        self.asked += 1
        return super().window(start_ns, end_ns, ticks, spread)


@pytest.mark.parametrize("ticks", [None, 1])
@pytest.mark.parametrize("at_once", [False, True])
def test_an_hour_of_silence_costs_nothing(ticks: int | None, at_once: bool) -> None:
    spec = WindowSpec(0.1, 0.01, ticks)
    ring = CountingRing(INFO, 100)
    windows = Windows(ring, spec, max_backlog=50)
    hour = 3600 * NS_PER_S
    t_ns = [n * 10 * MS for n in range(15)] + [hour + n * 10 * MS for n in range(15)]
    ring.push(block(INFO, 0, t_ns[:15]))
    taken = [] if at_once else windows.take(NEVER) + windows.take(hour)
    ring.push(block(INFO, 15, t_ns[15:]))
    taken += windows.take(NEVER)
    assert told(taken) == expected_windows(t_ns[:15], spec, 10**9) + [
        (end, inside)
        for end, inside in expected_windows(t_ns[15:], WindowSpec(0.01, 0.01, ticks), t_ns[-1])
        for inside in [[t for t in t_ns[15:] if end - 100 * MS <= t < end][-(ticks or 99) :]]
    ]
    assert windows.counts.skipped == 0, "nothing was waiting in the gap"
    assert ring.asked < 100


@pytest.mark.parametrize("ticks", [None, 1])
def test_ticks_overwritten_for_an_hour_are_counted_at_once(ticks: int | None) -> None:
    ring = CountingRing(INFO, 100)
    windows = Windows(ring, WindowSpec(0.1, 0.1, ticks))
    ring.push(block(INFO, 0, [n * 10 * MS for n in range(21)]))
    assert len(windows.take(NEVER)) == 2
    ring.asked = 0
    ring.push(block(INFO, 21, [n * 10 * MS for n in range(21, 360_001)]))
    taken = windows.take(NEVER)
    assert [w.end_ns for w in taken] == [3599 * NS_PER_S + n * 100 * MS for n in range(1, 11)][
        1 if ticks is None else 0 :
    ]
    assert len(taken) + windows.counts.overruns + 2 == 36_000
    assert ring.asked < 50


@given(t_ns=stamps, spec=specs, capacity=st.integers(1, 60), data=st.data())
def test_what_a_slow_reader_is_given_is_right_and_the_rest_is_counted(
    t_ns: list[int], spec: WindowSpec, capacity: int, data: Any
) -> None:
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    ring = Ring(INFO, capacity)
    windows = Windows(ring, spec)
    ring.push(block(INFO, 0, t_ns[:1]))
    given_windows = windows.take(NEVER)
    number = 1
    while number < len(t_ns):
        count = rng.randint(1, 30)
        ring.push(block(INFO, number, t_ns[number : number + count]))
        number += count
        given_windows += windows.take(NEVER) if rng.random() < 0.5 else []
    given_windows += windows.take(NEVER)
    wanted = expected_windows(t_ns, spec, t_ns[-1])
    assert [w for w in wanted if w in told(given_windows)] == told(given_windows)
    # A window counts as overrun also where nobody can say any more that nothing was in it.
    assert len(wanted) <= len(given_windows) + windows.counts.overruns


def test_a_backlog_skips_the_oldest_and_counts_them() -> None:
    t_ns = [n * 10 * MS for n in range(1001)]
    ring = Ring(INFO, len(t_ns))
    windows = Windows(ring, WindowSpec(0.1, 0.1), max_backlog=4)
    ring.push(block(INFO, 0, t_ns))
    taken = windows.take(NEVER)
    assert [w.end_ns for w in taken] == [n * 100 * MS for n in (97, 98, 99, 100)]
    assert (windows.counts.taken, windows.counts.skipped) == (4, 96)
    assert windows.take(NEVER) == []


@given(data=st.data(), offset=st.integers(0, 3 * NS_PER_S))
def test_streams_of_different_rates_share_one_grid(data: Any, offset: int) -> None:
    spec = WindowSpec(0.5, 0.25)
    ends = []
    for rate_hz in (3, 30, 1000):
        info = stream(rate_hz=float(rate_hz))
        t_ns = [offset + n * NS_PER_S // rate_hz for n in range(5 * rate_hz)]
        ring = Ring(info, len(t_ns))
        ring.push(block(info, 0, t_ns))
        windows = Windows(ring, spec, min_coverage=0.5)
        ends.append({w.end_ns for w in windows.take(t_ns[-1] + NS_PER_S)})
    assert ends[0] & ends[1] & ends[2]
    assert all(end % (250 * MS) == 0 for some in ends for end in some)


@given(
    rate_hz=st.floats(1.0, 2000.0),
    spec=specs,
    lead_s=st.floats(0.0, 1.0),
)
def test_the_advised_capacity_is_enough(rate_hz: float, spec: WindowSpec, lead_s: float) -> None:
    """A reader that asks once a hop, and is up to the slack late, loses nothing."""
    capacity = Windows.capacity(spec, rate_hz, slack_s=lead_s)
    info = stream(rate_hz=rate_hz)
    ring = Ring(info, capacity)
    windows = Windows(ring, spec, min_coverage=0.0)
    count = int(rate_hz * (3 * spec.length_s + 6 * spec.hop_s + 2 * lead_s)) + 2
    count = min(count, 3000)
    t_ns = [round(n * NS_PER_S / rate_hz) for n in range(count)]
    late_ns = round((lead_s + spec.hop_s) * NS_PER_S)
    taken_at = 0
    for number, t in enumerate(t_ns):
        if t - taken_at >= late_ns:
            windows.take(NEVER)
            taken_at = t_ns[number - 1]
        ring.push(block(info, number, [t]))
    assert windows.counts.overruns == 0


def test_spread_needs_two_ticks() -> None:
    with pytest.raises(ConfigError, match="window: ticks is 1, expected at least 2 with spread"):
        WindowSpec(1.0, 0.5, 1, spread=True)


def test_a_block_with_a_nan_is_never_born() -> None:
    info = stream(dtype="float32", shape=())
    t_ns = np.array([0, 1], np.int64)
    with pytest.raises(BadData, match="stream mic: block has values that are not finite"):
        Sample(info, 0, t_ns, 1, np.array([0.0, np.nan], np.float32))
