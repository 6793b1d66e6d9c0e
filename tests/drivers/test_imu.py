"""The IMU driver: real pyserial on a real pseudo-terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.clock import Clock, ManualClock, SystemClock
from agent.contracts import Driver
from agent.errors import (
    BadData,
    ConfigError,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    ReadTimeout,
)
from agent.types import Sample
from drivers import imu
from drivers._serial_ports import open_port
from drivers.imu import PLUGIN, ImuConfig, ImuDriver
from tests.contracts.driver_contract import START_NS, LiveDriverContract, read_all
from tests.fakes.imu_messages import MESSAGES, expected, rvc, xsens
from tests.fakes.serial_device import SerialDevice

serial = pytest.importorskip("serial", reason="needs pip install 'sensebind[imu]'")

PROTOCOLS = sorted(MESSAGES)
MS = 1_000_000


def build(
    port: object, protocol: str = "bno08x_rvc", clock: Clock | None = None, **fields: Any
) -> ImuDriver:
    text = MESSAGES[protocol][1]
    config = msgspec.convert(
        {"port": str(port), "protocol": protocol, "text": text, **fields}, ImuConfig
    )
    return PLUGIN("imu", config, clock or SystemClock())


Plug = Callable[..., SerialDevice]


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    """Plugs a device in; it is unplugged after the test."""
    devices: list[SerialDevice] = []

    def plug(message: Callable[[int], bytes] = rvc, rate_hz: float = 200) -> SerialDevice:
        device = SerialDevice(tmp_path / f"tty{len(devices)}", message, rate_hz)
        device.plug()
        devices.append(device)
        return device

    yield plug
    for device in devices:
        device.unplug()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """(path, descriptor to write what the driver is to read) of a line with nobody on it yet."""
    master, slave = os.openpty()
    yield Path(os.ttyname(slave)), master
    os.close(slave)
    os.close(master)


def connected(driver: ImuDriver, fd: int, first: bytes) -> list[Sample]:
    """Connect, with `first` sent once the port is open, and what it holds."""

    def open_and_send(*args: Any) -> Any:
        port = open_port(*args)
        os.write(fd, first)
        return port

    with pytest.MonkeyPatch.context() as patch:
        # To open it throws away what is there, so the moment can be hit no other way.
        patch.setattr(imu, "open_port", open_and_send)
        driver.connect()
    return list(driver.read(1))


class TestImu(LiveDriverContract):
    max_reads = 300

    @pytest.fixture
    def device(self, plug: Plug) -> SerialDevice:
        return plug(rate_hz=1000)

    @pytest.fixture
    def make_driver(self, device: SerialDevice, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(device.path, clock=clock, rate_hz=1000)

    @pytest.fixture
    def unplug(self, device: SerialDevice) -> Callable[[], Any]:
        return device.unplug

    @pytest.fixture
    def broken(self, tmp_path: Path, clock: Clock) -> Iterator[tuple[Driver, Callable[[], Any]]]:
        device = SerialDevice(tmp_path / "later", rvc, 200)
        yield build(device.path, clock=clock, rate_hz=200), device.plug
        device.unplug()


class TestWithOrientation(TestImu):
    @pytest.fixture
    def device(self, plug: Plug) -> SerialDevice:
        return plug(xsens, rate_hz=1000)

    @pytest.fixture
    def make_driver(self, device: SerialDevice, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(device.path, "xsens", clock, rate_hz=1000, orientation=True)


class TestReadings:
    @pytest.mark.parametrize("rate_hz", [100, 1000])
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_each_protocol_comes_through(self, plug: Plug, protocol: str, rate_hz: int) -> None:
        clock = SystemClock()
        device = plug(MESSAGES[protocol][0], rate_hz)
        driver = build(device.path, protocol, clock, rate_hz=rate_hz)
        driver.connect()
        samples = list(read_all(driver, 30))
        driver.disconnect()
        data = np.concatenate([s.data for s in samples])
        assert sum(s.lost for s in samples) == 0
        # The device has been sending before the driver came: find where in its round of 50.
        wanted = np.array([expected(protocol, n) for n in range(50 + len(data))], np.float32)
        errors = [np.abs(wanted[n : n + len(data)] - data).max() for n in range(50)]
        assert min(errors) < 0.003

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_the_stream_says_what_it_is(self, plug: Plug, protocol: str) -> None:
        driver = build(plug(MESSAGES[protocol][0]).path, protocol, rate_hz=200)
        assert driver.streams == ()
        driver.connect()
        (info,) = driver.streams
        driver.disconnect()
        rvc_like = protocol == "bno08x_rvc"
        assert info.modality == ("motion" if rvc_like else "imu")
        assert info.unit == ("rad,m/s^2" if rvc_like else "m/s^2,rad/s")
        assert (info.name, info.dtype, info.shape, info.rate_hz) == ("imu", "float32", (6,), 200)
        assert info.clock == ("device" if protocol in ("xsens", "vectornav", "csv") else "host")


class TestTime:
    def test_several_in_one_read_are_spaced_and_end_at_arrival(
        self, line: tuple[Path, int]
    ) -> None:
        path, fd = line
        clock = ManualClock(START_NS)
        driver = build(path, clock=clock)
        (sample,) = connected(driver, fd, b"".join(map(rvc, range(5))))
        assert sample.arrival_ns == START_NS
        assert list(START_NS - sample.t_ns) == [40 * MS, 30 * MS, 20 * MS, 10 * MS, 0]
        clock.advance_to_ns(START_NS + 15 * MS)
        os.write(fd, rvc(5) + rvc(6) + rvc(7))
        (sample,) = driver.read(1)
        driver.disconnect()
        # Never before what has been given already.
        assert list(sample.t_ns - START_NS) == [0, 5 * MS, 15 * MS]

    def test_the_clock_of_the_device_goes_on_over_its_wrap(self, line: tuple[Path, int]) -> None:
        path, fd = line
        first = 2**32 // 100 - 2  # 100 counts of 0.1 ms a tick
        driver = build(path, "xsens")
        (sample,) = connected(driver, fd, b"".join(xsens(first + n) for n in range(6)))
        driver.disconnect()
        assert sample.device_t_ns is not None
        assert list(np.diff(sample.device_t_ns)) == [10 * MS] * 5


class TestLost:
    def test_numbered_messages_tell_what_is_missing(self, line: tuple[Path, int]) -> None:
        path, fd = line
        clock = ManualClock(START_NS)
        driver = build(path, clock=clock)
        broken = bytearray(rvc(2))
        broken[7] ^= 1
        sent = rvc(254) + rvc(255) + rvc(256) + rvc(259) + rvc(260)
        before, after = connected(driver, fd, sent)
        assert (before.seq, before.lost, len(before)) == (0, 0, 3)
        assert (after.seq, after.lost, len(after)) == (5, 2, 2)
        assert list(START_NS - before.t_ns) == [60 * MS, 50 * MS, 40 * MS]
        os.write(fd, rvc(261) + bytes(broken) + b"\xaa\xaanoise" + rvc(263))
        one, two = driver.read(1)
        driver.disconnect()
        assert (one.seq, one.lost, two.seq, two.lost) == (7, 0, 9, 1)

    def test_a_device_that_starts_again_has_lost_nothing_known(
        self, line: tuple[Path, int]
    ) -> None:
        path, fd = line
        driver = build(path, "json")
        message = MESSAGES["json"][0]
        samples = connected(driver, fd, message(70_000) + message(70_001) + message(0) + message(1))
        driver.disconnect()
        assert [(s.seq, s.lost, len(s)) for s in samples] == [(0, 0, 4)]

    def test_a_value_that_cannot_be_is_a_lost_reading(self, line: tuple[Path, int]) -> None:
        path, fd = line
        driver = build(path, "csv", text=None)
        first, second = connected(
            driver, fd, b"1,2,3,4,5,6\n1,nan,3,4,5,6\n1e40,2,3,4,5,6\n6,5,4,3,2,1\n"
        )
        driver.disconnect()
        assert (first.seq, len(first), second.seq, second.lost) == (0, 1, 3, 2)
        assert list(second.data[0]) == [6, 5, 4, 3, 2, 1]

    def test_half_a_message_is_kept_for_the_next_read(self, line: tuple[Path, int]) -> None:
        path, fd = line
        driver = build(path)
        connected(driver, fd, rvc(0) + rvc(1)[:9])
        with pytest.raises(ReadTimeout):
            driver.read(0.01)
        os.write(fd, rvc(1)[9:])
        (sample,) = driver.read(1)
        driver.disconnect()
        assert (sample.seq, sample.lost) == (1, 0)

    def test_bytes_of_no_use_are_told_once_after_what_is_of_use(
        self, line: tuple[Path, int]
    ) -> None:
        path, fd = line
        driver = build(path)
        connected(driver, fd, rvc(0)[5:] + rvc(1))  # cut into, which is no fault
        os.write(fd, b"noise" + rvc(2))
        assert len(driver.read(1)) == 1
        with pytest.raises(BadData, match="5 bytes that are no part of a sound message"):
            driver.read(1)
        with pytest.raises(ReadTimeout):
            driver.read(0.01)
        driver.disconnect()

    def test_noise_alone_is_silence(self, line: tuple[Path, int]) -> None:
        path, fd = line
        driver = build(path)
        connected(driver, fd, rvc(0))
        for _ in range(3):
            os.write(fd, b"noise")
            with pytest.raises(ReadTimeout):
                driver.read(0.01)
        os.write(fd, rvc(1))
        assert driver.read(1)
        with pytest.raises(BadData, match="15 bytes"):
            driver.read(1)
        driver.disconnect()


class TestFaults:
    def test_unplugged_is_lost_and_plugged_in_again_it_goes_on(self, plug: Plug) -> None:
        device = plug()
        driver = build(device.path, rate_hz=200)
        driver.connect()
        before = list(read_all(driver, 5))
        device.unplug()
        with pytest.raises(DeviceLost, match="is gone"):
            list(read_all(driver, 1000))
        with pytest.raises(DeviceNotFound, match=r"there is no such port"):
            driver.connect()
        device.plug()
        driver.connect()
        after = list(read_all(driver, 5))
        driver.disconnect()
        assert after[0].seq == 0
        assert after[0].t_ns[0] >= before[-1].t_ns[-1]

    def test_a_port_in_use_is_busy(self, plug: Plug) -> None:
        device = plug()
        one, two = build(device.path), build(device.path)
        one.connect()
        with pytest.raises(DeviceBusy, match="in use by another program"):
            two.connect()
        one.disconnect()
        two.connect()
        two.disconnect()

    def test_without_permission_the_group_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: object, **kwargs: object) -> None:
            raise serial.SerialException(13, "could not open port /dev/ttyUSB0: Permission denied")

        monkeypatch.setattr(serial, "Serial", refuse)  # root may open everything
        with pytest.raises(DeviceNotFound, match="dialout"):
            build("/dev/ttyUSB0").connect()

    def test_another_protocol_is_said(self, plug: Plug) -> None:
        device = plug(xsens)
        driver = build(device.path, open_timeout_s=0.1)
        with pytest.raises(DeviceNotFound, match=r"nothing of protocol bno08x_rvc at 115200 baud"):
            driver.connect()
        driver = build(device.path, "xsens")
        driver.connect()  # the port was given back
        driver.disconnect()

    def test_silence_is_a_timeout(self, line: tuple[Path, int]) -> None:
        path, fd = line
        driver = build(path)
        connected(driver, fd, rvc(0))
        os.write(fd, b"noise")
        with pytest.raises(ReadTimeout, match=r"no reading in 0\.05 s, 5 bytes of no use"):
            driver.read(0.05)
        driver.disconnect()


class TestConfig:
    def test_defaults(self) -> None:
        config = msgspec.convert({"port": "auto", "protocol": "witmotion"}, ImuConfig)
        assert (config.baud, config.decoder().baud, config.rate_hz) == (None, 9600, 100)

    @pytest.mark.parametrize(
        "fields",
        [
            {"port": ""},
            {"protocol": "nmea"},
            {"baud": 0},
            {"rate_hz": 0},
            {"text": {}},
            {"accel_range_g": 8},
            {"gyro_range_dps": 500},
            {"protocol": "witmotion", "accel_range_g": 0},
            {"protocol": "bno08x_rvc", "orientation": True},
        ],
    )
    def test_what_may_not_be(self, fields: dict[str, Any]) -> None:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"port": "auto", "protocol": "xsens", **fields}, ImuConfig)

    @pytest.mark.parametrize("package", ["serial", "imufusion"])
    def test_without_a_package_the_extra_is_named(
        self, plug: Plug, monkeypatch: pytest.MonkeyPatch, package: str
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        driver = build(plug(xsens).path, "xsens", orientation=True)
        with pytest.raises(ConfigError, match=rf"'{package}'.*sensebind\[imu\]"):
            driver.connect()
