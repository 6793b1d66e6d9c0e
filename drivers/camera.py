"""Driver `camera`: a camera under /dev, at a URL or behind a GStreamer pipeline, through OpenCV.

One stream, named as the driver: uint8 RGB (height, width, 3). A picture is stamped on the agent's
clock as soon as OpenCV has it, before it is converted: OpenCV's own times cannot be trusted (for
MJPEG over HTTP they count up by 40 ms whatever the rate).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from agent.clock import Clock, from_s
from agent.contracts import Device
from agent.errors import BadData, DeviceLost, DeviceNotFound
from agent.redact import is_url
from agent.types import Array, Intrinsics, Sample, StreamInfo
from drivers._camera.config import CameraConfig, LensConfig
from drivers._camera.devices import find_cameras, only_camera
from drivers._camera.source import (
    is_pipeline,
    open_device,
    open_pipeline,
    open_url,
    prepare_cv2,
    shown,
)

if TYPE_CHECKING:
    import cv2

__all__ = ["PLUGIN", "CameraConfig", "CameraDriver", "LensConfig"]

logger = logging.getLogger(__name__)

# 29.97 is what a camera that is asked for 30 may say.
RATE_TOLERANCE = 0.01
# So long between reads, pictures may have queued up; no driver's thread is that busy in between.
AWAY_S = 0.1
USUAL_HZ = 30  # of a camera that does not tell its rate


@dataclass
class _Run:
    """What lasts from connect to disconnect. left_ns: when somebody last waited for a picture.
    first: the one taken in connect.
    """

    capture: cv2.VideoCapture
    info: StreamInfo
    left_ns: int
    first: Sample | None = None
    next_seq: int = 0
    lost: int = 0


class CameraDriver:
    """See the module docstring. `seq` counts pictures since connect."""

    Config = CameraConfig
    # Longer than the usual time between key frames, which differ even where nothing moves.
    defaults: ClassVar[Mapping[str, Any]] = {"frozen_s": 5.0}

    def __init__(self, name: str, config: CameraConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"camera {name}: {shown(config.source)}"
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None

    @staticmethod
    def discover() -> Sequence[Device]:
        """The V4L2 cameras. Raises ConfigError without OpenCV."""
        prepare_cv2()
        return find_cameras()

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the device decides the size."""
        return self._streams

    def connect(self) -> None:
        """Open the camera and take its first picture, which the first read() gives.

        Raises DeviceNotFound (no such device, or several, cannot be opened, no picture, and where
        `strict`, not as asked for), ConfigError without OpenCV, or without GStreamer in it.
        """
        self.disconnect()
        capture = self._open()
        try:
            picture = self._grab(capture)
            if picture is None:
                raise DeviceNotFound(f"{self._label}: opened, but gives no picture")
            info = self._describe(capture, picture[1])
        except BadData as exc:
            capture.release()
            raise DeviceNotFound(str(exc)) from exc
        except DeviceNotFound:
            capture.release()
            raise
        self._streams = (info,)
        self._run = _Run(capture, info, self._clock.now_ns())
        self._run.first = self._sample(self._run, *picture)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next picture; blocks until there is one, for at most the time that Config states.

        Raises BadData for a picture that cannot be decoded, DeviceLost when there are no more,
        when they change size, and when not connected. Where a URL's pictures change size, OpenCV
        scales them to the first and does not tell; the size is checked at each connect.
        """
        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        if run.first is not None:
            first, run.first = run.first, None
            return [first]
        try:
            run.lost += self._skip_queued(run)
            picture = self._grab(run.capture)
        except BadData:
            run.lost += 1
            raise
        finally:
            run.left_ns = self._clock.now_ns()
        if picture is None:
            # OpenCV neither reconnects nor goes on after a timeout: it has to be opened anew.
            raise DeviceLost(f"{self._label}: gives no more pictures")
        if picture[1].shape != run.info.shape:
            is_now, was = _size(picture[1].shape), _size(run.info.shape)
            raise DeviceLost(f"{self._label}: pictures are now {is_now}, were {was}")
        return [self._sample(run, *picture)]

    def disconnect(self) -> None:
        """Release the camera. Idempotent."""
        if self._run is not None:
            self._run.capture.release()
        self._run = None

    def _open(self) -> cv2.VideoCapture:
        c = self._config
        if is_pipeline(c.source):
            return open_pipeline(c.source, c.open_timeout_s, c.silence_s, self._label)
        if is_url(c.source):
            return open_url(c.source, c.transport, c.open_timeout_s, c.silence_s, self._label)
        path = f"/dev/video{c.source}" if c.source.isdecimal() else c.source
        if path == "auto":
            path = only_camera(find_cameras(), self._label)
        prepare_cv2()
        import cv2

        asked = {
            # First, as the sizes and rates that there are depend on it.
            cv2.CAP_PROP_FOURCC: c.fourcc and float(cv2.VideoWriter.fourcc(*c.fourcc)),
            cv2.CAP_PROP_FRAME_WIDTH: c.width,
            cv2.CAP_PROP_FRAME_HEIGHT: c.height,
            cv2.CAP_PROP_FPS: c.rate_hz,
        }
        wanted = {prop: float(value) for prop, value in asked.items() if value}
        return open_device(path, wanted, self._label)

    def _grab(self, capture: cv2.VideoCapture) -> tuple[int, Array] | None:
        """The next picture, as (its arrival in ns, BGR); None where there is none.

        Raises BadData where there is one that cannot be decoded.
        """
        if not capture.grab():
            return None
        arrival_ns = self._clock.now_ns()
        decoded, bgr = capture.retrieve()
        if not decoded or not bgr.size:
            raise BadData(f"{self._label}: a picture cannot be decoded")
        return arrival_ns, bgr

    def _skip_queued(self, run: _Run) -> int:
        """Throw away the pictures that came while nobody read; how many.

        When they came is not told, so they would be stamped as new. A queued one is there at once,
        where for a new one there is a wait.
        """
        now_ns, skipped = self._clock.now_ns(), 0
        away_ns = now_ns - run.left_ns
        if away_ns < from_s(AWAY_S):
            return 0
        until_ns = now_ns + away_ns
        wait_ns = from_s(0.5 / (run.info.rate_hz or USUAL_HZ))
        while now_ns < until_ns and run.capture.grab():
            skipped += 1
            before_ns, now_ns = now_ns, self._clock.now_ns()
            if now_ns - before_ns > wait_ns:
                break
        return skipped

    def _describe(self, capture: cv2.VideoCapture, bgr: Array) -> StreamInfo:
        """The stream as it is. Raises DeviceNotFound where `strict` and not as asked for."""
        import cv2

        c = self._config
        if bgr.ndim != 3 or bgr.shape[2] != 3 or bgr.dtype != np.uint8:
            raise DeviceNotFound(
                f"{self._label}: gives {bgr.dtype}{list(bgr.shape)}, expected BGR: end a pipeline "
                "with  videoconvert ! video/x-raw,format=BGR ! appsink"
            )
        height, width = bgr.shape[:2]
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        # Where a URL does not say its rate, FFmpeg makes one up.
        known = rate_hz > 0 and not is_url(c.source)
        told = [
            f"{field}: asked {asked}, got {got}"
            for field, asked, got in (("width", c.width, width), ("height", c.height, height))
            if asked not in (None, got)
        ]
        if c.rate_hz and not (known and math.isclose(c.rate_hz, rate_hz, rel_tol=RATE_TOLERANCE)):
            told.append(f"rate_hz: asked {c.rate_hz:g}, got {rate_hz if known else 'unknown'}")
        if c.fourcc:
            code = int(capture.get(cv2.CAP_PROP_FOURCC))
            got = code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace")
            if got != c.fourcc:
                told.append(f"fourcc: asked {c.fourcc}, got {got}")
        lens = c.intrinsics
        if lens is not None and (lens.width, lens.height) != (width, height):
            told.append(f"intrinsics: of {lens.width}x{lens.height}, got {width}x{height}")
            lens = None
        if told and c.strict:
            raise DeviceNotFound(f"{self._label}: {'; '.join(told)}")
        if told:
            logger.warning("%s: %s", self._label, "; ".join(told))
        return StreamInfo(
            name=self._name,
            modality="image",
            dtype="uint8",
            shape=(height, width, 3),
            rate_hz=rate_hz if known else None,
            unit="rgb8",
            topic=shown(c.source),
            intrinsics=None if lens is None else Intrinsics(**msgspec.structs.asdict(lens)),
        )

    def _sample(self, run: _Run, arrival_ns: int, bgr: Array) -> Sample:
        import cv2

        rgb: Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        lost, run.lost = run.lost, 0
        seq = run.next_seq + lost
        run.next_seq = seq + 1
        stamps = np.array([arrival_ns - from_s(self._config.latency_s)], np.int64)
        return Sample(run.info, seq, stamps, self._clock.now_ns(), rgb[np.newaxis], lost=lost)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


PLUGIN = CameraDriver
