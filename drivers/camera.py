"""Driver `camera`: a camera by its index, device path or URL, through OpenCV.

One stream, named as the driver: uint8 RGB (height, width, 3). A picture is stamped on the agent's
clock as soon as OpenCV has it, before it is converted: OpenCV's own times cannot be trusted (for
MJPEG over HTTP they count up by 40 ms whatever the rate).
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta

from agent.clock import Clock
from agent.errors import BadData, DeviceLost, DeviceNotFound
from agent.extras import needs_extra
from agent.redact import is_url, redact
from agent.types import Array, Sample, Settings, StreamInfo

if TYPE_CHECKING:
    import cv2

__all__ = ["PLUGIN", "CameraConfig", "CameraDriver"]

logger = logging.getLogger(__name__)

DEVICE = re.compile(r"\d+|/dev/.+|(rtsp|http)s?://.+")
# 29.97 is what a camera that is asked for 30 may say.
RATE_TOLERANCE = 0.01

Pixels = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


class CameraConfig(Settings, frozen=True, kw_only=True):
    """device: an index ("0" is /dev/video0), a path under /dev, or an rtsp or http URL.

    width, height in pixels, rate_hz: asked of the device, which may give another; a URL's camera
    cannot be asked. A difference is a warning in the log; where strict, connect fails.
    open_timeout_s, read_timeout_s: of a URL; one read() can block for as long. For a device under
    /dev it is OpenCV's own 10 s.
    """

    device: str
    width: Pixels | None = None
    height: Pixels | None = None
    rate_hz: Positive | None = None
    strict: bool = False
    open_timeout_s: Positive = 5.0
    read_timeout_s: Positive = 2.0

    def __post_init__(self) -> None:
        if not DEVICE.fullmatch(self.device):
            # A URL without its scheme may hold a password.
            shown = "***" if "@" in self.device else self.device
            raise ValueError(
                f"device: got {shown!r}, expected an index such as 0, a path under /dev, or a URL "
                "such as rtsp://host/path; a file is read by kind media"
            )


@dataclass
class _Run:
    """What lasts from connect to disconnect. first: the picture taken in connect."""

    capture: cv2.VideoCapture
    info: StreamInfo
    first: Sample | None = None
    next_seq: int = 0
    lost: int = 0


class CameraDriver:
    """See the module docstring. `seq` counts pictures since connect."""

    Config = CameraConfig

    def __init__(self, name: str, config: CameraConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"camera {name}: {redact(config.device)}"
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the device decides the size."""
        return self._streams

    def connect(self) -> None:
        """Open the camera and take its first picture, which the first read() gives.

        Raises DeviceNotFound (no such device, cannot be opened, no picture, and where `strict`,
        not as asked for), ConfigError without OpenCV.
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
        self._run = _Run(capture, info)
        self._run.first = self._sample(self._run, *picture)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next picture; blocks until there is one, for at most the time that Config states.

        Raises BadData for a picture that cannot be decoded, DeviceLost when there are no more
        and when not connected. Where a URL's pictures change size, OpenCV scales them to the first.
        """
        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        if run.first is not None:
            first, run.first = run.first, None
            return [first]
        try:
            picture = self._grab(run.capture)
        except BadData:
            run.lost += 1
            raise
        if picture is None:
            # OpenCV neither reconnects nor goes on after a timeout: it has to be opened anew.
            raise DeviceLost(f"{self._label}: gives no more pictures")
        return [self._sample(run, *picture)]

    def disconnect(self) -> None:
        """Release the camera. Idempotent."""
        if self._run is not None:
            self._run.capture.release()
        self._run = None

    def _open(self) -> cv2.VideoCapture:
        with needs_extra("camera"):
            import cv2
        # Its warnings say no more than our errors do, and tear the demo's live table.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        c = self._config
        if is_url(c.device):
            options = {
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: round(c.open_timeout_s * 1000),
                cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(c.read_timeout_s * 1000),
                cv2.CAP_PROP_N_THREADS: 1,  # each further thread of FFmpeg holds back a picture
            }
            flat = [number for option in options.items() for number in option]
            capture = cv2.VideoCapture(c.device, cv2.CAP_FFMPEG, flat)
            reason = f"refused, no video stream, or silent for {c.open_timeout_s:g} s"
        else:
            path = f"/dev/video{c.device}" if c.device.isdecimal() else c.device
            capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
            reason = "in use by another program, not allowed, or not a camera"
            if not Path(path).exists():
                reason = f"there is no {path}"
            for prop, asked in (
                (cv2.CAP_PROP_FRAME_WIDTH, c.width),
                (cv2.CAP_PROP_FRAME_HEIGHT, c.height),
                (cv2.CAP_PROP_FPS, c.rate_hz),
            ):
                if asked is not None:
                    capture.set(prop, asked)
        if not capture.isOpened():
            raise DeviceNotFound(f"{self._label}: cannot be opened ({reason})")
        return capture

    def _grab(self, capture: cv2.VideoCapture) -> tuple[int, Array] | None:
        """The next picture, as (t_ns, BGR); None where there is none.

        Raises BadData where there is one that cannot be decoded.
        """
        if not capture.grab():
            return None
        t_ns = self._clock.now_ns()
        decoded, bgr = capture.retrieve()
        if not decoded:
            raise BadData(f"{self._label}: a picture cannot be decoded")
        return t_ns, bgr

    def _describe(self, capture: cv2.VideoCapture, bgr: Array) -> StreamInfo:
        """The stream as it is. Raises DeviceNotFound where `strict` and not as asked for."""
        import cv2

        c, (height, width) = self._config, bgr.shape[:2]
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        # Where a URL does not say its rate, FFmpeg makes one up.
        known = rate_hz > 0 and not is_url(c.device)
        told = [
            f"{field}: asked {asked}, got {got}"
            for field, asked, got in (("width", c.width, width), ("height", c.height, height))
            if asked not in (None, got)
        ]
        if c.rate_hz and not (known and math.isclose(c.rate_hz, rate_hz, rel_tol=RATE_TOLERANCE)):
            told.append(f"rate_hz: asked {c.rate_hz:g}, got {rate_hz if known else 'unknown'}")
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
            topic=redact(c.device),
        )

    def _sample(self, run: _Run, t_ns: int, bgr: Array) -> Sample:
        import cv2

        rgb: Array = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        lost, run.lost = run.lost, 0
        seq = run.next_seq + lost
        run.next_seq = seq + 1
        stamps = np.array([t_ns], np.int64)
        return Sample(run.info, seq, stamps, self._clock.now_ns(), rgb[np.newaxis], lost=lost)


PLUGIN = CameraDriver
