"""The camera driver: real OpenCV against a real server that can be killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Clock, SystemClock
from agent.config import DriverConfig
from agent.contracts import Driver
from agent.errors import BadData, ConfigError, DeviceLost, DeviceNotFound
from agent.types import Intrinsics, Sample
from drivers._camera.source import is_pipeline, shown
from drivers.camera import PLUGIN, CameraConfig, CameraDriver, LensConfig
from tests.contracts.driver_contract import LiveDriverContract, read_all
from tests.fakes.mjpeg_server import SIZE, MjpegServer, number_of, picture

cv2 = pytest.importorskip("cv2", reason="needs pip install 'sensebind[camera]'")

WIDTH, HEIGHT = SIZE
LOGIN = "me:s3cret@"
PIPELINE = "nvarguscamerasrc sensor-id=0 password=s3cret ! videoconvert ! appsink drop=1"


@pytest.fixture(scope="module")
def server() -> Iterator[MjpegServer]:
    server = MjpegServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mortal() -> Iterator[MjpegServer]:
    """A server for one test, which may kill it."""
    server = MjpegServer()
    server.start()
    yield server
    server.stop()


def build(device: str, clock: Clock | None = None, **fields: Any) -> CameraDriver:
    return PLUGIN("cam", CameraConfig(device=device, **fields), clock or SystemClock())


def take(device: str, count: int, **fields: Any) -> list[Sample]:
    driver = build(device, **fields)
    driver.connect()
    try:
        return list(read_all(driver, count))
    finally:
        driver.disconnect()


class TestCamera(LiveDriverContract):
    @pytest.fixture
    def make_driver(self, server: MjpegServer, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(server.url(), clock)

    @pytest.fixture
    def broken(self, mortal: MjpegServer, clock: Clock) -> tuple[Driver, Callable[[], Any]]:
        mortal.stop()
        return build(mortal.url(), clock), mortal.start


class TestPictures:
    def test_they_are_rgb_in_order_and_none_is_left_out(self, server: MjpegServer) -> None:
        samples = take(server.url(), 10)
        # What FFmpeg looks at while it opens is no picture of the stream.
        first = number_of(samples[0].data[0])
        for number, sample in enumerate(samples):
            assert (sample.seq, sample.lost, len(sample)) == (number, 0, 1)
            want = picture(first + number).astype(int)
            away_from_the_edge = np.abs(sample.data[0] - want)[:, np.r_[0:24, 40:64]]
            assert away_from_the_edge.max() < 8

    def test_the_stream_is_what_the_kernel_expects_of_a_picture(self, server: MjpegServer) -> None:
        driver = build(server.url())
        assert driver.streams == ()
        driver.connect()
        (info,) = driver.streams
        driver.disconnect()
        assert (info.name, info.modality, info.unit, info.dtype) == (
            "cam",
            "image",
            "rgb8",
            "uint8",
        )
        assert info.shape == (HEIGHT, WIDTH, 3)
        assert info.rate_hz is None  # OpenCV says 25, and the server gives up to 100

    def test_stamps_are_between_asking_and_arrival(self, server: MjpegServer) -> None:
        clock = SystemClock()
        driver = build(server.url(), clock)
        driver.connect()
        driver.read(1)
        for _ in range(5):
            before_ns = clock.now_ns()
            (sample,) = driver.read(1)
            assert before_ns <= sample.t_ns[0] <= sample.arrival_ns <= clock.now_ns()
        driver.disconnect()


class TestFaults:
    def test_a_killed_server_is_a_lost_device_that_can_come_back(self, mortal: MjpegServer) -> None:
        driver = build(mortal.url())
        driver.connect()
        list(read_all(driver, 3))
        mortal.stop()
        with pytest.raises(DeviceLost, match="gives no more pictures"):
            list(read_all(driver, 1000))
        with pytest.raises(DeviceNotFound, match="cannot be opened"):
            driver.connect()
        mortal.start()
        driver.connect()
        assert [s.seq for s in read_all(driver, 3)] == [0, 1, 2]
        driver.disconnect()

    @pytest.mark.parametrize("path", ["end", "stall"])
    def test_a_stream_that_ends_or_falls_silent_is_lost(
        self, server: MjpegServer, path: str
    ) -> None:
        driver = build(server.url(path), silence_s=0.3)
        driver.connect()
        with pytest.raises(DeviceLost, match="gives no more pictures"):
            list(read_all(driver, 1000))
        with pytest.raises(DeviceLost):
            driver.read(1)
        driver.disconnect()

    def test_pictures_that_grow_keep_the_shape_of_the_stream(self, server: MjpegServer) -> None:
        samples = take(server.url("resize"), 10)
        assert [s.seq for s in samples] == list(range(10))
        assert {s.data.shape for s in samples} == {(1, HEIGHT, WIDTH, 3)}

    def test_a_server_that_never_answers_is_not_waited_for_for_ever(
        self, server: MjpegServer
    ) -> None:
        with pytest.raises(DeviceNotFound, match=r"or silent for 0\.3 s"):
            build(server.url("silent"), open_timeout_s=0.3).connect()

    @pytest.mark.parametrize("path", ["private", "live?token=s3cret", "stall?token=s3cret"])
    def test_a_password_is_shown_nowhere(
        self, server: MjpegServer, path: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        driver = build(server.url(path, LOGIN), silence_s=0.3, width=1, strict=True)
        with pytest.raises(DeviceNotFound) as refused:
            driver.connect()
        driver = build(server.url(path, LOGIN), silence_s=0.3)
        said = str(refused.value)
        try:
            driver.connect()
            list(read_all(driver, 10))
        except (DeviceNotFound, DeviceLost) as exc:
            said += str(exc)
        driver.disconnect()
        said += "".join(info.topic for info in driver.streams) + "".join(capfd.readouterr())
        assert "127.0.0.1" in said
        assert "s3cret" not in said
        assert "me:" not in said


class TestAskedFor:
    def test_another_size_is_a_warning(
        self, server: MjpegServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        (sample,) = take(server.url(), 1, width=640, height=HEIGHT)
        assert sample.data.shape == (1, HEIGHT, WIDTH, 3)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert record.getMessage().endswith("/live: width: asked 640, got 64")

    def test_where_strict_it_is_an_error_and_nothing_is_held(self, server: MjpegServer) -> None:
        driver = build(server.url(), width=640, height=480, strict=True)
        with pytest.raises(
            DeviceNotFound, match="width: asked 640, got 64; height: asked 480, got 48"
        ):
            driver.connect()
        assert driver.streams == ()
        with pytest.raises(DeviceLost, match="not connected"):
            driver.read(1)

    def test_the_size_that_there_is(
        self, server: MjpegServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert take(server.url(), 1, width=WIDTH, height=HEIGHT, strict=True)
        assert not caplog.records

    def test_the_rate_of_a_url_is_unknown(self, server: MjpegServer) -> None:
        with pytest.raises(DeviceNotFound, match="rate_hz: asked 25, got unknown"):
            build(server.url(), rate_hz=25, strict=True).connect()


class TestConfig:
    @pytest.mark.parametrize(
        "device", [0, "0", "auto", "/dev/video2", "rtsp://h/1", "https://h/x.mjpg", PIPELINE]
    )
    def test_what_a_device_may_be(self, device: int | str) -> None:
        assert msgspec.convert({"device": device}, CameraConfig).device == device

    @pytest.mark.parametrize("device", ["", "-1", -1, "clip.mp4", "file:///clip.mp4", "front"])
    def test_what_it_may_not_be(self, device: int | str) -> None:
        with pytest.raises(
            msgspec.ValidationError, match=f"device: got {str(device)!r}, expected an"
        ):
            msgspec.convert({"device": device}, CameraConfig)

    @pytest.mark.parametrize(
        "device", ["videotestsrc ! appsink", "a x=1 !\n b !\n appsink drop=1\n"]
    )
    def test_what_a_pipeline_may_be(self, device: str) -> None:
        assert is_pipeline(msgspec.convert({"device": device}, CameraConfig).source)

    @pytest.mark.parametrize(
        "device",
        [
            "videotestsrc ! fakesink",
            "a ! appsink ! b",
            "a !appsink",
            "appsink",
            "http://h/a ! appsink",
            "http://h/a ! b?token=s3cret",
        ],
    )
    def test_what_a_pipeline_may_not_be(self, device: str) -> None:
        with pytest.raises(msgspec.ValidationError, match="device: got ") as refused:
            msgspec.convert({"device": device}, CameraConfig)
        assert "s3cret" not in str(refused.value)

    @given(
        before=st.from_regex("[!-~]*", fullmatch=True),
        after=st.from_regex("[!-~]*", fullmatch=True),
    )
    def test_no_message_can_show_a_password(self, before: str, after: str) -> None:
        password = f"{before}s3cret{after}"
        for device in (
            f"rtsp://me:{password}@host:554/a?b={password}",
            f"rtspsrc location=rtsp://me:{password}@host ! decodebin ! appsink",
            f"rtspsrc user-id=me user-pw={password} !\ndecodebin ! appsink",
        ):
            assert "s3cret" not in shown(device)

    @pytest.mark.parametrize("device", [f"{LOGIN}host/1", "rtspsrc user-pw=s3cret ! fakesink"])
    def test_what_may_hold_a_password_is_not_repeated(self, device: str) -> None:
        with pytest.raises(msgspec.ValidationError, match=r"device: got '\*\*\*', expected"):
            msgspec.convert({"device": device}, CameraConfig)

    @pytest.mark.parametrize("device", ["rtsp://h/1", PIPELINE])
    def test_what_cannot_be_asked_for(self, device: str) -> None:
        with pytest.raises(msgspec.ValidationError, match="fourcc: can be asked of a device under"):
            msgspec.convert({"device": device, "fourcc": "MJPG"}, CameraConfig)

    def test_a_camera_is_not_frozen_by_a_still_scene_and_soon_back(self) -> None:
        around = msgspec.convert({"kind": "camera", **PLUGIN.defaults}, DriverConfig)
        assert around.frozen_s is not None
        assert around.frozen_s > 4  # the longest usual time between two key frames
        assert around.backoff_max_s <= 4  # of the 5 s in which it is to be back


class TestDevicePaths:
    """No machine without a camera has V4L2: what OpenCV's side of it says is made up here."""

    def test_an_index_that_is_not_there(self) -> None:
        with pytest.raises(DeviceNotFound, match=r"camera cam: 98: .*there is no /dev/video98"):
            build("98").connect()

    def test_a_path_that_is_no_camera(self) -> None:
        with pytest.raises(DeviceNotFound, match=r"/dev/null: cannot be opened .*not a camera"):
            build("/dev/null").connect()

    def test_the_rate_is_asked_for_and_read_back(self, made_up: type[Capture]) -> None:
        made_up.gives[cv2.CAP_PROP_FPS] = 29.97
        (sample,) = take("/dev/null", 1, width=32, height=24, rate_hz=30, strict=True)
        assert sample.stream.rate_hz == 29.97
        assert made_up.asked == {
            cv2.CAP_PROP_FRAME_WIDTH: 32,
            cv2.CAP_PROP_FRAME_HEIGHT: 24,
            cv2.CAP_PROP_FPS: 30,
        }
        with pytest.raises(DeviceNotFound, match=r"rate_hz: asked 60, got 29\.97"):
            build("/dev/null", rate_hz=60, strict=True).connect()
        assert made_up.held == 0

    def test_the_format_is_asked_for_first_and_read_back(self, made_up: type[Capture]) -> None:
        mjpg = cv2.VideoWriter.fourcc(*"MJPG")
        made_up.gives[cv2.CAP_PROP_FOURCC] = mjpg
        assert take("/dev/null", 1, fourcc="MJPG", width=32, strict=True)
        assert next(iter(made_up.asked.items())) == (cv2.CAP_PROP_FOURCC, mjpg)
        made_up.gives[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*"YUYV")
        with pytest.raises(DeviceNotFound, match="fourcc: asked MJPG, got YUYV"):
            build("/dev/null", fourcc="MJPG", strict=True).connect()
        assert made_up.held == 0

    def test_who_may_not_open_it_is_told_the_group(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(DeviceNotFound, match=r"not allowed; .* sudo usermod -aG video \$USER"):
            build("/dev/null").connect()

    def test_a_device_that_does_not_say_its_rate(self, made_up: type[Capture]) -> None:
        made_up.gives[cv2.CAP_PROP_FPS] = 0
        (sample,) = take("/dev/null", 1)
        assert sample.stream.rate_hz is None

    def test_a_picture_that_cannot_be_decoded_is_counted(self, made_up: type[Capture]) -> None:
        made_up.bad = {2, 3}
        driver = build("/dev/null")
        driver.connect()
        assert [s.seq for s in read_all(driver, 2)] == [0, 1]
        for _ in range(2):
            with pytest.raises(BadData, match="cam: /dev/null: a picture cannot be decoded"):
                driver.read(1)
        (sample,) = driver.read(1)
        assert (sample.seq, sample.lost) == (4, 2)
        driver.disconnect()

    def test_a_first_picture_that_cannot_be_decoded(self, made_up: type[Capture]) -> None:
        made_up.bad = {0}
        with pytest.raises(DeviceNotFound, match="a picture cannot be decoded"):
            build("/dev/null").connect()
        assert made_up.held == 0


class TestPipelines:
    """OpenCV's wheels have no GStreamer: its side of it is made up, but for the first test."""

    def test_an_opencv_without_gstreamer_is_said_and_what_to_do(self) -> None:
        if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            pytest.skip("this OpenCV has GStreamer")
        with pytest.raises(ConfigError, match=r"built without GStreamer, .* JetPack's own") as said:
            build(PIPELINE).connect()
        assert str(said.value).startswith("camera cam: gstreamer:nvarguscamerasrc: ")
        assert "s3cret" not in str(said.value)
        assert "\n" not in str(said.value)

    def test_it_is_opened_by_gstreamer_and_its_rate_is_known(self, pipeline: type[Capture]) -> None:
        (sample,) = take(PIPELINE, 1, width=32, height=24, rate_hz=30, strict=True)
        assert (sample.stream.rate_hz, sample.stream.shape) == (30.0, (24, 32, 3))
        assert sample.stream.topic == "gstreamer:nvarguscamerasrc"
        assert pipeline.asked == {}

    def test_pictures_that_are_not_bgr(
        self, pipeline: type[Capture], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        grey = np.zeros((24, 32), np.uint8)
        monkeypatch.setattr(pipeline, "retrieve", lambda self: (True, grey))
        with pytest.raises(DeviceNotFound, match=r"gives uint8\[24, 32\], expected BGR: end a pip"):
            build(PIPELINE).connect()
        assert pipeline.held == 0

    def test_one_that_does_not_run(
        self, pipeline: type[Capture], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "isOpened", lambda self: False)
        with pytest.raises(DeviceNotFound, match=r"cannot be opened \(try it with gst-launch-1\.0"):
            build(PIPELINE).connect()


class TestLens:
    LENS: ClassVar[dict[str, Any]] = {
        "width": WIDTH,
        "height": HEIGHT,
        "fx": 50.0,
        "fy": 51.0,
        "cx": 32.0,
        "cy": 24.0,
        "distortion": "brown_conrady",
        "coefficients": [0.1, -0.2, 0.0, 0.0, 0.0],
    }

    def test_a_calibration_is_told_with_the_stream(self, server: MjpegServer) -> None:
        lens = msgspec.convert(self.LENS, LensConfig)
        (sample,) = take(server.url(), 1, intrinsics=lens, strict=True)
        assert sample.stream.intrinsics == Intrinsics(
            WIDTH, HEIGHT, 50.0, 51.0, 32.0, 24.0, "brown_conrady", (0.1, -0.2, 0.0, 0.0, 0.0)
        )

    def test_one_of_another_size_is_not(
        self, server: MjpegServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        lens = msgspec.convert(self.LENS | {"width": 640}, LensConfig)
        (sample,) = take(server.url(), 1, intrinsics=lens)
        assert sample.stream.intrinsics is None
        assert "intrinsics: of 640x48, got 64x48" in caplog.text
        with pytest.raises(DeviceNotFound, match="intrinsics: of 640x48, got 64x48"):
            build(server.url(), intrinsics=lens, strict=True).connect()


class Capture:
    """OpenCV's side of a USB camera of 32x24."""

    gives: dict[int, float]
    asked: dict[int, float]
    bad: set[int]
    held: int
    device = ("/dev/null", cv2.CAP_V4L2)

    def __init__(self, path: str, backend: int, params: Sequence[int] = ()) -> None:
        assert (path, backend) == self.device
        assert bool(params) == (backend == cv2.CAP_GSTREAMER)
        type(self).held += 1
        self._number = -1

    def isOpened(self) -> bool:
        return True

    def set(self, prop: int, value: float) -> bool:
        self.asked[prop] = value
        return True

    def get(self, prop: int) -> float:
        return self.gives[prop]

    def grab(self) -> bool:
        self._number += 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        if self._number in self.bad:
            return False, None
        return True, np.zeros((24, 32, 3), np.uint8)

    def release(self) -> None:
        type(self).held -= 1


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[Capture]:
    capture = type("Fresh", (Capture,), {"gives": {cv2.CAP_PROP_FPS: 30.0}, "asked": {}})
    capture.bad, capture.held = set(), 0
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return capture


@pytest.fixture
def pipeline(made_up: type[Capture], monkeypatch: pytest.MonkeyPatch) -> type[Capture]:
    has = cv2.videoio_registry.hasBackend
    monkeypatch.setattr(
        cv2.videoio_registry, "hasBackend", lambda api: api == cv2.CAP_GSTREAMER or has(api)
    )
    made_up.device = (PIPELINE, cv2.CAP_GSTREAMER)
    return made_up
