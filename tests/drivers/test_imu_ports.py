"""Which serial port is meant, and what is connected. What pyserial lists is made up, on devices
and links of udev that are made in a folder; opening is real."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.clock import SystemClock
from agent.contracts import Device
from agent.errors import ConfigError, DeviceNotFound
from drivers import _serial_ports
from drivers._serial_ports import find_ports
from drivers.imu import PLUGIN, ImuConfig, ImuDriver
from tests.fakes.imu_messages import rvc
from tests.fakes.serial_device import SerialDevice

list_ports = pytest.importorskip(
    "serial.tools.list_ports", reason="needs pip install 'sensebind[imu]'"
)
list_ports_common = pytest.importorskip("serial.tools.list_ports_common")

CH340, FT232, XSENS, BOSON = (0x1A86, 0x7523), (0x0403, 0x6001), (0x2639, 0x0300), (0x09CB, 0x4007)

Plug = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Plugs in a device with this USB id, serial number and socket; returns its device file."""
    listed = [list_ports_common.ListPortInfo("/dev/ttyS0")]  # on board, and no USB
    sockets: dict[str, int] = {}
    monkeypatch.setattr(list_ports, "comports", lambda: listed)
    monkeypatch.setattr(_serial_ports, "SERIAL_LINKS", tmp_path / "serial")

    def plug(
        usb_id: tuple[int, int],
        number: str | None = None,
        *,
        socket: str = "",
        links: bool = True,
        path: Path | None = None,
    ) -> Path:
        socket = socket or f"1-{len(listed)}"
        path = path or tmp_path / f"ttyUSB{len(listed) - 1}"
        if not path.exists():
            path.touch()
        port = list_ports_common.ListPortInfo(str(path))
        port.vid, port.pid = usb_id
        port.serial_number, port.location, port.description = number, socket, "Converter"
        listed.append(port)
        bare = socket.partition(":")[0]
        interface = sockets[bare] = sockets.get(bare, -1) + 1
        if links:
            names = {
                "by-id": f"usb-Maker_{number or 'Converter'}-if0{interface}-port0",
                "by-path": f"pci-0-usb-0:{bare}:1.{interface}-port0",
            }
            for kind, name in names.items():
                link = tmp_path / "serial" / kind / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)  # of twins udev keeps one by-id name, the last one's
                link.symlink_to(path)
        return path

    return plug


def build(port: str) -> ImuDriver:
    fields = {"port": port, "protocol": "bno08x_rvc", "rate_hz": 200}
    return PLUGIN("imu", msgspec.convert(fields, ImuConfig), SystemClock())


class TestIdentity:
    def test_a_serial_number_of_its_own(self, machine: Plug) -> None:
        machine(FT232, "A1")
        machine(FT232, "A2")
        one, two = find_ports()
        assert (one.identity, one.setting, one.by_port) == ("serial:A1", "usb:A1", False)
        assert (two.identity, two.problem) == ("serial:A2", "")

    @pytest.mark.parametrize("number", [None, "", "0001"])
    def test_twins_are_told_by_where_they_are_plugged_in(
        self, machine: Plug, number: str | None
    ) -> None:
        paths = [machine(CH340, number), machine(CH340, number)]
        ports = find_ports()
        assert [p.path for p in ports] == list(map(str, paths))
        assert all(p.by_port and p.identity.startswith("by-path:pci-0-usb-0:1-") for p in ports)
        assert len({p.identity for p in ports}) == 2
        assert [os.path.realpath(p.setting) for p in ports] == list(map(str, paths))

    def test_one_without_a_serial_number_may_get_a_twin(self, machine: Plug) -> None:
        machine(CH340)
        (port,) = find_ports()
        assert port.by_port
        assert port.setting.endswith("by-path/pci-0-usb-0:1-1:1.0-port0")

    def test_ports_of_one_device_share_its_number(self, machine: Plug) -> None:
        paths = [machine(FT232, "Q1", socket=f"1-2:1.{n}") for n in range(2)]
        ports = find_ports()
        assert [p.identity for p in ports] == [f"by-id:usb-Maker_Q1-if0{n}-port0" for n in range(2)]
        assert not any(p.by_port for p in ports)
        assert [os.path.realpath(p.setting) for p in ports] == list(map(str, paths))

    def test_without_udev_the_name_is_not_to_be_relied_on(self, machine: Plug) -> None:
        path = machine(CH340, links=False)
        (port,) = find_ports()
        assert (port.identity, port.setting, port.by_port) == ("by-path:usb-1-1", str(path), True)
        assert "may be another one tomorrow" in port.problem

    def test_one_that_may_not_be_opened(
        self, machine: Plug, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine(FT232, "A1")
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may open everything
        (port,) = find_ports()
        assert "sudo usermod -aG dialout $USER" in port.problem

    def test_one_that_goes_away_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def parse_what_is_gone() -> list[Any]:
            raise TypeError("int() can't convert non-string with explicit base")

        monkeypatch.setattr(list_ports, "comports", parse_what_is_gone)
        assert find_ports() == []


class TestDiscover:
    def test_what_is_known_of_each(self, machine: Plug) -> None:
        machine(XSENS, "03AB")
        machine(CH340)
        machine(BOSON, "12345")
        known, generic = PLUGIN.discover()
        assert known == Device(
            kind="imu",
            name="Converter",
            identity="serial:03AB",
            settings={"port": "usb:03AB", "protocol": "xsens"},
        )
        assert msgspec.convert(dict(known.settings), ImuConfig).protocol == "xsens"
        assert set(generic.settings) == {"port"}
        assert generic.by_port
        assert "set protocol to one of" in generic.problem
        for protocol in ("bno08x_rvc", "witmotion", "xsens", "vectornav", "csv", "json"):
            assert protocol in generic.problem
            msgspec.convert({**generic.settings, "protocol": protocol}, ImuConfig)

    def test_its_own_trouble_comes_first(
        self, machine: Plug, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine(CH340)
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        (device,) = PLUGIN.discover()
        assert 0 < device.problem.index("dialout") < device.problem.index("set protocol")

    def test_without_pyserial(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "serial.tools", None)
        with pytest.raises(ConfigError, match=r"sensebind\[imu\]"):
            PLUGIN.discover()


class TestMeant:
    @pytest.fixture
    def imu(self, tmp_path: Path) -> Iterator[Path]:
        device = SerialDevice(tmp_path / "imu", rvc, 200)
        device.plug()
        yield device.path
        device.unplug()

    @pytest.mark.parametrize("port", ["auto", "usb:A1"])
    def test_the_only_one_is_taken(self, machine: Plug, imu: Path, port: str) -> None:
        machine(FT232, "A1", path=imu)
        machine(BOSON, "12345")
        driver = build(port)
        driver.connect()
        driver.disconnect()

    def test_of_two_the_serial_number_tells(self, machine: Plug, imu: Path) -> None:
        machine(FT232, "A1")
        machine(FT232, "A2", path=imu)
        driver = build("usb:A2")
        driver.connect()
        driver.disconnect()

    def test_what_discover_says_opens_it(self, machine: Plug, imu: Path) -> None:
        machine(CH340)
        machine(CH340, path=imu)
        (port,) = (
            device.settings["port"]
            for device in PLUGIN.discover()
            if os.path.realpath(device.settings["port"]) == os.path.realpath(imu)
        )
        driver = build(port)
        driver.connect()
        driver.disconnect()

    @pytest.mark.parametrize(("port", "number"), [("auto", None), ("auto", "A1"), ("usb:A1", "A1")])
    def test_two_are_refused_and_named(self, machine: Plug, port: str, number: str | None) -> None:
        machine(CH340, number)
        machine(CH340, number)
        with pytest.raises(
            DeviceNotFound, match=r"ttyUSB0 \(by-path:.*ttyUSB1 \(by-path:.*by-id or by-path$"
        ):
            build(port).connect()

    @pytest.mark.parametrize("port", ["auto", "usb:A1"])
    def test_none(self, machine: Plug, port: str) -> None:
        machine(BOSON, "12345")
        with pytest.raises(DeviceNotFound, match="there is no such USB serial port"):
            build(port).connect()
