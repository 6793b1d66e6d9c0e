"""The driver and the test that docs/adding-a-driver.md shows, as they stand there."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.errors import BadData, DeviceBusy, ReadTimeout
from tests.contracts.driver_contract import DriverContract
from tests.fakes.serial_device import SerialDevice

pytest.importorskip("serial", reason="needs pip install 'sensebind[imu]'")

DOCUMENT = Path(__file__).parents[2] / "docs" / "adding-a-driver.md"
_DRIVER, _TEST = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)

thermometer = ModuleType("drivers.thermometer")
sys.modules[thermometer.__name__] = thermometer  # where msgspec looks up its annotations
exec(_DRIVER, thermometer.__dict__)

_names: dict[str, Any] = {
    "DriverContract": DriverContract,
    "PLUGIN": thermometer.PLUGIN,
    "SerialDevice": SerialDevice,
    "SystemClock": SystemClock,
    "ThermometerConfig": thermometer.ThermometerConfig,
    "pytest": pytest,
}
exec(_TEST, _names)
TestThermometer = _names["TestThermometer"]


@pytest.fixture
def line() -> deque[bytes]:
    """What the device sends next."""
    return deque()


@pytest.fixture
def port(tmp_path: Path, line: deque[bytes]) -> Iterator[str]:
    device = SerialDevice(tmp_path / "port", lambda _: line.popleft() if line else b"", 200)
    device.plug()
    yield str(device.path)
    device.unplug()


@pytest.fixture
def driver(port: str, line: deque[bytes]) -> Iterator[Any]:
    driver = thermometer.PLUGIN("hall", thermometer.ThermometerConfig(port=port), SystemClock())
    driver.connect()
    line.append(b".5\n")
    with pytest.raises(ReadTimeout, match="the first line may be cut off"):
        driver.read(1.0)
    yield driver
    driver.disconnect()


def test_half_a_line_is_kept(driver: Any, line: deque[bytes]) -> None:
    line.append(b"21")
    with pytest.raises(ReadTimeout):
        driver.read(0.1)
    line.append(b".5\n")
    assert driver.read(1.0)[0].data[0, 0] == 21.5


@pytest.mark.parametrize("said", [b"warm\n", b"nan\n"])
def test_what_is_no_temperature(driver: Any, line: deque[bytes], said: bytes) -> None:
    line.append(said)
    with pytest.raises(BadData):
        driver.read(1.0)


def test_another_program_has_it(driver: Any, port: str) -> None:
    config = thermometer.ThermometerConfig(port=port)
    with pytest.raises(DeviceBusy):
        thermometer.PLUGIN("other", config, SystemClock()).connect()
