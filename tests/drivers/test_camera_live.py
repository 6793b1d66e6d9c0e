"""Cameras on the network in the agent's own pump: killed, hung, frozen, and as late as they are."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from agent.clock import Clock, SystemClock
from agent.contracts import Driver
from agent.errors import DeviceLost, DeviceNotFound
from drivers.camera import PLUGIN, CameraConfig, CameraDriver
from tests.contracts.driver_contract import LiveDriverContract, read_all
from tests.fakes.camera_pump import CameraPump
from tests.fakes.clock_picture import read_us
from tests.fakes.mjpeg_server import FROZEN_S, MjpegServer
from tests.fakes.rtsp_server import RtspServer, why_not

pytest.importorskip("cv2", reason="needs pip install 'sensebind[camera]'")
MISSING = why_not()
rtsp = pytest.param(
    RtspServer, marks=pytest.mark.skipif(MISSING is not None, reason=MISSING or ""), id="rtsp"
)
http = pytest.param(MjpegServer, id="mjpeg")
Server = MjpegServer | RtspServer


def build(device: str, clock: Clock | None = None, **fields: Any) -> CameraDriver:
    return PLUGIN("cam", CameraConfig(device=device, **fields), clock or SystemClock())


@pytest.fixture(params=[http, rtsp])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server: Server = request.param()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def rtsp_server() -> Iterator[RtspServer]:
    server = RtspServer()
    server.start()
    yield server
    server.stop()


def test_what_queued_up_while_nobody_read_is_not_told_as_new(server: Server) -> None:
    """As between connect and the first read, while the agent opens its other devices."""
    path = "clock" if isinstance(server, MjpegServer) else "live"
    driver = build(server.url(path))
    driver.connect()
    time.sleep(1.5)
    got = [sample for _ in range(20) for sample in driver.read(0.5)]
    driver.disconnect()
    _, anchor_ns = SystemClock().anchor
    late_ms = [(int(s.t_ns[0]) - anchor_ns) / 1e6 - read_us(s.data[0]) / 1e3 for s in got]
    assert got[1].lost > 20
    assert got[1].seq == got[1].lost + 1
    # Stamped as new, the first of them would be 1500 ms late, and each of the others a tick less.
    assert np.median(late_ms[1:6]) < 300


@pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
class TestRtsp(LiveDriverContract):
    @pytest.fixture
    def make_driver(self, rtsp_server: RtspServer, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(rtsp_server.url(), clock)

    @pytest.fixture
    def unplug(self, rtsp_server: RtspServer) -> Callable[[], Any]:
        return rtsp_server.stop

    @pytest.fixture
    def broken(self, rtsp_server: RtspServer, clock: Clock) -> tuple[Driver, Callable[[], Any]]:
        rtsp_server.stop()
        return build(rtsp_server.url(), clock), rtsp_server.start

    @pytest.mark.parametrize("transport", ["tcp", "udp"])
    def test_stamps_are_those_of_new_pictures_from_the_first_on(
        self, rtsp_server: RtspServer, transport: str
    ) -> None:
        late_ms = lateness_ms(rtsp_server.url(), 30, transport=transport)
        # The decoder has a picture once the next begins: 33 ms. Those that FFmpeg looked at while
        # it opened would be 900 ms late, and each a tick less so than the one before.
        assert abs(np.median(late_ms[:5]) - np.median(late_ms)) < 100
        assert np.median(late_ms) < 200

    def test_another_size_than_asked_for(
        self, rtsp_server: RtspServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        driver = build(rtsp_server.url("small"), width=640, height=480)
        driver.connect()
        assert driver.streams[0].shape == (240, 320, 3)
        driver.disconnect()
        asked = "width: asked 640, got 320; height: asked 480, got 240"
        assert asked in caplog.text
        with pytest.raises(DeviceNotFound, match=asked):
            build(rtsp_server.url("small"), width=640, height=480, strict=True).connect()

    @pytest.mark.parametrize("password", ["s3cret", "wr0ng"])
    def test_a_login_is_used_and_shown_nowhere(
        self, password: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        server = RtspServer("me", "s3cret")
        server.start()
        try:
            with CameraPump(server.url(login=f"me:{password}@"), width=1) as pump:
                if password == "s3cret":
                    pump.until(lambda: pump.state == "online")
                    server.stop()
                    pump.until(lambda: pump.state == "offline")
                else:
                    pump.until(lambda: "cannot be opened" in caplog.text)
        finally:
            server.stop()
        streams = [sample.stream for sample in pump.samples]
        said = f"{pump.said}{caplog.text}{streams}{capfd.readouterr()}"
        assert "127.0.0.1" in said
        assert password not in said
        assert "me:" not in said


def lateness_ms(url: str, count: int, **fields: Any) -> np.ndarray:
    """How much later than they were made pictures are stamped."""
    clock = SystemClock()
    epoch_ns = clock.now_ns() - time.monotonic_ns()
    driver = build(url, clock, **fields)
    driver.connect()
    samples = list(read_all(driver, count))
    driver.disconnect()
    return np.array(
        [(s.t_ns[0] - epoch_ns) / 1e6 - read_us(s.data[0]) / 1e3 for s in samples], float
    )


class TestTime:
    def test_stamps_are_those_of_new_pictures(self) -> None:
        server = MjpegServer()
        server.start()
        late_ms = lateness_ms(server.url("clock"), 30)
        server.stop()
        assert late_ms.min() > 0
        assert np.median(late_ms) < 100

    def test_a_known_latency_is_taken_off(self) -> None:
        server = MjpegServer()
        server.start()
        late_ms = lateness_ms(server.url("clock"), 30, latency_s=5.0)
        server.stop()
        assert -5000 < np.median(late_ms) < -4900


class TestBackAgain:
    def test_killed_and_back(self, server: Server) -> None:
        with CameraPump(server.url()) as pump:
            pump.until(lambda: len(pump.samples) > 5)
            server.stop()
            pump.until(lambda: pump.state == "offline")
            server.start()
            pump.until(lambda: pump.state == "online")
            had = len(pump.samples)
            pump.until(lambda: len(pump.samples) > had + 5)
            assert pump.reconnects == 1
        stamps = [int(sample.t_ns[0]) for sample in pump.samples]
        assert stamps == sorted(stamps)

    def test_hung_and_back(self, server: Server) -> None:
        with CameraPump(server.url(), silence_s=0.5, open_timeout_s=1.0) as pump:
            pump.until(lambda: len(pump.samples) > 5)
            server.hang()
            pump.until(lambda: pump.state == "offline")
            assert pump.said[-1][1].endswith("gives no more pictures")
            server.go_on()
            pump.until(lambda: pump.state == "online")

    def test_a_picture_that_repeats_is_frozen_until_it_moves(self) -> None:
        server = MjpegServer()
        server.start()
        with CameraPump(server.url("frozen"), around={"frozen_s": FROZEN_S / 3}) as pump:
            pump.until(lambda: pump.state == "degraded")
            assert pump.said[-1][1] == "frozen: the same data for 0.5 s"
            pump.until(lambda: pump.state == "online")
            assert pump.reconnects == 0
        server.stop()

    def test_it_does_not_come_back_as_another_size(self) -> None:
        server = MjpegServer()
        server.start()
        with CameraPump(server.url("other"), around={"backoff_min_s": 0.05}) as pump:
            pump.until(lambda: pump.state == "online")
            server.hang()
            pump.until(lambda: pump.state == "offline")
            server.go_on()
            pump.until(lambda: "came back with" in pump.said[-1][1])
            assert pump.reconnects == 0
        server.stop()

    def test_a_source_that_does_not_scale_tells_of_another_size(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = MjpegServer()
        server.start()
        driver = build(server.url())
        driver.connect()
        list(read_all(driver, 2))
        monkeypatch.setattr(driver, "_grab", lambda capture: (0, np.zeros((96, 128, 3), np.uint8)))
        with pytest.raises(DeviceLost, match="pictures are now 128x96, were 64x48"):
            driver.read(1)
        driver.disconnect()
        server.stop()
