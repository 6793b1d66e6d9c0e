"""Driver log on logs made for the test: what the recordings at hand do not have in them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import foxglove
import numpy as np
import pytest
from foxglove import messages as fox
from mcap.writer import CompressionType, Writer
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from agent.clock import ManualClock
from agent.errors import BadData, EndOfStream
from agent.types import Sample
from drivers.log import LogConfig, LogDriver

STORE = get_typestore(Stores.ROS2_HUMBLE)
for name, text in {
    "audio_common_msgs/msg/AudioData": "uint8[] data",
    "audio_common_msgs/msg/AudioDataStamped": "std_msgs/Header header\n"
    "audio_common_msgs/AudioData audio",
    "audio_common_msgs/msg/AudioInfo": "uint8 channels\nuint32 sample_rate\nstring sample_format\n"
    "uint32 bitrate\nstring coding_format",
    "unit_msgs/msg/Mixed": "std_msgs/Header header\nbool on\nfloat32[3] xyz\nstring what\n"
    "geometry_msgs/Point32 point\nbuiltin_interfaces/Duration since",
    "unit_msgs/msg/Names": "string[2] names",
}.items():
    STORE.register(get_types_from_msg(text, name))
T = STORE.types
S = 1_000_000_000


def header(t_ns: int, frame_id: str = "") -> Any:
    stamp = T["builtin_interfaces/msg/Time"](sec=t_ns // S, nanosec=t_ns % S)
    return T["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image(t_ns: int, encoding: str, pixels: np.ndarray, big: bool = False) -> Any:
    stored = pixels.astype(pixels.dtype.newbyteorder(">")) if big else pixels
    return T["sensor_msgs/msg/Image"](
        header=header(t_ns, "lens"),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=big,
        step=pixels.shape[1] * int(np.prod(pixels.shape[2:])) * pixels.itemsize,
        data=np.frombuffer(stored.tobytes(), np.uint8),
    )


def ros2_mcap(path: Path, messages: Sequence[tuple[str, int, Any]], **options: Any) -> Path:
    """(topic, log time, message) in the order of writing."""
    with path.open("wb") as file:
        writer = Writer(file, **options)
        writer.start("ros2")
        channels: dict[str, int] = {}
        for topic, log_ns, message in messages:
            kind = message.__msgtype__
            if topic not in channels:
                definition, _ = STORE.generate_msgdef(kind, ros_version=2)
                schema = writer.register_schema(kind, "ros2msg", definition.encode())
                channels[topic] = writer.register_channel(topic, "cdr", schema)
            data = bytes(STORE.serialize_cdr(message, kind))
            writer.add_message(channels[topic], log_ns, data, log_ns)
        writer.finish()
    return path


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[LogDriver]:
    driver = LogDriver("log", LogConfig(path=tmp_path / "log", speed=0), ManualClock(0))
    yield driver
    driver.disconnect()


def play(driver: LogDriver) -> list[Sample]:
    driver.connect()
    samples: list[Sample] = []
    while True:
        try:
            samples += driver.read(1)
        except EndOfStream:
            return samples


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "pixels", "modality", "dtype"),
    [
        ("rgb8", np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "image", "uint8"),
        ("bgr8", np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "image", "uint8"),
        ("mono8", np.arange(8, dtype=np.uint8).reshape(2, 4), "image", "uint8"),
        ("16UC1", np.arange(8, dtype=np.uint16).reshape(2, 4) * 999, "depth", "uint16"),
        ("mono16", np.arange(8, dtype=np.uint16).reshape(2, 4) * 999, "thermal", "uint16"),
    ],
)
def test_raw_pictures(
    tmp_path: Path, driver: LogDriver, encoding: str, pixels: np.ndarray, modality: str,
    dtype: str, big: bool,
) -> None:  # fmt: skip
    ros2_mcap(tmp_path / "log", [("/eye", 5 * S, image(4 * S, encoding, pixels, big))])
    (sample,) = play(driver)
    assert (sample.stream.modality, sample.stream.dtype) == (modality, dtype)
    assert sample.stream.frame_id == "lens"
    expected = pixels[:, :, ::-1] if encoding == "bgr8" else pixels
    np.testing.assert_array_equal(sample.data[0], expected)
    assert (sample.t_ns[0], sample.arrival_ns) == (4 * S, 5 * S)


def test_depth_in_metres_becomes_millimetres(tmp_path: Path, driver: LogDriver) -> None:
    metres = np.float32([[0.5, np.nan, np.inf], [-1, 70, 1.2344]])
    ros2_mcap(tmp_path / "log", [("/eye", S, image(S, "32FC1", metres))])
    (sample,) = play(driver)
    assert (sample.stream.modality, sample.stream.unit) == ("depth", "mm")
    assert sample.data[0].tolist() == [[500, 0, 0], [0, 0, 1234]]


def test_degrees_can_be_told_from_metres(tmp_path: Path) -> None:
    path = ros2_mcap(tmp_path / "log", [("/eye", S, image(S, "32FC1", np.float32([[36.5]])))])
    config = LogConfig(path=path, speed=0, modalities={"/eye": "thermal"})
    driver = LogDriver("log", config, ManualClock(0))
    (sample,) = play(driver)
    driver.disconnect()
    assert (sample.stream.modality, sample.stream.unit) == ("thermal", "c")
    assert sample.data.tolist() == [[[36.5]]]


def test_compressed_depth_has_a_preamble(tmp_path: Path, driver: LogDriver) -> None:
    pixels = np.arange(8, dtype=np.uint16).reshape(2, 4) * 1000
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    message = T["sensor_msgs/msg/CompressedImage"](
        header=header(S),
        format="16UC1; compressedDepth png",
        data=np.frombuffer(bytes(12) + png.getvalue(), np.uint8),
    )
    ros2_mcap(tmp_path / "log", [("/eye", S, message)])
    (sample,) = play(driver)
    assert sample.stream.modality == "depth"
    np.testing.assert_array_equal(sample.data[0], pixels)


def test_pictures_without_a_known_encoding_are_counted(tmp_path: Path, driver: LogDriver) -> None:
    message = image(S, "bayer_rggb8", np.zeros((2, 2), np.uint8))
    ros2_mcap(tmp_path / "log", [("/eye", S, message)])
    assert play(driver) == []
    assert driver.streams == ()
    assert driver.ledger()["/eye"]["messages"] == 1


@pytest.mark.parametrize(
    ("stamp_ns", "t_ns"),
    [(99 * S, 99 * S), (0, 100 * S), (101 * S, 100 * S), (99 * S + 4000 * S, 100 * S)],
    ids=["its own", "none", "after the arrival", "of another clock"],
)
def test_which_stamp_is_the_capture_time(
    tmp_path: Path, driver: LogDriver, stamp_ns: int, t_ns: int
) -> None:
    message = image(stamp_ns, "mono8", np.zeros((2, 2), np.uint8))
    ros2_mcap(tmp_path / "log", [("/eye", 100 * S, message)])
    (sample,) = play(driver)
    assert sample.t_ns.tolist() == [t_ns]
    assert sample.device_t_ns is not None
    assert sample.device_t_ns.tolist() == [stamp_ns or 100 * S]


def audio_info(rate: int, coding: str = "wave", sample_format: str = "S16LE") -> Any:
    return T["audio_common_msgs/msg/AudioInfo"](
        channels=1, sample_rate=rate, sample_format=sample_format, bitrate=0, coding_format=coding
    )


def audio(data: bytes) -> Any:
    return T["audio_common_msgs/msg/AudioData"](data=np.frombuffer(data, np.uint8))


def test_sound_takes_its_format_from_beside_it(tmp_path: Path, driver: LogDriver) -> None:
    left, right = np.arange(8, dtype="<i2"), np.array([0.5, -0.5], "<f4")
    stamped = T["audio_common_msgs/msg/AudioDataStamped"](
        header=header(2 * S), audio=audio(right.tobytes())
    )
    ros2_mcap(
        tmp_path / "log",
        [
            ("/left_info", S, audio_info(4)),
            ("/right_info", S, audio_info(2, sample_format="F32LE")),
            ("/left", 3 * S, audio(left.tobytes())),
            ("/right", 3 * S, stamped),
        ],
    )
    first, second = play(driver)
    assert (first.stream.rate_hz, first.stream.dtype) == (4, "int16")
    np.testing.assert_array_equal(first.data[:, 0], left)
    # No stamp: the last frame was there when the message was.
    assert first.t_ns.tolist() == [3 * S - (7 - i) * S // 4 for i in range(8)]
    assert (second.stream.rate_hz, second.stream.dtype) == (2, "float32")
    np.testing.assert_array_equal(second.data[:, 0], right)
    assert second.t_ns.tolist() == [2 * S, 2 * S + S // 2]
    assert (first.arrival_ns, second.arrival_ns) == (3 * S, 3 * S)


@pytest.mark.parametrize(
    "infos",
    [[], [("/x_info", audio_info(8, "mp3"))], [("/a", audio_info(8)), ("/b", audio_info(4))]],
    ids=["no info", "compressed", "two infos of others"],
)
def test_sound_of_unknown_format_is_counted(
    tmp_path: Path, driver: LogDriver, infos: list[tuple[str, Any]]
) -> None:
    messages = [(topic, S, info) for topic, info in infos]
    ros2_mcap(tmp_path / "log", [*messages, ("/x", 2 * S, audio(bytes(8)))])
    assert play(driver) == []
    assert driver.ledger()["/x"]["messages"] == 1


def test_any_message_of_numbers_is_a_vector(tmp_path: Path, driver: LogDriver) -> None:
    mixed = T["unit_msgs/msg/Mixed"](
        header=header(S),
        on=True,
        xyz=np.float32([1, 2, 3]),
        what="it",
        point=T["geometry_msgs/msg/Point32"](x=4.0, y=5.0, z=6.0),
        since=T["builtin_interfaces/msg/Duration"](sec=1, nanosec=2),
    )
    names = T["unit_msgs/msg/Names"](names=["a", "b"])
    text = T["std_msgs/msg/String"](data="hello")
    tf = T["tf2_msgs/msg/TFMessage"](transforms=[])
    messages = [("/m", mixed), ("/n", names), ("/s", text), ("/tf", tf)]
    ros2_mcap(tmp_path / "log", [(topic, S, message) for topic, message in messages])
    (sample,) = play(driver)
    assert (sample.stream.name, sample.stream.modality) == ("m", "mixed")
    assert sample.stream.channels == (
        "on", "xyz[0]", "xyz[1]", "xyz[2]", "point.x", "point.y", "point.z",
    )  # fmt: skip
    assert sample.data.tolist() == [[1, 1, 2, 3, 4, 5, 6]]
    assert {topic: c["messages"] for topic, c in driver.ledger().items()} == {
        "/m": 1, "/n": 1, "/s": 1, "/tf": 1,
    }  # fmt: skip


def test_what_is_not_finite_or_changes_shape_is_bad_data(tmp_path: Path, driver: LogDriver) -> None:
    def temperature(value: float) -> Any:
        return T["sensor_msgs/msg/Temperature"](header=header(S), temperature=value, variance=0.0)

    small, large = np.zeros((2, 2), np.uint8), np.zeros((3, 3), np.uint8)
    ros2_mcap(
        tmp_path / "log",
        [
            ("/a", 1 * S, temperature(20.0)),
            ("/a", 2 * S, temperature(float("nan"))),
            ("/a", 3 * S, temperature(22.0)),
            ("/b", 4 * S, image(S, "mono8", small)),
            ("/b", 5 * S, image(S, "mono8", large)),
            ("/b", 6 * S, image(S, "mono8", small)),
        ],
    )
    driver.connect()
    found, errors = [], []
    while True:
        try:
            found += [(s.stream.name, s.arrival_ns // S) for s in driver.read(1)]
        except BadData as exc:
            errors.append(str(exc))
        except EndOfStream:
            break
    assert found == [("a", 1), ("a", 3), ("b", 4), ("b", 6)]
    assert len(errors) == 2
    assert "a" in errors[0]
    assert "b" in errors[1]


def numbered(count: int) -> list[tuple[str, int, Any]]:
    """Messages whose order of writing is not that of their log times."""
    times = [S * (1 + i + (3 if i % 4 == 0 else 0)) for i in range(count)]
    return [
        ("/n", t, T["sensor_msgs/msg/Temperature"](header(0), temperature=float(t), variance=0.0))
        for t in times
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_size": 256},
        {"chunk_size": 256, "compression": CompressionType.NONE},
        {"chunk_size": 256, "compression": CompressionType.LZ4},
        {"use_chunking": False},
        {"chunk_size": 256, "use_statistics": False},
        {"chunk_size": 256, "repeat_channels": False, "repeat_schemas": False},
        {"chunk_size": 256, "use_summary_offsets": False},
    ],
    ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()),
)
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_every_kind_of_mcap_is_sorted_and_survives_a_cut(
    tmp_path: Path, driver: LogDriver, options: dict[str, Any], fraction: float
) -> None:
    path = ros2_mcap(tmp_path / "log", numbered(40), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    found = [s.arrival_ns for s in play(driver)]
    assert driver.complete == (fraction == 1.0)
    assert driver.ledger()["/n"]["messages"] == len(found)
    assert found == sorted(found)
    written = [t for _, t, _ in numbered(40)]
    if fraction == 1.0:
        assert found == sorted(written)
    else:
        assert 3 < len(found) < 40
        assert found == sorted(written[: len(found)])


def test_foxglove_messages_of_others(tmp_path: Path, driver: LogDriver) -> None:
    context = foxglove.Context()
    pixels = np.arange(6, dtype=np.uint16).reshape(2, 3)
    sound = np.arange(10, dtype="<i2")
    path = tmp_path / "log"
    with foxglove.open_mcap(path, context=context):
        depth = foxglove.channels.RawImageChannel("/depth", context=context)
        mic = foxglove.channels.RawAudioChannel("/mic", context=context)
        log = foxglove.channels.LogChannel("/log", context=context)
        for i in range(1, 5):
            depth.log(
                fox.RawImage(
                    timestamp=fox.Timestamp(i, 5), width=3, height=2, encoding="16UC1", step=6,
                    data=pixels.tobytes(),
                ),
                log_time=i * S + 10,
            )  # fmt: skip
        mic.log(
            fox.RawAudio(
                timestamp=fox.Timestamp(2), data=sound.tobytes(), format="pcm-s16",
                sample_rate=10, number_of_channels=1,
            ),
            log_time=3 * S,
        )  # fmt: skip
        log.log(fox.Log(message="hello"), log_time=S)
    samples = play(driver)
    assert driver.complete
    assert {s.topic: (s.modality, s.rate_hz) for s in driver.streams} == {
        "/depth": ("depth", 1.0),
        "/mic": ("audio", 10.0),
    }
    assert driver.ledger()["/log"]["messages"] == 1
    mic_sample = next(s for s in samples if s.stream.modality == "audio")
    assert mic_sample.t_ns.tolist() == [2 * S + i * S // 10 for i in range(10)]
    np.testing.assert_array_equal(mic_sample.data[:, 0], sound)
    depths = [s for s in samples if s.stream.modality == "depth"]
    assert [s.t_ns[0] for s in depths] == [i * S + 5 for i in range(1, 5)]
    np.testing.assert_array_equal(depths[0].data[0], pixels)


PLAIN = "t,ax,ay,az,gx,gy,gz\n"


def test_plain_csv(tmp_path: Path, driver: LogDriver) -> None:
    (tmp_path / "log").write_text(PLAIN + "0.1,1,2,3,4,5,6\n1700000000.123456789,6,5,4,3,2,1\n")
    first, second = play(driver)
    assert first.data.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert (first.t_ns[0], second.t_ns[0]) == (100_000_000, 1_700_000_000_123_456_789)
    assert driver.complete


@pytest.mark.parametrize("end", ["0.3,1,2", "0.3,1,2,3,4,5"])
def test_csv_that_was_cut_off(tmp_path: Path, driver: LogDriver, end: str) -> None:
    rows = "".join(f"{i / 10},1,2,3,4,5,6\n" for i in range(3))
    (tmp_path / "log").write_text(PLAIN + rows + end)
    assert len(play(driver)) == 3
    assert not driver.complete
    assert driver.duration_s == pytest.approx(0.2)


def test_a_bad_row_of_csv_costs_only_itself(tmp_path: Path, driver: LogDriver) -> None:
    rows = "0,1,2,3,4,5,6\n0.1,1,2,x,4,5,6\n\n0.2,1,2\n0.3,1,2,3,4,5,6\n"
    (tmp_path / "log").write_text(PLAIN + rows)
    driver.connect()
    found, errors = [], []
    while True:
        try:
            found += [s.arrival_ns for s in driver.read(1)]
        except BadData as exc:
            errors.append(str(exc))
        except EndOfStream:
            break
    assert found == [0, 300_000_000]
    assert len(errors) == 2
    assert "row '0.1,1,2,x,4,5,6' is not numbers" in errors[0]
    assert driver.ledger()["imu"]["messages"] == 4


def test_csv_units_are_read_from_the_header(tmp_path: Path, driver: LogDriver) -> None:
    names = "Time (ms),Accelerometer X (m/s^2),Accelerometer Y (m/s^2),Accelerometer Z (m/s^2)"
    gyroscope = "Gyroscope X (rad/s),Gyroscope Y (rad/s),Gyroscope Z (rad/s)"
    (tmp_path / "log").write_text(f"{names},{gyroscope},Note\r\n1500,1,2,3,4,5,6,hello\r\n")
    (sample,) = play(driver)
    assert sample.t_ns[0] == 1_500_000_000
    assert sample.data.tolist() == [[1, 2, 3, 4, 5, 6]]
