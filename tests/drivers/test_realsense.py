"""The RealSense driver on recordings made with the real SDK."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.clock import Clock, ManualClock
from agent.contracts import Driver
from agent.errors import DeviceBusy, DeviceNotFound, EndOfStream, ReadTimeout
from agent.types import Sample, StreamInfo
from drivers._realsense.device import open_error
from drivers._realsense.frames import Aligner
from drivers.realsense import PLUGIN, RealSenseConfig, VideoMode
from tests.contracts.driver_contract import START_NS, DriverContract, by_stream, read_all
from tests.fakes.realsense_driver import MS, build, device_ms

rs = pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed")
from tests.fakes.realsense_device import (  # noqa: E402  # it needs the SDK
    BASELINE_M,
    Event,
    RealSense,
    events,
)

SECONDS = 1.0


@pytest.fixture(scope="module")
def given_events() -> list[Event]:
    return list(events(SECONDS))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, given_events: list[Event]) -> Path:
    path = tmp_path_factory.mktemp("realsense") / "camera.db3"
    RealSense().record(path, given_events)
    return path


def play(path: Path, **fields: Any) -> tuple[dict[str, StreamInfo], dict[str, list[Sample]]]:
    """Streams and samples of a whole recording, unpaced."""
    driver = build(playback=path, **{"speed": 0, **fields})
    driver.connect()
    try:
        samples = list(read_all(driver, 100_000))
    finally:
        driver.disconnect()
    return {info.name: info for info in driver.streams}, by_stream(samples)


def data_of(blocks: list[Sample]) -> np.ndarray:
    return np.concatenate([sample.data for sample in blocks])


def given_of(given_events: list[Event], kind: str) -> np.ndarray:
    return np.stack([event.data for event in given_events if event.kind == kind])


class TestPlayback(DriverContract):
    own_time = False

    @pytest.fixture
    def make_driver(self, recording: Path, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(clock, playback=recording)

    @pytest.fixture
    def broken(
        self, recording: Path, clock: Clock, tmp_path: Path
    ) -> tuple[Driver, Callable[[], Any]]:
        path = tmp_path / "late.db3"
        return build(clock, playback=path), lambda: path.write_bytes(recording.read_bytes())


class TestRecording:
    def test_depth_and_colour_come_back_bit_for_bit(
        self, recording: Path, given_events: list[Event]
    ) -> None:
        streams, got = play(recording)
        assert (streams["cam_depth"].dtype, streams["cam_depth"].unit) == ("uint16", "mm")
        np.testing.assert_array_equal(data_of(got["cam_depth"]), given_of(given_events, "depth"))
        np.testing.assert_array_equal(data_of(got["cam_colour"]), given_of(given_events, "colour"))

    def test_every_reading_of_motion_is_given(
        self, recording: Path, given_events: list[Event]
    ) -> None:
        _, got = play(recording, raw_imu=True)
        gyro, accel = given_of(given_events, "gyro"), given_of(given_events, "accel")
        np.testing.assert_array_equal(data_of(got["cam_gyro"]), gyro)
        np.testing.assert_array_equal(data_of(got["cam_accel"]), accel)
        imu = data_of(got["cam_imu"])
        np.testing.assert_array_equal(imu[:, 3:], gyro)
        # The acceleration counts seconds, so that at any moment between two readings it is known.
        t_s = np.array([(e.t_ms - 5000) / 1000 for e in given_events if e.kind == "gyro"])
        np.testing.assert_allclose(imu[:, 0], np.minimum(t_s, accel[-1, 0]), atol=1e-6)
        assert not any(sample.lost for blocks in got.values() for sample in blocks)

    def test_stamps_are_the_devices_with_their_domain(
        self, recording: Path, given_events: list[Event]
    ) -> None:
        streams, got = play(recording)
        for name, kind in (("cam_depth", "depth"), ("cam_colour", "colour"), ("cam_imu", "gyro")):
            assert streams[name].clock_domain == "hardware_clock"
            stamps = [e.t_ms for e in given_events if e.kind == kind]
            np.testing.assert_allclose(device_ms(got[name]), stamps, atol=1e-3)
            placed = np.concatenate([s.t_ns for s in got[name]]) - START_NS
            np.testing.assert_allclose(placed / MS, np.array(stamps) - 5000, atol=1e-3)

    @pytest.mark.parametrize("domain", ["global_time", "system_time"])
    def test_another_domain_is_told(self, tmp_path: Path, domain: str) -> None:
        camera = RealSense(kinds=("depth",), domain=getattr(rs.timestamp_domain, domain))
        camera.record(tmp_path / "a.db3", events(0.2, kinds=("depth",)))
        streams, _ = play(tmp_path / "a.db3")
        assert {info.clock_domain for info in streams.values()} == {domain}

    def test_lens_and_place_are_told(self, recording: Path) -> None:
        streams, _ = play(recording)
        depth, colour = streams["cam_depth"], streams["cam_colour"]
        assert depth.intrinsics is not None
        assert depth.extrinsics is None
        assert (depth.intrinsics.width, depth.intrinsics.height) == (64, 48)
        assert (depth.intrinsics.cx, depth.intrinsics.cy) == (33, 24)
        assert colour.intrinsics is not None
        assert colour.intrinsics.distortion == "inverse_brown_conrady"
        assert colour.intrinsics.coefficients == pytest.approx((0.1, -0.2, 0, 0, 0.05))
        assert colour.extrinsics is not None
        assert colour.extrinsics.parent == depth.frame_id
        assert colour.extrinsics.translation_mm == pytest.approx((BASELINE_M * 1000, 0, 0))

    def test_paced_it_takes_its_own_time(self, recording: Path) -> None:
        clock = ManualClock(START_NS)
        driver = build(clock, playback=recording, speed=2.0)
        driver.connect()
        assert list(read_all(driver, 100_000))
        assert (clock.now_ns() - START_NS) / 1e9 == pytest.approx(SECONDS / 2, abs=0.01)
        driver.disconnect()

    def test_only_the_streams_asked_for(self, recording: Path) -> None:
        streams, got = play(recording, streams=("colour",))
        assert list(streams) == ["cam_colour"]
        assert len(data_of(got["cam_colour"])) == 30

    @pytest.mark.parametrize("units", [0.001, 0.0001, 0.00025, 0.002])
    def test_depth_is_in_millimetres_whatever_the_unit(self, tmp_path: Path, units: float) -> None:
        given = list(events(0.1, kinds=("depth",)))
        camera = RealSense(kinds=("depth",), units=units)
        camera.record(tmp_path / "a.db3", given)
        _, got = play(tmp_path / "a.db3")
        mm = np.rint(given_of(given, "depth") * (units * 1000))
        mm[mm > 65535] = 0
        np.testing.assert_array_equal(data_of(got["cam_depth"]), mm.astype(np.uint16))

    def test_disconnect_in_the_middle_does_not_hang(self, recording: Path) -> None:
        driver = build(playback=recording, queue_s=0.01)
        driver.connect()
        driver.read(1.0)
        stopper = threading.Thread(target=driver.disconnect)
        stopper.start()
        stopper.join(10)
        assert not stopper.is_alive()


class TestAlignment:
    def test_depth_is_moved_to_the_colour_camera_and_filled(self, recording: Path) -> None:
        plain_streams, plain = play(recording)
        streams, moved = play(recording, align="colour")
        _, filled = play(recording, align="colour", hole_filling="nearest")
        assert streams["cam_depth"].intrinsics == plain_streams["cam_colour"].intrinsics
        assert streams["cam_depth"].frame_id == streams["cam_colour"].frame_id
        assert streams["cam_depth"].extrinsics is None
        holes = [int((data_of(got["cam_depth"]) == 0).sum()) for got in (moved, filled)]
        assert holes[1] < holes[0]
        np.testing.assert_array_equal(data_of(moved["cam_colour"]), data_of(plain["cam_colour"]))
        np.testing.assert_array_equal(device_ms(moved["cam_depth"]), device_ms(plain["cam_depth"]))

    def test_a_wall_is_seen_by_the_other_camera_where_geometry_says(self, tmp_path: Path) -> None:
        # A wall 0.3 m away. The colour camera is BASELINE_M to the right, and its picture's
        # centre 1 px: the wall moves by -fx * baseline / z + 1 px.
        wall = np.full((48, 64), 300, np.uint16)
        wall[:, :20] = 0
        given = [
            Event(1000.0, "depth", 1, wall),
            Event(1000.0, "colour", 1, np.zeros((48, 64, 3), np.uint8)),
        ]
        camera = RealSense(kinds=("depth", "colour"))
        camera.record(tmp_path / "a.db3", given)
        _, got = play(tmp_path / "a.db3", align="colour")
        row = data_of(got["cam_depth"])[0, 24]
        edge = 20 - 57.6 * BASELINE_M / 0.3 + 1
        assert np.flatnonzero(row)[0] == pytest.approx(edge, abs=1.0)
        assert set(row[row > 0]) == {300}

    def test_colour_is_moved_with_the_depth_of_its_moment(self, tmp_path: Path) -> None:
        # The wall is at 100 and 400 mm in turn, and each picture comes just before its depth:
        # with the one before it would be moved by 8 pixels and not by 1, or the other way.
        given = []
        for k in range(6):
            ramp = np.repeat(np.arange(64, dtype=np.uint8)[np.newaxis, :, np.newaxis], 48, 0)
            given.append(Event(1000 + 33.3 * k, "colour", k + 1, np.repeat(ramp, 3, 2)))
            depth = np.full((48, 64), (100, 400)[k % 2], np.uint16)
            given.append(Event(1000 + 33.3 * k + 1, "depth", k + 1, depth))
        camera = RealSense(kinds=("depth", "colour"))
        camera.record(tmp_path / "a.db3", given)
        _, got = play(tmp_path / "a.db3", align="depth")
        pictures = data_of(got["cam_colour"])
        assert len(pictures) == 6
        for k, picture in enumerate(pictures):
            shift = -57.6 * BASELINE_M / (0.1, 0.4)[k % 2] + 1
            assert picture[24, 30, 0] == pytest.approx(30 + shift, abs=1.0)

    def test_nothing_of_it_stays_after_disconnect(self, recording: Path) -> None:
        # It hands the SDK a callback: were that to hold it, no collector could free either.
        play(recording, align="colour")
        gc.collect()
        # By type and not isinstance, which asks proxies of other packages what they stand for.
        assert not [each for each in gc.get_objects() if type(each) is Aligner]


class TestRefusals:
    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(DeviceNotFound, match=r"none\.db3: there is no such file"):
            build(playback=tmp_path / "none.db3").connect()

    @pytest.mark.parametrize("name", ["a.db3", "a.bag"])
    @pytest.mark.parametrize("content", [b"", b"not a recording" * 100])
    def test_not_a_recording(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        driver = build(playback=path)
        with pytest.raises(DeviceNotFound, match=name) as caught:
            driver.connect()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("part", [0.3, 0.7, 0.95])
    def test_a_damaged_recording_is_refused_or_ends(
        self, recording: Path, tmp_path: Path, part: float
    ) -> None:
        path = tmp_path / "cut.db3"
        whole = recording.read_bytes()
        path.write_bytes(whole[: int(part * len(whole))])
        driver = build(playback=path, speed=0, open_timeout_s=1.0)
        try:
            driver.connect()
            ended = False
            for _ in range(2000):
                try:
                    driver.read(0.2)
                except EndOfStream:
                    ended = True
                    break
                except ReadTimeout:
                    continue
            assert ended
        except DeviceNotFound:
            pass  # the SDK cannot open it
        finally:
            driver.disconnect()

    def test_a_stream_that_it_lacks(self, tmp_path: Path) -> None:
        camera = RealSense(kinds=("depth",))
        camera.record(tmp_path / "a.db3", events(0.1, kinds=("depth",)))
        with pytest.raises(DeviceNotFound, match="has no color, but depth"):
            build(playback=tmp_path / "a.db3", streams=("depth", "colour")).connect()
        with pytest.raises(DeviceNotFound, match="align needs depth and colour"):
            build(playback=tmp_path / "a.db3", align="colour").connect()

    def test_another_mode_is_a_warning_or_where_strict_refused(
        self, recording: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        mode = VideoMode(width=640, rate_hz=30)
        asked = RealSenseConfig(depth=mode, playback=recording)
        driver = PLUGIN("cam", asked, ManualClock(START_NS))
        driver.connect()
        driver.disconnect()
        assert "depth: width: asked 640, got 64; it has 64x48 30 Hz" in caplog.text
        strict = msgspec.structs.replace(asked, strict=True)
        with pytest.raises(DeviceNotFound, match="width: asked 640, got 64"):
            PLUGIN("cam", strict, ManualClock(START_NS)).connect()

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"streams": ["depth"], "align": "colour"}, "align"),
            ({"streams": ["depth"], "raw_imu": True}, "raw_imu"),
            ({"playback": "a.db3", "emitter": False}, "emitter"),
            ({"hole_filling": "magic"}, "hole_filling"),
            ({"depth": {"width": 0}}, "depth.width"),
            ({"port": "usb"}, "port"),
        ],
    )
    def test_a_bad_config(self, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(msgspec.ValidationError, match=said):
            msgspec.convert(fields, RealSenseConfig, dec_hook=lambda kind, value: kind(value))

    @pytest.mark.parametrize(
        ("reason", "error", "said"),
        [
            (
                "failed to open usb interface: 0, error: RS2_USB_STATUS_ACCESS",
                DeviceNotFound,
                "udev",
            ),
            (
                "xioctl(VIDIOC_S_FMT) failed Last Error: Device or resource busy",
                DeviceBusy,
                "in use",
            ),
            ("RS2_USB_STATUS_BUSY", DeviceBusy, "in use"),
            ("Couldn't\nresolve requests", DeviceNotFound, "Couldn't resolve"),
        ],
    )
    def test_what_the_sdk_says_is_told_with_what_to_do(
        self, reason: str, error: type, said: str
    ) -> None:
        told = open_error("realsense cam", RuntimeError(reason))
        assert type(told) is error
        assert said in str(told)
        assert "\n" not in str(told)
