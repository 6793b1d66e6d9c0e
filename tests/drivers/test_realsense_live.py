"""The RealSense driver on the real SDK's own software device, live, and plugged in and out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.clock import Clock, SystemClock
from agent.contracts import Driver
from agent.errors import DeviceLost, DeviceNotFound, ReadTimeout
from drivers._realsense import device as device_module
from drivers.realsense import RealSenseDriver
from tests.contracts.driver_contract import LiveDriverContract, by_stream, read_all
from tests.fakes.realsense_driver import MS, build, device_ms

rs = pytest.importorskip("pyrealsense2", reason="pyrealsense2 is not installed")
from tests.fakes.realsense_device import (  # noqa: E402  # it needs the SDK
    BASELINE_M,
    DeviceList,
    RealSense,
    events,
)


class Player:
    """Gives a camera's events in true time, from a thread, until it is stopped."""

    def __init__(self, camera: RealSense, seconds: float = 60.0, **fields: Any) -> None:
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
