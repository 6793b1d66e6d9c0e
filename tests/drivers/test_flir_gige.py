"""The flir driver's GigE Vision source: pyGigEVision against Aravis's fake camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.clock import Clock, SystemClock
from agent.config import DriverConfig
from agent.contracts import Driver
from agent.errors import DeviceBusy, DeviceLost, DeviceNotFound, ReadTimeout
from agent.radiometry import Planck, Scene
from agent.stream.pump import Pump
from agent.types import Sample
from drivers._flir.gige import discover_gige
from drivers.flir import PLUGIN, FlirConfig, FlirDriver
from tests.contracts.driver_contract import LiveDriverContract, read_all
from tests.fakes.gige_camera import ADDRESS, SERIAL, SHAPE, GigeCamera, give_port_back
from tests.fakes.gvcp_registers import START, RegisterCamera

pytest.importorskip("pyGigEVision", reason="needs pip install 'sensebind[flir]'")


@pytest.fixture(scope="module")
def camera() -> Iterator[GigeCamera]:
    camera = GigeCamera()
    camera.start()
    yield camera
    camera.stop()
    give_port_back()


def build(
    clock: Clock | None = None, gige: dict[str, Any] | None = None, **fields: Any
) -> FlirDriver:
    gige = {"address": ADDRESS, "packet_bytes": 8000} | (gige or {})
    config = msgspec.convert({"source": "gige", "gige": gige} | fields, FlirConfig)
    return PLUGIN("hot", config, clock or SystemClock())


class TestGige(LiveDriverContract):
    max_reads = 12

    @pytest.fixture
    def make_driver(self, camera: GigeCamera, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(clock)

    @pytest.fixture
    def unplug(self, camera: GigeCamera) -> Iterator[Callable[[], Any]]:
        yield camera.stop
        camera.start()

    @pytest.fixture
    def broken(self, camera: GigeCamera, clock: Clock) -> tuple[Driver, Callable[[], Any]]:
        camera.stop()
        return build(clock), camera.start


class TestPictures:
    def test_they_are_what_the_camera_sent(self, camera: GigeCamera) -> None:
        driver = build()
        driver.connect()
        samples = list(read_all(driver, 8))
        driver.disconnect()
        (info,) = driver.streams
        assert (info.modality, info.dtype, info.unit, info.shape) == (
            "thermal",
            "uint16",
            "counts",
            SHAPE,
        )
        assert (info.clock, info.clock_domain) == ("device", "GigE Vision timestamp")
        steps = []
        for sample in samples:
            # Aravis draws (x + frame) + (y) ... a diagonal ramp: each row is the one above, moved.
            picture = sample.data[0].astype(np.int64)
            assert (picture[1:, :-1] == picture[:-1, 1:]).all()
            assert len(np.unique(picture)) > 200
        assert sum(s.lost for s in samples) <= 1
        steps = [
            (b.device_t_ns[0] - a.device_t_ns[0]) / (b.seq - a.seq) / 1e6
            for a, b in pairwise(samples)
            if a.device_t_ns is not None and b.device_t_ns is not None
        ]
        assert np.median(steps) == pytest.approx(40, abs=4)

    @pytest.mark.parametrize("address", ["auto", f"serial:{SERIAL}"])
    def test_the_camera_is_found_by_what_it_says_of_itself(
        self, camera: GigeCamera, address: str
    ) -> None:
        driver = build(gige={"address": address, "interface": ADDRESS})
        driver.connect()
        driver.disconnect()
        (info,) = driver.streams
        assert info.topic == f"gige:{address}"

    def test_eight_bits_are_counts_too(self, camera: GigeCamera) -> None:
        driver = build(gige={"pixel_format": "Mono8", "packet_bytes": 1400})
        driver.connect()
        (sample,) = driver.read(1)
        driver.disconnect()
        assert (sample.data.dtype, sample.stream.unit) == (np.uint8, "counts")

    def test_no_celsius_is_an_error_where_required(self, camera: GigeCamera) -> None:
        with pytest.raises(
            DeviceNotFound, match=r"celsius: require, but gige:127\.0\.0\.1 does not"
        ):
            build(celsius="require").connect()

    def test_it_is_discovered_with_what_opens_it(self, camera: GigeCamera) -> None:
        (device,) = discover_gige(ADDRESS)
        assert (device.kind, device.name, device.identity) == (
            "flir",
            "Aravis Fake",
            f"serial:{SERIAL}",
        )
        driver = PLUGIN("hot", msgspec.convert(device.settings, FlirConfig), SystemClock())
        driver.connect()
        driver.disconnect()


PICTURE = (15_000 + np.arange(12 * 16).reshape(12, 16) * 40).astype(np.uint16)
CONSTANTS = {"R": 15_000.0, "B": 1400.0, "F": 1.0, "J0": 4000.0, "J1": 60.0}


class TestCelsius:
    def take(self, camera: RegisterCamera, **fields: Any) -> Sample:
        driver = build(gige={"address": camera.address, "packet_bytes": 576}, **fields)
        try:
            driver.connect()
            driver.read(1)
            (sample,) = driver.read(1)
        finally:
            driver.disconnect()
            camera.stop()
        return sample

    def test_the_cameras_constants_make_celsius_of_counts(self) -> None:
        camera = RegisterCamera("127.0.0.2", PICTURE, CONSTANTS, {})
        scene = {"emissivity": 0.9, "reflected_c": 30.0}
        sample = self.take(camera, celsius="require", scene=scene)
        assert (sample.stream.unit, sample.data.dtype) == ("c", np.float32)
        law = Planck(15_000, 1400, 1, 4000, 60, msgspec.convert(scene, Scene))
        for row, column in ((0, 0), (5, 7), (11, 15)):
            told = law.counts(float(sample.data[0, row, column]))
            assert told == pytest.approx(PICTURE[row, column], abs=0.1)
        assert camera.word(START) == 0  # told to stop

    def test_a_camera_that_gives_temperatures_is_asked_for_them(self) -> None:
        formats = {"IRFormat": ("Radiometric", "TemperatureLinear100mK", "TemperatureLinear10mK")}
        camera = RegisterCamera("127.0.0.2", PICTURE, CONSTANTS, formats)
        sample = self.take(camera)
        assert camera.word(0x9100) == 2
        np.testing.assert_allclose(sample.data[0], PICTURE / 100 - 273.15, atol=1e-3)

    def test_counts_stay_counts_where_asked(self) -> None:
        camera = RegisterCamera("127.0.0.2", PICTURE, CONSTANTS, {})
        sample = self.take(camera, celsius="never")
        assert (sample.stream.unit, sample.data.dtype) == ("counts", np.uint16)
        np.testing.assert_array_equal(sample.data[0], PICTURE)


class TestFaults:
    def test_a_wrong_address_is_said_with_the_address(self) -> None:
        with pytest.raises(DeviceNotFound, match=r"127\.0\.0\.9 cannot be started \(no answer\)"):
            build(gige={"address": "127.0.0.9"}).connect()
        with pytest.raises(DeviceNotFound, match="no GigE Vision camera answers to 'serial:none'"):
            build(gige={"address": "serial:none", "interface": ADDRESS}).connect()

    def test_a_camera_in_use_is_busy(self) -> None:
        camera = RegisterCamera("127.0.0.2", PICTURE, {}, {}, taken=True)
        try:
            with pytest.raises(DeviceBusy, match=r"127\.0\.0\.2 is controlled by another"):
                build(gige={"address": camera.address}).connect()
        finally:
            camera.stop()

    def test_frames_with_a_hole_are_lost_ones(self, camera: GigeCamera) -> None:
        camera.stop()
        lossy = GigeCamera(lost_permille=5)
        lossy.start()
        try:
            driver = build()
            driver.connect()
            samples = list(read_all(driver, 40))
            driver.disconnect()
        finally:
            lossy.stop()
            camera.start()
        assert sum(s.lost for s in samples) >= 2
        for sample in samples:
            picture = sample.data[0].astype(np.int64)
            assert (picture[1:, :-1] == picture[:-1, 1:]).all()

    def test_a_camera_that_was_started_anew_is_lost(self, camera: GigeCamera) -> None:
        driver = build()
        driver.connect()
        driver.read(1)
        camera.stop()
        camera.start()
        with pytest.raises(DeviceLost, match="no longer under our control"):
            exhaust(driver)
        driver.disconnect()

    def test_killed_and_back_through_the_pump(self, camera: GigeCamera) -> None:
        clock = SystemClock()
        config = DriverConfig(kind="flir", backoff_min_s=0.1)
        pump = Pump("hot", build(clock), config, clock, lambda state: None)
        got: list[Sample] = []
        pump.sinks.append(got.append)
        stop = threading.Event()
        thread = threading.Thread(target=pump.run, args=(stop,))
        thread.start()
        try:
            _until(lambda: len(got) > 10)
            camera.stop()
            _until(lambda: pump.streams["hot"].state == "offline")
            camera.start()
            back = time.monotonic()
            before = len(got)
            _until(lambda: len(got) > before)
            assert time.monotonic() - back < 5
            assert pump.streams["hot"].reconnects == 1
        finally:
            stop.set()
            thread.join()
        stamps = [int(s.t_ns[0]) for s in got]
        assert stamps == sorted(stamps)

    def test_a_hung_camera_is_lost(self, camera: GigeCamera) -> None:
        driver = build()
        driver.connect()
        driver.read(1)
        camera.hang()
        try:
            with pytest.raises(DeviceLost, match="no longer answers"):
                exhaust(driver)
        finally:
            camera.go_on()
            driver.disconnect()


def exhaust(driver: FlirDriver) -> None:
    """Read on, as the pump does."""
    for _ in range(50):
        with suppress(ReadTimeout):
            driver.read(0.2)


def _until(done: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, "never came about"
        time.sleep(0.005)
