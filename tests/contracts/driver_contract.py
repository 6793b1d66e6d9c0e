"""What every driver owes the agent, as tests. A driver's test file subclasses DriverContract:

    class TestMyDriver(DriverContract):  # of a device: LiveDriverContract
        @pytest.fixture
        def make_driver(self, clock, tmp_path):
            return lambda: PLUGIN("mine", MyConfig(...), clock)

Each test builds its drivers through `make_driver`, so the source behind it must be there again
for each. docs/adding-a-driver.md says in words what is checked here.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import psutil
import pytest

from agent.clock import Clock, ManualClock, SystemClock, from_s
from agent.contracts import Driver
from agent.errors import (
    BadData,
    ConfigError,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    EndOfStream,
    ReadTimeout,
)
from agent.types import Sample, StreamInfo

START_NS = 1_700_000_000_000_000_000
TIMEOUT_S = 0.25


class DriverContract:
    """Override the fixtures, and the attributes where they do not hold."""

    finite = True
    """The source ends by itself, within `max_reads`."""
    own_time = False
    """Stamps are a recording's own: a reconnect goes back to its start."""
    max_reads = 2000

    @pytest.fixture
    def clock(self) -> Clock:
        """Moved by the driver's own waits; a device needs the one of LiveDriverContract."""
        return ManualClock(START_NS)

    @pytest.fixture
    def make_driver(self) -> Callable[[], Driver]:
        raise NotImplementedError("give a fixture make_driver: () -> a new, unconnected driver")

    @pytest.fixture
    def broken(self) -> tuple[Driver, Callable[[], Any]]:
        """A driver whose connect fails, and a call after which the same driver's succeeds."""
        pytest.skip("this driver's connect cannot fail")

    @pytest.fixture
    def unplug(self) -> Callable[[], Any]:
        """A call that takes away what `make_driver` made a driver of."""
        pytest.skip("this source cannot be unplugged")

    @pytest.fixture
    def driver(self, make_driver: Callable[[], Driver]) -> Iterator[Driver]:
        driver = make_driver()
        yield driver
        driver.disconnect()

    @pytest.fixture
    def samples(self, driver: Driver) -> list[Sample]:
        driver.connect()
        return list(read_all(driver, self.max_reads))

    def test_streams_may_be_asked_for_before_connect(self, driver: Driver) -> None:
        assert isinstance(driver.streams, Sequence)

    def test_streams_are_fixed_from_connect_on(self, driver: Driver) -> None:
        driver.connect()
        streams = list(driver.streams)
        assert streams
        assert all(isinstance(info, StreamInfo) for info in streams)
        assert len({info.name for info in streams}) == len(streams)
        for _ in read_all(driver, 20):
            assert list(driver.streams) == streams

    def test_read_needs_a_connection(self, driver: Driver) -> None:
        with pytest.raises(DeviceLost):
            driver.read(TIMEOUT_S)
        driver.connect()
        driver.disconnect()
        with pytest.raises(DeviceLost):
            driver.read(TIMEOUT_S)

    def test_disconnect_is_idempotent(self, driver: Driver) -> None:
        driver.disconnect()
        driver.connect()
        driver.disconnect()
        driver.disconnect()

    def test_a_failed_connect_holds_nothing_and_can_be_tried_again(
        self, broken: tuple[Driver, Callable[[], Any]]
    ) -> None:
        driver, mend = broken
        expected = (DeviceNotFound, DeviceBusy, ConfigError)
        with pytest.raises(expected) as first:
            driver.connect()
        before = open_handles()
        with pytest.raises(expected) as second:
            driver.connect()
        assert open_handles() <= before
        assert str(first.value) == str(second.value)
        assert "\n" not in str(first.value)
        with pytest.raises(DeviceLost):
            driver.read(TIMEOUT_S)
        mend()
        driver.connect()
        assert next(read_all(driver, self.max_reads))
        driver.disconnect()

    def test_samples_are_blocks_of_their_stream(
        self, driver: Driver, samples: list[Sample]
    ) -> None:
        assert {s.stream.name for s in samples} == {info.name for info in driver.streams}
        for sample in samples:
            assert sample.stream in driver.streams
            assert not sample.data.flags.writeable
            assert not sample.t_ns.flags.writeable
            assert (sample.device_t_ns is not None) or sample.stream.clock == "host"

    def test_sequence_numbers_count_the_lost_ones(self, samples: list[Sample]) -> None:
        for blocks in by_stream(samples).values():
            assert blocks[0].seq == blocks[0].lost
            for before, after in pairwise(blocks):
                assert after.seq == before.seq + len(before) + after.lost

    def test_stamps_do_not_go_back(self, samples: list[Sample]) -> None:
        for blocks in by_stream(samples).values():
            for before, after in pairwise(blocks):
                assert after.t_ns[0] >= before.t_ns[-1]

    def test_arrivals_do_not_go_back_and_follow_capture(self, samples: list[Sample]) -> None:
        for before, after in pairwise(samples):
            assert after.arrival_ns >= before.arrival_ns
        if not self.own_time:
            assert all(s.arrival_ns >= s.t_ns[-1] for s in samples if s.stream.clock == "host")

    def test_read_waits_no_longer_than_it_may_and_loses_nothing(
        self, driver: Driver, clock: Clock
    ) -> None:
        timeout_s = 0.001
        driver.connect()
        got: list[Sample] = []
        for _ in range(self.max_reads):
            before_ns = clock.now_ns()
            try:
                got += driver.read(timeout_s)
            except ReadTimeout:
                pass
            except EndOfStream:
                break
            if clock.replay:
                assert clock.now_ns() - before_ns <= from_s(timeout_s)
        assert got
        for blocks in by_stream(got).values():
            assert blocks[0].seq == blocks[0].lost
            for before, after in pairwise(blocks):
                assert after.seq == before.seq + len(before) + after.lost

    def test_the_end_is_said_again_and_again(self, driver: Driver, samples: list[Sample]) -> None:
        if not self.finite:
            pytest.skip("this source has no end")
        assert samples
        for _ in range(3):
            with pytest.raises(EndOfStream):
                driver.read(TIMEOUT_S)

    def test_an_unplugged_device_is_lost(self, driver: Driver, unplug: Callable[[], Any]) -> None:
        driver.connect()
        assert next(read_all(driver, self.max_reads))
        unplug()
        with suppress(DeviceLost):
            for _ in range(self.max_reads):  # what has arrived may still be given
                with suppress(ReadTimeout, BadData):
                    driver.read(TIMEOUT_S)
        with pytest.raises(DeviceLost):
            driver.read(2 * TIMEOUT_S)
        driver.disconnect()
        with pytest.raises((DeviceNotFound, DeviceBusy)):
            driver.connect()

    def test_a_reconnect_begins_anew(self, driver: Driver) -> None:
        driver.connect()
        streams, first = list(driver.streams), list(read_all(driver, 10))
        driver.disconnect()
        driver.connect()
        again = list(read_all(driver, 10))
        assert list(driver.streams) == streams
        for name, blocks in by_stream(again).items():
            assert blocks[0].seq == blocks[0].lost
            if not self.own_time:
                before = [s for s in first if s.stream.name == name]
                assert all(blocks[0].t_ns[0] >= s.t_ns[-1] for s in before)
                assert all(again[0].arrival_ns >= s.arrival_ns for s in before)

    def test_nothing_is_left_open_after_disconnect(self, make_driver: Callable[[], Driver]) -> None:
        def use() -> tuple[int, int]:
            driver = make_driver()
            driver.connect()
            for _ in range(10):
                try:
                    driver.read(TIMEOUT_S)
                except (ReadTimeout, BadData):  # what is read is not asked here
                    continue
                except EndOfStream:
                    break
            driver.disconnect()
            return open_handles()

        before = use()  # the first use may start what an SDK keeps for the whole process
        for _ in range(3):
            files, threads = use()
        assert files <= before[0]
        assert threads <= before[1]


class LiveDriverContract(DriverContract):
    """Of a device: it does not end by itself, and goes by the time that it is."""

    finite = False
    max_reads = 15

    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()


def read_all(driver: Driver, max_reads: int) -> Iterator[Sample]:
    """Samples of up to `max_reads` reads, to the end where there is one."""
    for _ in range(max_reads):
        try:
            yield from driver.read(TIMEOUT_S)
        except ReadTimeout:
            continue
        except EndOfStream:
            return


def by_stream(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    names = dict.fromkeys(s.stream.name for s in samples)
    return {name: [s for s in samples if s.stream.name == name] for name in names}


def open_handles() -> tuple[int, int]:
    """(open file descriptors, threads of any kind) of this process."""
    gc.collect()
    process = psutil.Process()
    return process.num_fds(), process.num_threads()
