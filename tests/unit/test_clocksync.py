"""ClockSync: offsets and drifts that are known, with delays that are never negative."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from agent.stream.clocksync import ClockEstimate, ClockSync

MS = 1_000_000
HOST_NS = 1_700_000_000 * NS_PER_S


def feed(
    sync: ClockSync,
    rng: np.random.Generator,
    *,
    seconds: float,
    device_start_ns: int,
    host_start_ns: int,
    drift_ppm: float = 0.0,
    rate_hz: float = 50.0,
    floor_ms: float = 2.0,
    jitter_ms: float = 3.0,
) -> tuple[int, int]:
    """Blocks of a device whose true host time is host_start + (1 + drift) * elapsed.

    Returns the last (device stamp, true host time).
    """
    device = host = 0
    for n in range(round(seconds * rate_hz)):
        elapsed = round(n * NS_PER_S / rate_hz)
        device = device_start_ns + elapsed
        host = host_start_ns + elapsed + round(elapsed * drift_ppm * 1e-6)
        delay = (floor_ms + rng.exponential(jitter_ms)) * MS
        sync.observe(device, host + round(delay))
    return device, host


def host_error_ns(sync: ClockSync, device_ns: int, host_ns: int) -> int:
    mapped = sync.to_host(np.array([device_ns]), host_ns + 10**12)
    return int(mapped[0]) - host_ns


def estimate(sync: ClockSync) -> ClockEstimate:
    assert sync.estimate is not None
    return sync.estimate


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("drift_ppm", [-100.0, 0.0, 37.0, 100.0])
def test_offset_and_drift_are_recovered(drift_ppm: float, seed: int) -> None:
    sync = ClockSync()
    device, host = feed(
        sync,
        np.random.default_rng(seed),
        seconds=60,
        device_start_ns=5 * NS_PER_S,
        host_start_ns=HOST_NS,
        drift_ppm=drift_ppm,
    )
    assert estimate(sync).drift * 1e6 == pytest.approx(drift_ppm, abs=5.0)
    # The constant part of the delay cannot be told from the offset.
    assert host_error_ns(sync, device, host) == pytest.approx(2 * MS, abs=0.5 * MS)
    assert estimate(sync).uncertainty_ns < 1 * MS
    assert sync.steps == 0


def test_before_ten_seconds_there_is_an_offset_and_no_drift() -> None:
    sync = ClockSync()
    assert sync.estimate is None
    rng = np.random.default_rng(1)
    device, host = feed(sync, rng, seconds=5, device_start_ns=0, host_start_ns=HOST_NS)
    assert estimate(sync).drift == 0.0
    assert host_error_ns(sync, device, host) == pytest.approx(2 * MS, abs=1 * MS)


def test_the_first_block_is_mapped_to_its_arrival() -> None:
    sync = ClockSync()
    stamps = np.array([100, 200, 300])
    assert sync.to_host(stamps, 5000).tolist() == [4800, 4900, 5000]
    sync.observe(300, 5000)
    assert sync.to_host(stamps, 5000).tolist() == [4800, 4900, 5000]


@given(
    delays=st.lists(st.integers(0, 400 * MS), min_size=2, max_size=80),
    spacing_ms=st.integers(10, 2000),
    offset=st.integers(-(10**18), 10**18),
)
def test_the_line_is_below_every_delay_and_touches_one(
    delays: list[int], spacing_ms: int, offset: int
) -> None:
    """So no tick that set the line is mapped to after it arrived."""
    sync = ClockSync(span_s=1000.0)
    pairs = [(n * spacing_ms * MS, n * spacing_ms * MS + offset + d) for n, d in enumerate(delays)]
    for device, arrival in pairs:
        sync.observe(device, arrival)
    late = [
        arrival - int(sync.to_host(np.array([device]), 2 * 10**18)[0]) for device, arrival in pairs
    ]
    assert sync.steps == 0
    assert min(late) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("step_s", [-3600.0, -0.7, 0.7, 3600.0])
def test_a_clock_that_is_set_is_noticed_at_once(step_s: float) -> None:
    """Forward and back; nothing learned of the old setting is kept."""
    sync, rng = ClockSync(), np.random.default_rng(3)
    device, host = feed(
        sync, rng, seconds=30, device_start_ns=10**13, host_start_ns=HOST_NS, drift_ppm=20
    )
    step = round(step_s * NS_PER_S)
    device, host = feed(
        sync,
        rng,
        seconds=1,
        device_start_ns=device + 20 * MS + step,
        host_start_ns=host + 20 * MS,
    )
    assert sync.steps == 1
    assert host_error_ns(sync, device, host) == pytest.approx(2 * MS, abs=3 * MS)


def test_a_long_delay_is_not_a_step() -> None:
    sync, rng = ClockSync(), np.random.default_rng(4)
    device, host = feed(sync, rng, seconds=30, device_start_ns=0, host_start_ns=HOST_NS)
    before = host_error_ns(sync, device, host)
    sync.observe(device + 20 * MS, host + 20 * MS + 3 * NS_PER_S)
    assert sync.steps == 0
    assert host_error_ns(sync, device, host) == pytest.approx(before, abs=0.2 * MS)


def test_blocks_out_of_order_are_no_step_and_do_no_harm() -> None:
    sync, rng = ClockSync(), np.random.default_rng(5)
    for n in range(3000):
        device = n * 20 * MS - (30 * MS if n % 5 == 0 else 0)
        sync.observe(device, HOST_NS + device + round(rng.exponential(1) * MS))
    assert sync.steps == 0
    assert estimate(sync).drift * 1e6 == pytest.approx(0, abs=5)
    assert host_error_ns(sync, 60 * NS_PER_S, HOST_NS + 60 * NS_PER_S) == pytest.approx(
        0, abs=0.5 * MS
    )


def test_a_clock_set_by_less_than_a_step_is_followed_from_below() -> None:
    """A forward set of 0.3 s looks like less delay: the line goes down to it at once."""
    sync, rng = ClockSync(), np.random.default_rng(6)
    device, host = feed(sync, rng, seconds=60, device_start_ns=0, host_start_ns=HOST_NS)
    start = device + 20 * MS + 300 * MS
    device, host = feed(sync, rng, seconds=1, device_start_ns=start, host_start_ns=host + 20 * MS)
    assert host_error_ns(sync, device, host) == pytest.approx(2 * MS, abs=5 * MS)


def test_only_the_last_span_counts() -> None:
    """A device that was fast for ten minutes and is right now: the mapping is of now."""
    sync, rng = ClockSync(span_s=60.0), np.random.default_rng(7)
    device, host = feed(
        sync, rng, seconds=200, device_start_ns=0, host_start_ns=HOST_NS, drift_ppm=50, rate_hz=20
    )
    device, host = feed(
        sync, rng, seconds=90, device_start_ns=device, host_start_ns=host, drift_ppm=-10, rate_hz=20
    )
    assert estimate(sync).drift * 1e6 == pytest.approx(-10, abs=5)


def test_a_reset_forgets_everything() -> None:
    sync, rng = ClockSync(), np.random.default_rng(8)
    feed(sync, rng, seconds=20, device_start_ns=10**15, host_start_ns=HOST_NS, drift_ppm=90)
    sync.reset()
    assert sync.estimate is None
    device, host = feed(sync, rng, seconds=3, device_start_ns=0, host_start_ns=HOST_NS)
    assert sync.steps == 0, "what a reconnect resets is not a step"
    assert host_error_ns(sync, device, host) == pytest.approx(2 * MS, abs=2 * MS)


def test_no_tick_is_mapped_to_after_its_arrival() -> None:
    sync = ClockSync()
    sync.observe(0, HOST_NS + 50 * MS)
    stamps = np.array([100 * MS, 110 * MS])
    assert sync.to_host(stamps, HOST_NS + 120 * MS).tolist() == [HOST_NS + 120 * MS] * 2
