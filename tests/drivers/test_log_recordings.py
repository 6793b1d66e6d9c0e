"""Driver log on real recordings, counted against readers that share no code with it."""

from __future__ import annotations

import bz2
import csv
import io
import math
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from mcap.reader import NonSeekingReader
from mcap_ros2.decoder import DecoderFactory
from PIL import Image

from agent.clock import ManualClock
from agent.errors import EndOfStream
from agent.types import Sample
from drivers.log import LogConfig, LogDriver


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> Path:
    return shared_data / "recordings"


def play(path: Path, **config: object) -> tuple[LogDriver, list[Sample]]:
    driver = LogDriver("log", LogConfig(path=path, speed=0, **config), ManualClock(0))
    driver.connect()
    samples: list[Sample] = []
    try:
        while True:
            samples += driver.read(1)
    except EndOfStream:
        pass
    finally:
        driver.disconnect()
    order = [(s.arrival_ns, s.stream.name, s.seq) for s in samples]
    assert order == sorted(order)
    return driver, samples


def counts(driver: LogDriver) -> dict[str, int | None]:
    return {topic: count["messages"] for topic, count in driver.ledger().items()}


def of(samples: list[Sample], topic: str) -> list[Sample]:
    return [s for s in samples if s.stream.topic == topic]


def ros1_records(data: bytes) -> Iterator[tuple[dict[bytes, bytes], bytes]]:
    """(header, data) of the records of a bag, by the format's description alone."""
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        header, end, at = {}, at + 4 + length, at + 4
        while at < end:
            (size,) = struct.unpack_from("<I", data, at)
            name, _, value = data[at + 4 : at + 4 + size].partition(b"=")
            header[name] = value
            at += 4 + size
        (size,) = struct.unpack_from("<I", data, at)
        yield header, data[at + 4 : at + 4 + size]
        at += 4 + size


def ros1_counts(path: Path) -> Counter[str]:
    """Messages by topic."""
    unpack = {b"none": bytes, b"bz2": bz2.decompress, b"lz4": lz4.frame.decompress}
    topics, found = {}, Counter[str]()
    for header, data in ros1_records(path.read_bytes().partition(b"\n")[2]):
        if header[b"op"] == b"\x05":
            for inner, _ in ros1_records(unpack[header[b"compression"]](data)):
                if inner[b"op"] == b"\x07":
                    topics[inner[b"conn"]] = inner[b"topic"].decode()
                else:
                    found[topics[inner[b"conn"]]] += 1
    return found


BAGS = [
    "rosbag1/fixtures/example.bag",
    "rosbag1/fixtures/example-bz2.bag",
    "rosbag1/fixtures/example-lz4.bag",
    "rosbag1/fixtures/example-unsorted-chunks.bag",
    "rosbag_imu/test1.bag",
    "rosbag_imu/test2.bag",
]


@pytest.mark.parametrize("name", BAGS)
def test_ros1_bags_are_read_to_the_last_message(recordings: Path, name: str) -> None:
    driver, samples = play(recordings / name)
    expected = ros1_counts(recordings / name)
    assert counts(driver) == expected
    assert driver.complete
    for stream in driver.streams:
        assert len(of(samples, stream.topic)) == expected[stream.topic]


def test_a_husky_has_an_imu_an_odometry_and_a_receiver(recordings: Path) -> None:
    driver, samples = play(recordings / "rosbag_imu/test1.bag")
    assert counts(driver) == {
        "/imu/data": 11865,
        "/husky_velocity_controller/odom": 3952,
        "/fix": 989,
    }
    assert {s.topic: (s.name, s.modality, s.shape) for s in driver.streams} == {
        "/imu/data": ("imu_data", "imu", (6,)),
        "/husky_velocity_controller/odom": ("husky_velocity_controller_odom", "odometry", (85,)),
        "/fix": ("fix", "nav_sat_fix", (15,)),
    }
    imu = of(samples, "/imu/data")
    accelerations = np.concatenate([s.data for s in imu])[:, :3]
    assert 9.3 < np.linalg.norm(accelerations, axis=1).mean() < 10.3
    # The header's stamps are 20 to 36 ms before the log's; both are kept apart.
    delays_ms = [(s.arrival_ns - int(s.t_ns[0])) / 1e6 for s in imu]
    assert 20 < min(delays_ms) < max(delays_ms) < 37
    assert all(s.device_t_ns is not None and s.device_t_ns[0] == s.t_ns[0] for s in imu)
    assert driver.duration_s == pytest.approx(395.307, abs=0.01)


def test_a_bag_without_messages_ends_at_once(recordings: Path) -> None:
    driver, samples = play(recordings / "rosbag1/fixtures/no-messages.bag")
    assert (list(driver.streams), samples, driver.ledger()) == ([], [], {})
    assert driver.complete
    assert driver.duration_s == 0


def test_chunks_out_of_order_are_sorted(recordings: Path) -> None:
    driver, _ = play(recordings / "rosbag1/fixtures/example-unsorted-chunks.bag")
    assert driver.ledger()["foo"] == {
        "messages": 3,
        "first_ns": 1_000_000_000,
        "last_ns": 3_000_000_000,
        "lost": 0,
    }


# Of the others the one chunk is one block of bz2 or lz4, of which a part cannot be unpacked.
@pytest.mark.parametrize(("name", "at_least"), [(BAGS[0], 0.2), (BAGS[1], 0), (BAGS[2], 0)])
def test_a_ros1_bag_that_was_cut_off(
    recordings: Path, tmp_path: Path, name: str, at_least: float
) -> None:
    whole = (recordings / name).read_bytes()
    path = tmp_path / "cut.bag"
    path.write_bytes(whole[: len(whole) * 3 // 10])
    driver, samples = play(path)
    _, expected = play(recordings / name)
    assert not driver.complete
    assert at_least * len(expected) <= len(samples) < len(expected)
    for stream in driver.streams:
        found, all_of_it = of(samples, stream.topic), of(expected, stream.topic)
        for a, b in zip(found, all_of_it, strict=False):
            assert (a.seq, a.arrival_ns) == (b.seq, b.arrival_ns)
            np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize("where", ["aria_aea_ros2", "aria_aea_ros2/aria_aea_ros2.mcap"])
def test_ros2_mcap_agrees_with_another_reader(recordings: Path, where: str) -> None:
    driver, samples = play(recordings / where)
    with (recordings / "aria_aea_ros2/aria_aea_ros2.mcap").open("rb") as file:
        messages = list(
            NonSeekingReader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
        )
    assert len(messages) == 788
    assert counts(driver) == Counter(m.channel.topic for m in messages)
    assert len(counts(driver)) == 11
    for stream in driver.streams:
        same = [m for m in messages if m.channel.topic == stream.topic]
        found = of(samples, stream.topic)
        assert [s.arrival_ns for s in found] == [m.message.log_time for m in same]
        for sample, m in zip(found, same, strict=True):
            if stream.modality == "imu":
                a, g = m.decoded_message.linear_acceleration, m.decoded_message.angular_velocity
                expected = np.float32([a.x, a.y, a.z, g.x, g.y, g.z])
            elif stream.modality == "image":
                picture = Image.open(io.BytesIO(m.decoded_message.data))
                expected = np.asarray(picture)
            elif stream.modality == "audio":
                np.testing.assert_array_equal(
                    sample.data, np.frombuffer(bytes(m.decoded_message.data), "<i2").reshape(-1, 2)
                )
                continue
            elif stream.modality == "fluid_pressure":
                expected = [m.decoded_message.fluid_pressure]
            elif stream.modality == "temperature":
                expected = [m.decoded_message.temperature]
            else:
                f = m.decoded_message.magnetic_field
                expected = [f.x, f.y, f.z]
            np.testing.assert_array_equal(sample.data[0], expected)
    sound = next(s for s in driver.streams if s.modality == "audio")
    assert (sound.rate_hz, sound.shape, sound.dtype) == (48_000, (2,), "int16")
    rates = {s.topic: s.rate_hz for s in driver.streams}
    assert rates["/imu/right"] == pytest.approx(1000, rel=0.01)
    assert rates["/imu/left"] == pytest.approx(800, rel=0.01)
    assert "/audio_info" not in rates


def test_a_rosbag2_in_sqlite(recordings: Path, tmp_path: Path) -> None:
    from rosbags.convert import convert

    source = recordings / "rosbag_imu/test2.bag"
    folder = tmp_path / "bag2"
    convert(
        [source], folder, dst_storage="sqlite3", dst_version=9, compress=None,
        compress_mode="file", default_typestore=None, typestore=None, exclude_topics=[],
        include_topics=[], exclude_msgtypes=[], include_msgtypes=[],
    )  # fmt: skip
    _, expected = play(source)
    database = next(folder.glob("*.db3"))
    renamed = tmp_path / "no_suffix"
    shutil.copy(database, renamed)
    for path in (folder, database, renamed):
        driver, samples = play(path)
        assert counts(driver) == ros1_counts(source)
        assert len(samples) == len(expected)
        for a, b in zip(samples, expected, strict=True):
            assert a.stream.name == b.stream.name
            np.testing.assert_array_equal(a.data, b.data)


def test_csv_of_x_io_in_si_units(recordings: Path) -> None:
    path = recordings / "xio_imu/sensor_data.csv"
    driver, samples = play(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert counts(driver) == {"imu": len(rows), "magnetometer": len(rows)}
    assert driver.complete
    imu, magnetometer = of(samples, "imu"), of(samples, "magnetometer")
    assert (imu[0].stream.unit, magnetometer[0].stream.unit) == ("m/s^2,rad/s", "T")
    for sample, field, row in zip(imu, magnetometer, rows, strict=True):
        assert sample.t_ns[0] == round(float(row["Time (s)"]) * 1e9)
        expected = [float(row[f"Accelerometer {a} (g)"]) * 9.80665 for a in "XYZ"]
        expected += [math.radians(float(row[f"Gyroscope {a} (deg/s)"])) for a in "XYZ"]
        np.testing.assert_allclose(sample.data[0], expected, rtol=1e-6, atol=1e-12)
        tesla = [float(row[f"Magnetometer {a} (uT)"]) * 1e-6 for a in "XYZ"]
        np.testing.assert_allclose(field.data[0], tesla, rtol=1e-12)
