"""Config of the driver `camera`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from agent.redact import is_url, redact
from agent.types import Settings
from drivers._camera.source import is_pipeline

__all__ = ["CameraConfig", "LensConfig"]

DEVICE = re.compile(
    r"auto|\d+|/dev/\S+|(rtsp|http)s?://\S+|[a-z]\w*\s(.*\s)?!\s+appsink\b[^!]*", re.S
)

Pixels = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


class LensConfig(Settings, frozen=True, kw_only=True):
    """A calibration, made on pictures of width x height; see agent.types.Intrinsics."""

    width: Pixels
    height: Pixels
    fx: Positive
    fy: Positive
    cx: float
    cy: float
    distortion: str = ""
    coefficients: tuple[float, ...] = ()


class CameraConfig(Settings, frozen=True, kw_only=True):
    """device: a path (best one under /dev/v4l/by-id, which stays the same), an index (0 is
    /dev/video0), "auto" for the only camera there is, an rtsp or http URL, or a GStreamer pipeline
    that ends in appsink, for an OpenCV that has GStreamer (for CSI cameras on a Jetson).

    width, height in pixels, rate_hz, fourcc ("MJPG"): asked of a device under /dev, which may give
    others; a URL and a pipeline cannot be asked. A difference is a warning in the log; where
    strict, connect fails. transport: of RTSP. open_timeout_s: of a URL and a pipeline. silence_s:
    so long without a picture, and theirs are lost; one read() can block for as long. For a device
    under /dev it is OpenCV's own 10 s. latency_s: from a picture's capture to its arrival, where
    it is known, which each stamp is set back by. intrinsics: told of pictures of their size alone.
    """

    device: int | str
    width: Pixels | None = None
    height: Pixels | None = None
    rate_hz: Positive | None = None
    fourcc: Annotated[str, Meta(pattern="^[ -~]{4}$")] | None = None
    strict: bool = False
    transport: Literal["tcp", "udp"] = "tcp"
    open_timeout_s: Positive = 5.0
    silence_s: Positive = 2.0
    latency_s: Annotated[float, Meta(ge=0, le=10)] = 0.0
    intrinsics: LensConfig | None = None

    def __post_init__(self) -> None:
        if not DEVICE.fullmatch(self.source):
            # A URL without its scheme, or a pipeline, may hold a password.
            hide = not is_url(self.source) and re.search("[@!]", self.source)
            got = "***" if hide else redact(self.source)
            raise ValueError(
                f"device: got {got!r}, expected an index such as 0, a path under /dev, auto, a URL "
                "such as rtsp://host/path, or a GStreamer pipeline that ends in appsink; a file is "
                "read by kind media"
            )
        if self.fourcc is not None and (is_pipeline(self.source) or is_url(self.source)):
            raise ValueError("fourcc: can be asked of a device under /dev only")

    @property
    def source(self) -> str:
        """`device` as text."""
        return str(self.device)
