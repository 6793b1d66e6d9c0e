"""The RealSense driver: the real SDK, on its own software device and on recordings made with it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Clock, ManualClock, SystemClock
from agent.contracts import Driver
from agent.errors import DeviceBusy, DeviceLost, DeviceNotFound, EndOfStream, ReadTimeout
from agent.types import Sample, StreamInfo
from drivers._realsense import device as device_module
from drivers._realsense.device import open_error
from drivers._realsense.frames import Aligner, Millimetres
from drivers._realsense.imu import MAX_GAP_NS, ImuMerger, Reading
from drivers.realsense import PLUGIN, RealSenseConfig, RealSenseDriver, VideoMode
from tests.contracts.driver_contract import (
    START_NS,
    DriverContract,
    LiveDriverContract,
    by_stream,
    read_all,
)

rs = pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed")
from tests.fakes.realsense_device import (  # noqa: E402  # it needs the SDK
    BASELINE_M,
    DeviceList,
    Event,
    RealSense,
    events,
)

MS = 1_000_000
SECONDS = 1.0


@pytest.fixture(scope="module")
def given_events() -> list[Event]:
    return list(events(SECONDS))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, given_events: list[Event]) -> Path:
    path = tmp_path_factory.mktemp("realsense") / "camera.db3"
    RealSense().record(path, given_events)
    return path


def build(clock: Clock | None = None, **fields: Any) -> RealSenseDriver:
    return PLUGIN("cam", RealSenseConfig(**fields), clock or ManualClock(START_NS))


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


def device_ms(blocks: list[Sample]) -> np.ndarray:
    stamps = [s.device_t_ns for s in blocks if s.device_t_ns is not None]
    assert len(stamps) == len(blocks)
    return np.concatenate(stamps) / MS


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


class Player:
    """Gives a camera's events in true time, from a thread, until it is stopped."""

    def __init__(self, camera: RealSense, seconds: float = 60.0, **fields: Any) -> None:
        self.truth: dict[tuple[str, int], int] = {}
        self._clock = SystemClock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(camera, seconds, fields))
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, camera: RealSense, seconds: float, fields: dict[str, Any]) -> None:
        start_ns = self._clock.now_ns()
        for event in events(seconds, camera.size, kinds=camera.kinds, flat=True, **fields):
            due_ns = start_ns + round((event.t_ms - 5000) * MS)
            if not self._clock.wait_until_ns(due_ns, self._stop) or self._stop.is_set():
                return
            camera.give(event)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> DeviceList:
    """What is connected: rs.context knows no software device."""
    there = DeviceList([])
    monkeypatch.setattr(rs, "context", lambda: there)
    return there


@pytest.fixture
def camera(plugged: DeviceList) -> Iterator[RealSense]:
    camera = RealSense()
    plugged.cameras.append(camera)
    player = Player(camera)
    yield camera
    player.stop()


class TestLive(LiveDriverContract):
    max_reads = 60

    @pytest.fixture
    def make_driver(self, camera: RealSense, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(clock)

    @pytest.fixture
    def broken(
        self, plugged: DeviceList, camera: RealSense, clock: Clock
    ) -> tuple[Driver, Callable[[], Any]]:
        plugged.cameras.clear()
        return build(clock), lambda: plugged.cameras.append(camera)

    def test_every_frame_is_given_with_its_stamp(self, camera: RealSense) -> None:
        driver = build(SystemClock(), raw_imu=True)
        driver.connect()
        got = by_stream(list(read_all(driver, 200)))
        driver.disconnect()
        for name, step_ms in (("cam_gyro", 5.0), ("cam_accel", 10.0), ("cam_imu", 5.0)):
            np.testing.assert_allclose(np.diff(device_ms(got[name])), step_ms, atol=1e-3)
        for blocks in got.values():
            assert not any(sample.lost for sample in blocks)
            assert blocks[0].stream.clock == "device"
            assert blocks[0].stream.clock_domain == "hardware_clock"

    def test_motion_has_its_place(self, camera: RealSense) -> None:
        driver = build(SystemClock())
        driver.connect()
        imu = {info.name: info for info in driver.streams}["cam_imu"]
        driver.disconnect()
        assert imu.extrinsics is not None
        assert imu.extrinsics.parent == "cam_depth"
        # librealsense is given the columns (0, 1, 0), (-1, 0, 0), (0, 0, 1).
        assert imu.extrinsics.rotation == (0, -1, 0, 1, 0, 0, 0, 0, 1)
        assert imu.extrinsics.translation_mm == pytest.approx((BASELINE_M * 1000, 0, 0))

    def test_what_is_not_read_in_time_is_lost_and_counted(self, camera: RealSense) -> None:
        driver = build(SystemClock(), queue_s=0.001)  # 16 frames, of 360 a second
        driver.connect()
        time.sleep(0.5)
        samples = list(read_all(driver, 30))
        driver.disconnect()
        imu = by_stream(samples)["cam_imu"]
        assert sum(sample.lost for sample in imu) > 50
        stamps = device_ms(imu)
        ticks = np.concatenate([s.seq + np.arange(len(s)) for s in imu])
        # Numbers with the lost ones counted run as the stamps do.
        np.testing.assert_array_equal(np.rint(np.diff(stamps) / 5), np.diff(ticks))


def read_on(driver: Driver, timeout_s: float) -> None:
    """Read until it raises; a driver that never does is caught by the suite's own timeout."""
    for _ in range(10_000):
        driver.read(timeout_s)


class TestPlugging:
    def test_an_unplugged_camera_is_lost_and_comes_back(self, plugged: DeviceList) -> None:
        first = RealSense()
        plugged.cameras.append(first)
        player = Player(first)
        driver = build(SystemClock(), serial="f000001")
        driver.connect()
        assert driver.read(1.0)
        streams = list(driver.streams)
        player.stop()
        plugged.cameras.clear()
        with pytest.raises(DeviceLost, match="serial:f000001 is no longer connected"):
            list(read_all(driver, 100))
        driver.disconnect()
        with pytest.raises(DeviceNotFound, match="no such device"):
            driver.connect()
        second = RealSense()
        plugged.cameras.append(second)
        player = Player(second)
        driver.connect()
        assert driver.read(1.0)
        assert list(driver.streams) == streams
        driver.disconnect()
        player.stop()

    def test_a_silent_camera_that_is_there_is_a_timeout(self, plugged: DeviceList) -> None:
        camera = RealSense()
        plugged.cameras.append(camera)
        player = Player(camera)
        driver = build(SystemClock())
        driver.connect()
        player.stop()
        with pytest.raises(ReadTimeout):
            read_on(driver, 0.1)
        driver.disconnect()

    def test_one_silent_stream_among_others_is_a_lost_device(self, plugged: DeviceList) -> None:
        camera = RealSense()
        plugged.cameras.append(camera)
        player = Player(camera, seconds=0.6)
        driver = build(SystemClock(), silent_s=0.3)
        driver.connect()
        player.stop()
        camera.kinds = ("depth", "accel", "gyro")
        player = Player(camera)
        with pytest.raises(DeviceLost, match="color is silent"):
            read_on(driver, 1.0)
        driver.disconnect()
        player.stop()

    def test_a_camera_that_gives_nothing_is_refused(self, plugged: DeviceList) -> None:
        plugged.cameras.append(RealSense())
        with pytest.raises(DeviceNotFound, match="gives nothing of depth, color, accel, gyro"):
            build(SystemClock(), open_timeout_s=0.2).connect()

    def test_of_several_one_has_to_be_named(self, plugged: DeviceList) -> None:
        plugged.cameras += [RealSense("a1"), RealSense("b2")]
        with pytest.raises(DeviceNotFound, match="several: serial:a1, serial:b2; set serial"):
            build(SystemClock()).connect()
        with pytest.raises(DeviceNotFound, match="no such device; there are: serial:a1, serial:b2"):
            build(SystemClock(), serial="c3").connect()
        player = Player(plugged.cameras[1])
        driver = build(SystemClock(), serial="b2")
        driver.connect()
        driver.disconnect()
        player.stop()

    def test_the_projector_is_set_within_its_range_and_read_back(
        self, plugged: DeviceList, caplog: pytest.LogCaptureFixture
    ) -> None:
        camera = RealSense()
        sensor = camera.device.query_sensors()[0]
        for option, most, now in (
            (rs.option.emitter_enabled, 1, 1),
            (rs.option.laser_power, 360, 150),
            (rs.option.global_time_enabled, 1, 1),
        ):
            span = rs.option_range()
            span.min, span.max, span.default, span.step = 0, most, now, 1
            camera.add_option("depth", option, span)
        plugged.cameras.append(camera)
        player = Player(camera)
        driver = build(SystemClock(), emitter=False, laser_power_mw=500)
        driver.connect()
        driver.disconnect()
        assert sensor.get_option(rs.option.emitter_enabled) == 0
        assert sensor.get_option(rs.option.global_time_enabled) == 0
        assert "laser_power_mw: asked 500, got 360" in caplog.text
        with pytest.raises(DeviceNotFound, match="laser_power_mw: asked 500, got 360"):
            build(SystemClock(), laser_power_mw=500, strict=True).connect()
        player.stop()

    def test_what_is_connected_is_listed(self, plugged: DeviceList) -> None:
        plugged.cameras += [RealSense("a1"), RealSense("b2")]
        found = RealSenseDriver.discover()
        assert [device.identity for device in found] == ["serial:a1", "serial:b2"]
        assert found[0].settings == {"serial": "a1"}
        assert found[0].name == "Intel RealSense D435I"
        assert {"USB 3.2", "depth 64x48 30 Hz", "gyro 200 Hz"} <= set(found[0].modes)
        assert not found[0].problem

    def test_one_that_may_not_be_read_is_listed_with_what_to_do(
        self, plugged: DeviceList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for port, product in (("2-1", "Intel(R) RealSense(TM) Depth Camera 435i"), ("2-2", "Hub")):
            (tmp_path / port).mkdir()
            for name, text in (("idVendor", "8086"), ("product", product), ("serial", "77")):
                (tmp_path / port / name).write_text(text + "\n")
        monkeypatch.setattr(device_module, "SYS_USB", tmp_path)
        (device,) = RealSenseDriver.discover()
        assert (device.identity, device.by_port) == ("by-path:usb-2-1", True)
        assert "sudo usermod -aG plugdev" in device.problem
        with pytest.raises(DeviceNotFound, match=r"on the USB bus.*plugdev"):
            build(SystemClock()).connect()

    def test_without_any_device_nothing_is_listed(self) -> None:
        assert [d for d in RealSenseDriver.discover() if not d.problem] == []


def reading(t_ms: float, *values: float, lost: int = 0) -> Reading:
    return Reading(round(t_ms * MS), round(t_ms * MS), np.array(values, np.float32), lost)


class TestMerging:
    @given(
        accel=st.sets(st.integers(0, 400), min_size=1),
        gyro=st.sets(st.integers(0, 400)),
        late=st.integers(0, 60),
    )
    def test_each_gyroscope_reading_is_told_once_or_counted(
        self, accel: set[int], gyro: set[int], late: int
    ) -> None:
        merger = ImuMerger()
        told: list[Reading] = []
        queue = [(t + late, "accel", t) for t in accel] + [(t, "gyro", t) for t in gyro]
        for _, kind, t in sorted(queue):
            if kind == "accel":
                told += merger.add_accel(reading(t, t, 0, 0))
            else:
                told += merger.add_gyro(reading(t, 0, t, 0))
        told += merger.flush()
        stamps = [r.device_ns // MS for r in told]
        assert stamps == sorted(set(stamps))
        assert set(stamps) <= gyro
        missing = sorted(gyro - set(stamps))
        assert sum(r.lost for r in told) == len([t for t in missing if t < max(stamps, default=0)])
        first, last = min(accel), max(accel)
        for r in told:
            t = r.device_ns / MS
            assert r.values[4] == t
            near = [a for a in accel if abs(a - t) <= MAX_GAP_NS / MS]
            assert near
            if first <= t <= last and len(near) == len(accel) and late == 0:
                assert r.values[0] == pytest.approx(t, abs=1e-3)

    def test_a_silent_accelerometer_costs_readings_and_no_memory(self) -> None:
        merger = ImuMerger()
        told = merger.add_accel(reading(0, 1, 2, 3))
        for t in range(0, 5000, 5):
            told += merger.add_gyro(reading(t, 0, 0, 0))
        assert [r.device_ns // MS for r in told] == list(range(0, 251, 5))
        told = merger.add_accel(reading(5000, 4, 5, 6))
        assert [r.device_ns // MS for r in told] == list(range(4750, 5000, 5))
        assert told[0].lost == (4750 - 255) // 5

    def test_a_clock_that_is_set_back_does_not_mix_times(self) -> None:
        merger = ImuMerger()
        merger.add_accel(reading(9000, 9, 9, 9))
        merger.add_accel(reading(10, 1, 1, 1))
        merger.add_gyro(reading(15, 0, 0, 0))
        (told,) = merger.add_accel(reading(20, 3, 3, 3))
        assert told.values[0] == 2


@given(units=st.sampled_from([0.001, 0.0001, 0.00025, 0.0005, 0.002]), raw=st.integers(0, 65535))
def test_a_depth_is_its_count_times_the_unit(units: float, raw: int) -> None:
    stored = float(np.float32(units))  # as the SDK tells it
    (got,) = Millimetres()(np.array([raw], np.uint16), stored)
    mm = round(raw * units * 1000)
    assert got == (0 if mm > 65535 else pytest.approx(mm, abs=0 if units == 0.001 else 1))
