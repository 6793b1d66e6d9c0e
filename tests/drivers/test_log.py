"""Driver log on our own recordings: the same samples again, in order, at the right time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from mcap.reader import make_reader

from agent.clock import Clock, ManualClock, SystemClock, from_s
from agent.contracts import Driver
from agent.errors import BadData, ConfigError, DeviceNotFound, EndOfStream, ReadTimeout
from agent.record.writer import LogWriter
from agent.types import Sample
from drivers.log import PLUGIN, LogConfig, LogDriver
from tests.contracts.driver_contract import DriverContract, by_stream
from tests.fakes.log_streams import STREAMS, make_samples

NAMES = ("cam", "depth", "thermal", "mic", "imu", "radar")


opened: list[LogDriver] = []


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    while opened:
        opened.pop().disconnect()


def in_order(samples: list[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda s: (s.arrival_ns, s.stream.name, s.seq))


def record(path: Path, samples: list[Sample]) -> None:
    log = LogWriter(path, clock=ManualClock(0), agent="unit", boot_id="b")
    for sample in samples:
        log.put(sample)
    stop = threading.Event()
    stop.set()
    log.run(stop)


def driver_of(path: Path, clock: Clock | None = None, **config: Any) -> LogDriver:
    config.setdefault("speed", 0)
    driver = PLUGIN("log", LogConfig(path=path, **config), clock or ManualClock(0))
    opened.append(driver)
    return driver


def play(driver: LogDriver, reads: int = 100_000) -> list[Sample]:
    driver.connect()
    samples: list[Sample] = []
    for _ in range(reads):
        try:
            samples += driver.read(1.0)
        except EndOfStream:
            break
    return samples


def cut(path: Path, fraction: float) -> Path:
    data = path.read_bytes()
    short = path.with_name(f"cut_{path.name}")
    short.write_bytes(data[: int(len(data) * fraction)])
    return short


@pytest.fixture(scope="module")
def recorded() -> list[Sample]:
    return in_order([s for name in NAMES for s in make_samples(STREAMS[name], 12)])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, recorded: list[Sample]) -> Path:
    path = tmp_path_factory.mktemp("log") / "run.mcap"
    record(path, recorded)
    return path


class TestLogDriverUnpaced(DriverContract):
    own_time = True

    @pytest.fixture
    def make_driver(self, clock: Clock, path: Path) -> Callable[[], Driver]:
        return lambda: driver_of(path, clock)

    @pytest.fixture
    def broken(self, tmp_path: Path, path: Path) -> tuple[Driver, Callable[[], Any]]:
        link = tmp_path / "later.mcap"
        return driver_of(link), lambda: link.symlink_to(path)


class TestLogDriverPaced(DriverContract):
    @pytest.fixture
    def make_driver(self, clock: Clock, path: Path) -> Callable[[], Driver]:
        return lambda: driver_of(path, clock, speed=1.0)

    @pytest.fixture
    def broken(self, tmp_path: Path, path: Path) -> tuple[Driver, Callable[[], Any]]:
        damaged = tmp_path / "damaged.mcap"
        damaged.write_bytes(b"\x89MCAP1\r\n not MCAP")
        return driver_of(damaged), lambda: damaged.write_bytes(path.read_bytes())


class TestLogDriverLooped(DriverContract):
    finite = False
    max_reads = 100

    @pytest.fixture
    def make_driver(self, clock: Clock, path: Path) -> Callable[[], Driver]:
        return lambda: driver_of(path, clock, speed=2.0, loop=True)


def test_every_sample_comes_back_as_it_was(path: Path, recorded: list[Sample]) -> None:
    driver = driver_of(path)
    found = play(driver)
    assert len(found) == len(recorded)
    for was, is_now in zip(recorded, found, strict=True):
        assert is_now.stream.name == was.stream.name
        assert is_now.stream.topic == f"/{was.stream.name}"
        assert is_now.stream == replace(was.stream, topic=is_now.stream.topic)
        assert (is_now.seq, is_now.lost, is_now.arrival_ns) == (was.seq, was.lost, was.arrival_ns)
        np.testing.assert_array_equal(is_now.t_ns, was.t_ns)
        np.testing.assert_array_equal(is_now.device_t_ns, was.device_t_ns)
        if was.stream.name == "cam":
            assert np.abs(is_now.data.astype(int) - was.data).mean() < 3
        else:
            np.testing.assert_array_equal(is_now.data, was.data)
    assert driver.complete
    assert driver.metadata["sensebind.run"]["agent"] == "unit"


def test_the_ledger_counts_every_topic(path: Path, recorded: list[Sample]) -> None:
    driver = driver_of(path, topics=["/imu"])
    driver.connect()
    assert {count["messages"] for count in driver.ledger().values()} == {0}
    assert {s.stream.name for s in play(driver)} == {"imu"}
    ledger = driver.ledger()
    expected = {f"/{n}": sum(s.stream.name == n for s in recorded) for n in NAMES}
    expected["/imu"] = sum(len(s) for s in recorded if s.stream.name == "imu")
    expected["/blocks"] = len(recorded)
    assert {topic: count["messages"] for topic, count in ledger.items()} == expected
    imu = [s for s in recorded if s.stream.name == "imu"]
    assert ledger["/imu"] == {
        "messages": 240,
        "first_ns": imu[0].arrival_ns,
        "last_ns": imu[-1].arrival_ns,
        "lost": 3,
    }
    assert driver.duration_s == (recorded[-1].arrival_ns - recorded[0].arrival_ns) / 1e9
    driver.disconnect()
    assert driver.ledger() == ledger


def test_blocks_that_the_recorder_dropped_are_lost_ticks(tmp_path: Path) -> None:
    blocks = make_samples(STREAMS["depth"], 4)  # three lost before the third
    path = tmp_path / "run.mcap"
    record(path, [blocks[0], blocks[3]])
    driver = driver_of(path)
    found = play(driver)
    assert [(s.seq, s.lost) for s in found] == [(0, 0), (6, 5)]
    assert driver.ledger()["/depth"]["lost"] == 5


def test_a_device_that_counted_anew_goes_on(tmp_path: Path) -> None:
    first, again = make_samples(STREAMS["depth"], 2), make_samples(STREAMS["depth"], 2)
    later = [
        Sample(s.stream, s.seq, s.t_ns + 10**9, s.arrival_ns + 10**9, s.data, None, s.lost)
        for s in again
    ]
    path = tmp_path / "run.mcap"
    record(path, first + later)
    driver = driver_of(path)
    assert [(s.seq, s.lost) for s in play(driver)] == [(0, 0), (4, 3), (5, 0), (9, 3)]


def test_paced_times_begin_now_and_nothing_is_early(path: Path, recorded: list[Sample]) -> None:
    clock = ManualClock(from_s(50))
    driver = driver_of(path, clock, speed=1.0)
    driver.connect()
    clock.advance_to_ns(from_s(60))
    found: list[Sample] = []
    timeouts = 0
    while len(found) < len(recorded):
        try:
            got = driver.read(0.01)
        except ReadTimeout:
            timeouts += 1
            continue
        assert all(s.arrival_ns <= clock.now_ns() for s in got)
        found += got
    assert timeouts
    shift = from_s(60) - recorded[0].arrival_ns
    assert [s.arrival_ns for s in found] == [s.arrival_ns + shift for s in recorded]
    for was, is_now in zip(recorded, found, strict=True):
        np.testing.assert_array_equal(is_now.t_ns, was.t_ns + shift)
        np.testing.assert_array_equal(is_now.device_t_ns, was.device_t_ns)


def test_double_speed_halves_all_times(path: Path, recorded: list[Sample]) -> None:
    clock = ManualClock(0)
    driver = driver_of(path, clock, speed=2.0, topics=["/imu"])
    imu = [s for s in recorded if s.stream.name == "imu"]
    found = play(driver)
    assert driver.streams[0].rate_hz == 400
    span = imu[-1].arrival_ns - imu[0].arrival_ns
    assert abs(found[-1].arrival_ns - found[0].arrival_ns - span / 2) <= 1


def test_a_true_clock_paces(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    blocks = make_samples(STREAMS["depth"], 4)
    record(path, blocks)
    clock = SystemClock()
    driver = driver_of(path, clock, speed=1.0)
    before_ns = clock.now_ns()
    found = play(driver)
    assert len(found) == 4
    assert clock.now_ns() - before_ns >= blocks[-1].arrival_ns - blocks[0].arrival_ns


def test_a_loop_goes_on_in_time_and_sequence(path: Path, recorded: list[Sample]) -> None:
    driver = driver_of(path, loop=True, topics=["/imu", "/mic"])
    one_pass = [s for s in recorded if s.stream.name in ("imu", "mic")]
    found: list[Sample] = []
    driver.connect()
    while len(found) < 3 * len(one_pass):
        found += driver.read(1)
    found = found[: 3 * len(one_pass)]
    assert [s.stream.name for s in found] == [s.stream.name for s in one_pass] * 3
    arrivals = [s.arrival_ns for s in found]
    assert arrivals == sorted(arrivals)
    for blocks in by_stream(found).values():
        assert [s.seq for s in blocks] == [
            sum(len(b) + b.lost for b in blocks[:i]) + blocks[i].lost for i in range(len(blocks))
        ]
        for before, after in pairwise(blocks):
            assert after.t_ns[0] >= before.t_ns[-1]


def test_a_loop_over_nothing_ends(path: Path) -> None:
    driver = driver_of(path, loop=True, topics=["/blocks"])
    driver.connect()
    assert driver.streams == ()
    with pytest.raises(EndOfStream):
        driver.read(1)


def test_a_part_of_a_log(path: Path, recorded: list[Sample]) -> None:
    start = recorded[0].arrival_ns
    found = play(driver_of(path, from_s=0.2, to_s=0.5))
    expected = [s for s in recorded if from_s(0.2) <= s.arrival_ns - start < from_s(0.5)]
    assert [(s.stream.name, s.arrival_ns) for s in found] == [
        (s.stream.name, s.arrival_ns) for s in expected
    ]
    for blocks in by_stream(found).values():
        assert blocks[0].seq == blocks[0].lost


def test_names_and_senses_can_be_given(path: Path) -> None:
    driver = driver_of(
        path, topics=["/imu", "/radar"], names={"/imu": "wrist"}, modalities={"/radar": "lidar"}
    )
    driver.connect()
    assert [(s.name, s.modality) for s in driver.streams] == [("wrist", "imu"), ("radar", "lidar")]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"topics": ["/nose"]}, r"topics: no topic '/nose', it has /blocks, /cam, /depth"),
        ({"names": {"/nose": "a"}}, r"names: no topic '/nose'"),
        ({"modalities": {"/nose": "a"}}, r"modalities: no topic '/nose'"),
        ({"names": {"/imu": "a", "/mic": "a"}}, r"names: two topics have the same name"),
    ],
)
def test_topics_that_are_not_there(path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        driver_of(path, **config).connect()


def test_a_given_name_pushes_a_found_one_aside(path: Path) -> None:
    driver = driver_of(path, topics=["/depth", "/imu"], names={"/imu": "depth"})
    driver.connect()
    assert [s.name for s in driver.streams] == ["depth_2", "depth"]


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9, 0.999])
def test_a_log_that_was_cut_off_is_played_to_where_it_ends(
    path: Path, recorded: list[Sample], fraction: float, caplog: pytest.LogCaptureFixture
) -> None:
    driver = driver_of(cut(path, fraction))
    with caplog.at_level(logging.WARNING):
        found = play(driver)
    assert not driver.complete
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == [
        "it was cut off; playing what is there"
    ]
    expected = by_stream(recorded)
    for name, blocks in by_stream(found).items():
        for was, is_now in zip(expected[name], blocks, strict=False):
            count = len(is_now)
            assert (is_now.seq, is_now.lost) == (was.seq, was.lost)
            np.testing.assert_array_equal(is_now.t_ns, was.t_ns[:count])
            assert count == len(was) or is_now is blocks[-1]


def test_a_log_without_a_ledger_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    log = LogWriter(path, clock=ManualClock(0), agent="a", boot_id="b")
    for sample in make_samples(STREAMS["depth"], 3):
        log.put(sample)
    while (item := log._take(wait=False)) is not None:
        log._write(item)
    log.close()
    driver = driver_of(path)
    assert len(play(driver)) == 3
    assert not driver.complete


def test_a_damaged_chunk_is_bad_data_once(path: Path) -> None:
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    chunk = summary.chunk_indexes[-1]
    data = bytearray(path.read_bytes())
    end = chunk.chunk_start_offset + chunk.chunk_length
    data[end - 1000 : end] = bytes(1000)
    damaged = path.with_name("damaged.mcap")
    damaged.write_bytes(data)
    driver = driver_of(damaged)
    driver.connect()
    errors, found = [], []
    while True:
        try:
            found += driver.read(1)
        except BadData as exc:
            errors.append(str(exc))
        except EndOfStream:
            break
    assert len(errors) == 1
    assert "damaged, reading stops here" in errors[0]
    assert not driver.complete


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89MCAP0\r\n", b"a,b\n1,2\n"])
def test_files_that_are_no_logs(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(content)
    if content.startswith(b"\x89MCAP0"):
        driver = driver_of(path)  # a recorder that was killed at once
        assert play(driver) == []
        assert not driver.complete
        return
    with pytest.raises(DeviceNotFound, match=r"file\.bin: not a log that can be read") as error:
        driver_of(path).connect()
    assert "\n" not in str(error.value)


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(DeviceNotFound, match=r"none\.mcap: No such file"):
        driver_of(tmp_path / "none.mcap").connect()
    with pytest.raises(DeviceNotFound, match=r"a folder without metadata\.yaml"):
        driver_of(tmp_path).connect()
    (tmp_path / "metadata.yaml").write_text("just text")
    with pytest.raises(DeviceNotFound, match=r"not the metadata of a rosbag2"):
        driver_of(tmp_path).connect()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"speed": -1}, "speed"),
        ({"from_s": 2, "to_s": 1}, r"to_s 1 must be later than from_s 2"),
        ({"names": {"/a": "No Name"}}, "names"),
        ({"pace": 1}, "unknown field `pace`"),
    ],
)
def test_bad_config_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(
            {"path": "x", **config}, LogConfig, dec_hook=lambda kind, value: kind(value)
        )
