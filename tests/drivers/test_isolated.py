"""A driver in a process of its own: as every driver, and where its process fails."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.clock import Clock, ManualClock, SystemClock, from_s
from agent.config_file import build_config
from agent.contracts import Driver
from agent.errors import (
    BadData,
    ConfigError,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    DriverError,
    EndOfStream,
    NotDue,
    ReadTimeout,
)
from agent.isolation.driver import IsolatedDriver, make_driver
from agent.types import Sample
from drivers.synthetic import SyntheticDriver
from tests.contracts.driver_contract import DriverContract, open_handles, read_all
from tests.fakes import isolated_drivers
from tests.fakes.package import install

PATIENCE_S = 60.0  # a bound on a hang, not a measure
SENSES = {
    "camera": {"modality": "image", "size": [64, 48]},
    "depth": {"modality": "depth", "size": [64, 48]},
    "microphone": {"modality": "audio"},
    "imu": {"modality": "imu"},
}


@pytest.fixture
def failing_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "failing", f"{isolated_drivers.__name__}:FailingDriver")
    monkeypatch.syspath_prepend(tmp_path)


def isolated(clock: Clock, **fields: Any) -> Driver:
    raw = {"kind": "failing", "isolate": True, "read_timeout_s": 0.1, **fields}
    return make_driver(build_config({"drivers": {"test": raw}}).drivers[0], clock)


@pytest.fixture
def driver(failing_kind: None) -> Iterator[Callable[..., IsolatedDriver]]:
    made: list[IsolatedDriver] = []

    def make(**fields: Any) -> IsolatedDriver:
        driver = isolated(SystemClock(), **fields)
        assert isinstance(driver, IsolatedDriver)
        made.append(driver)
        return driver

    yield make
    for each in made:
        each.disconnect()


def read_until(driver: Driver, error: type[DriverError]) -> tuple[list[Sample], DriverError]:
    """What it gives until it raises `error`, and that."""
    clock, samples = SystemClock(), list[Sample]()
    until_ns = clock.now_ns() + from_s(PATIENCE_S)
    while clock.now_ns() < until_ns:
        try:
            samples += driver.read(0.1)
        except error as exc:
            return samples, exc
        except ReadTimeout:
            continue
    raise AssertionError(f"no {error.__name__} in {PATIENCE_S:g} s")


def processes() -> list[psutil.Process]:
    """Of isolated drivers, of this process."""
    return [p for p in psutil.Process().children() if "agent.isolation.child" in p.cmdline()]


class TestSynthetic(DriverContract):
    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()

    @pytest.fixture
    def make_driver(self, clock: Clock) -> Callable[[], Driver]:
        synthetic = {"kind": "synthetic", "streams": SENSES, "duration_s": 0.6}
        return lambda: isolated(clock, **synthetic)


class TestFailing(DriverContract):
    """With a device's clock, no name of ours, and a connect that fails."""

    @pytest.fixture
    def clock(self) -> Clock:
        return SystemClock()

    @pytest.fixture
    def make_driver(self, clock: Clock, failing_kind: None) -> Callable[[], Driver]:
        return lambda: isolated(clock, blocks=30)

    @pytest.fixture
    def broken(
        self, clock: Clock, failing_kind: None, tmp_path: Path
    ) -> tuple[Driver, Callable[[], Any]]:
        gate = tmp_path / "device"
        return isolated(clock, blocks=30, gate=str(gate)), gate.touch


def test_what_it_gives_is_what_the_driver_gives(
    driver: Callable[..., IsolatedDriver],
) -> None:
    """The same bits, in arrays that stay as they are while the ring goes round many times."""
    fields = {"kind": "synthetic", "streams": SENSES, "seed": 3, "duration_s": 1.0}
    outside, inside = driver(**fields), isolated(SystemClock(), **fields, isolate=False)
    assert isinstance(inside, SyntheticDriver)
    outside.connect()
    inside.connect()
    assert list(outside.streams) == list(inside.streams)
    ours, theirs = list(read_all(outside, 2000)), list(read_all(inside, 2000))
    for name in SENSES:
        got = [s for s in ours if s.stream.name == name]
        expected = [s for s in theirs if s.stream.name == name]
        assert [s.seq for s in got] == [s.seq for s in expected]
        assert all((a.data == b.data).all() for a, b in zip(got, expected, strict=True))
        steps = [int(b.t_ns[0] - a.t_ns[0]) for a, b in pairwise(got)]
        assert steps == [int(b.t_ns[0] - a.t_ns[0]) for a, b in pairwise(expected)]


def test_stamps_are_on_the_agents_clock(driver: Callable[..., IsolatedDriver]) -> None:
    """Of a clock whose anchor is an hour off, so that a child's own would be seen."""
    uncertainty_ns, anchor_ns = SystemClock().anchor
    clock = SystemClock((uncertainty_ns, anchor_ns - from_s(3600)))
    driver = isolated(clock, blocks=5)
    before_ns = clock.now_ns()
    driver.connect()
    samples, _ = read_until(driver, EndOfStream)
    driver.disconnect()
    assert [int(s.data[0, 0]) for s in samples] == list(range(5))
    assert all(before_ns < s.t_ns[0] <= s.arrival_ns <= clock.now_ns() for s in samples)
    assert [int(s.device_t_ns[0]) for s in samples] == [from_s(0.01) * n for n in range(5)]


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("busy", DeviceBusy, "failing: another program has it"),
        ("extra", ConfigError, r"package 'a_package_that_is_not_there' .*sensebind\[imu\]"),
        ("crash", DeviceNotFound, "failing test: its process was killed by SIGSEGV"),
        ("exit", DeviceNotFound, "failing test: its process ended with exit code 7"),
        ("bug", DeviceNotFound, "failing test: its process ended with exit code 1"),
        ("subclass", DeviceNotFound, "failing: in a way of its own"),
    ],
)
def test_a_connect_that_fails(
    driver: Callable[..., IsolatedDriver], fault: str, error: type[DriverError], words: str
) -> None:
    """As in the agent's own process: the same class and line, and nothing is left."""
    failing = driver(fault=fault, at="connect")
    files, threads = open_handles()
    with pytest.raises(error, match=words) as raised:
        failing.connect()
    assert type(raised.value) is error
    assert failing.pid is None
    assert open_handles() == (files, threads)
    assert not processes()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", "its process was killed by SIGSEGV"),
        ("exit", "its process ended with exit code 7"),
        ("bug", "its process ended with exit code 1"),
        ("subclass", "in a way of its own"),
        ("hang", "hangs, silent for .* s; killed"),
    ],
)
def test_a_read_that_fails(
    driver: Callable[..., IsolatedDriver], fault: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The device is lost after the last good block, and its last words are in the log."""
    failing = driver(fault=fault)
    files, threads = open_handles()
    failing.connect()
    assert len(processes()) == 1
    samples, error = read_until(failing, DeviceLost)
    assert [s.seq for s in samples] == [0, 1, 2]
    assert re.search(words, str(error))
    assert "\n" not in str(error)
    with pytest.raises(DeviceLost):
        failing.read(0.1)
    failing.disconnect()
    assert open_handles() == (files, threads)
    assert not processes()
    last_words = {"crash": "Segmentation fault", "bug": "ZeroDivisionError: a bug of the driver"}
    assert last_words.get(fault, "") in caplog.text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stopped_is_replaced(
    driver: Callable[..., IsolatedDriver], number: signal.Signals
) -> None:
    failing = driver()
    failing.connect()
    first = failing.pid
    assert first is not None
    assert failing.read(PATIENCE_S)[0].seq == 0
    os.kill(first, number)
    before, _ = read_until(failing, DeviceLost)
    assert [s.seq for s in before] == list(range(1, len(before) + 1))
    failing.connect()
    assert failing.pid not in (None, first)
    again = failing.read(PATIENCE_S)[0]
    assert again.seq == 0
    assert again.t_ns[0] > max((s.t_ns[0] for s in before), default=0)


def test_a_stopped_process_does_not_hold_up_disconnect(
    driver: Callable[..., IsolatedDriver],
) -> None:
    failing = driver()
    failing.connect()
    assert failing.pid is not None
    process = psutil.Process(failing.pid)
    process.suspend()
    failing.disconnect()
    assert not process.is_running()


def test_a_bad_block_is_told_once_and_in_its_place(driver: Callable[..., IsolatedDriver]) -> None:
    failing = driver(fault="bad", blocks=8)
    failing.connect()
    before, error = read_until(failing, BadData)
    assert str(error) == "failing: a block is unusable"
    after, _ = read_until(failing, EndOfStream)
    assert [s.seq for s in before + after] == [0, 1, 2, 4, 5, 6, 7]


def test_what_it_logs_and_prints_comes_out_here(
    driver: Callable[..., IsolatedDriver],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the programs that it starts, perhaps of another Python, find PYTHONPATH as it was."""
    monkeypatch.setenv("PYTHONPATH", "as_it_was")
    failing = driver(fault="talk", blocks=8)
    failing.connect()
    read_until(failing, EndOfStream)
    failing.disconnect()
    assert ("sdk", logging.ERROR, "a log line of the SDK") in caplog.record_tuples
    assert "failing test: printed by the SDK, PYTHONPATH=as_it_was" in caplog.messages
    assert "failing test: written by C code" in caplog.messages


def test_what_the_agent_does_not_take_is_lost_and_counted(
    driver: Callable[..., IsolatedDriver],
) -> None:
    """The ring holds some blocks of 400 kB; the process goes on reading while nobody listens."""
    failing = driver(width=100_000, rate_hz=1.0, buffer_s=0.1, blocks=60)
    failing.connect()
    SystemClock().wait_until_ns(SystemClock().now_ns() + from_s(0.3))
    samples, _ = read_until(failing, EndOfStream)
    assert samples[0].seq == samples[0].lost == 0
    for before, after in pairwise(samples):
        assert after.seq == before.seq + 1 + after.lost
    assert sum(s.lost for s in samples) > 10
    assert all((s.data == s.seq).all() for s in samples), "no block was written over"


def test_a_block_larger_than_the_ring_is_refused_in_words(
    driver: Callable[..., IsolatedDriver],
) -> None:
    failing = driver(ticks=30, width=100_000, rate_hz=1.0, buffer_s=0.1)
    failing.connect()
    _, error = read_until(failing, BadData)
    assert re.fullmatch(
        r"stream test: a block of \d+ bytes, the ring has \d+; give the driver more buffer_s",
        str(error),
    )


def test_a_clock_that_is_moved_by_hand_isolates_nothing(failing_kind: None) -> None:
    assert isinstance(isolated(ManualClock()), isolated_drivers.FailingDriver)


def test_a_timeout_of_the_process_is_not_one_of_the_device(
    driver: Callable[..., IsolatedDriver],
) -> None:
    """Nothing has come over yet: that must not count towards a device that is silent."""
    quiet = driver(kind="synthetic", streams={"slow": {"modality": "gas", "rate_hz": 0.1}})
    quiet.connect()
    assert quiet.read(PATIENCE_S)[0].seq == 0
    with pytest.raises(NotDue):
        quiet.read(0.001)


def test_its_process_is_small(driver: Callable[..., IsolatedDriver]) -> None:
    """What every isolated driver costs: one thread, and no model's runtime."""
    synthetic = driver(kind="synthetic", streams=SENSES)
    synthetic.connect()
    process = psutil.Process(synthetic.pid)
    assert process.num_threads() == 1
    assert process.num_fds() <= 8
    maps = {Path(each.path).name for each in process.memory_maps()}
    assert not [name for name in maps if re.match("libtorch|libonnxruntime|onnxruntime", name)]
    assert any("memfd:sensebind" in each.path for each in process.memory_maps())
    assert not list(Path("/dev/shm").glob("*sensebind*"))
