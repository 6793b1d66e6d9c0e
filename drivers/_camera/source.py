"""Opening a camera with OpenCV: which of its backends, with which options, and what to say if not.

FFmpeg for a URL, GStreamer for a pipeline, V4L2 for a device under /dev.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ConfigError, DeviceNotFound
from agent.extras import needs_extra
from agent.redact import redact

if TYPE_CHECKING:
    import cv2

__all__ = [
    "NOT_ALLOWED",
    "is_pipeline",
    "open_device",
    "open_pipeline",
    "open_url",
    "prepare_cv2",
    "shown",
]

NOT_ALLOWED = "not allowed; join its group: sudo usermod -aG video $USER"

# OpenCV passes options to FFmpeg's open by this variable alone, which it reads at each open. It is
# not put back: another thread might read the environment meanwhile.
FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# One open at a time, as in OpenCV itself, so that each has the options of its own camera.
_opening = threading.Lock()


def is_pipeline(device: str) -> bool:
    """Whether it is a GStreamer pipeline, whose elements stand apart by "!" between spaces."""
    return re.search(r"\s!\s", device) is not None


def shown(device: str) -> str:
    """`device` for people. Any property of a pipeline may be a password: its source is shown."""
    if is_pipeline(device):
        return f"gstreamer:{device.split()[0]}"
    return redact(device)


def prepare_cv2() -> None:
    """See that OpenCV can be imported, and is silent: FFmpeg's own lines would name a URL with its
    password, or tear a live table, and our errors say as much. Raises ConfigError without OpenCV.
    """
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # AV_LOG_QUIET; read at FFmpeg's first open
    with needs_extra("camera"):
        import cv2
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def open_url(
    url: str, transport: str, open_timeout_s: float, silence_s: float, label: str
) -> cv2.VideoCapture:
    """A stream at a URL, by FFmpeg. Raises DeviceNotFound."""
    prepare_cv2()
    import cv2

    options = {
        "rtsp_transport": transport,
        # Else the pictures that FFmpeg looked at to know the stream, a second of them, come first
        # and at once, and are stamped as if they were new.
        "fflags": "nobuffer",
        "fpsprobesize": "0",
    }
    with _opening:
        os.environ[FFMPEG_OPTIONS] = "|".join(f"{name};{value}" for name, value in options.items())
        params = {
            **_timeouts(open_timeout_s, silence_s),
            cv2.CAP_PROP_N_THREADS: 1,  # each further thread of FFmpeg holds back a picture
        }
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, _flat(params))
    if not capture.isOpened():
        raise DeviceNotFound(
            f"{label}: cannot be opened (refused, a wrong login or path, no video stream, or "
            f"silent for {open_timeout_s:g} s)"
        )
    return capture


def open_pipeline(
    pipeline: str, open_timeout_s: float, silence_s: float, label: str
) -> cv2.VideoCapture:
    """A GStreamer pipeline. Raises DeviceNotFound, ConfigError where OpenCV has no GStreamer."""
    prepare_cv2()
    import cv2

    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise ConfigError(
            f"{label}: OpenCV {cv2.__version__} here is built without GStreamer, as all from pip "
            "are: pip uninstall opencv-python-headless, and use JetPack's own or Debian's "
            "python3-opencv, in a venv made with --system-site-packages"
        )
    params = _timeouts(open_timeout_s, silence_s)
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER, _flat(params))
    if not capture.isOpened():
        raise DeviceNotFound(
            f"{label}: cannot be opened (try it with gst-launch-1.0, appsink replaced by fakesink)"
        )
    return capture


def open_device(path: str, asked: Mapping[int, float], label: str) -> cv2.VideoCapture:
    """A V4L2 device. asked: OpenCV's properties to set, in order. Raises DeviceNotFound."""
    prepare_cv2()
    import cv2

    capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    if not capture.isOpened():
        reason = "in use by another program, or not a camera"
        if not Path(path).exists():
            reason = f"there is no {path}"
        elif not os.access(path, os.R_OK | os.W_OK):
            reason = NOT_ALLOWED
        raise DeviceNotFound(f"{label}: cannot be opened ({reason})")
    for prop, value in asked.items():
        capture.set(prop, value)
    return capture


def _timeouts(open_timeout_s: float, silence_s: float) -> dict[int, int]:
    import cv2

    return {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: round(open_timeout_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: round(silence_s * 1000),
    }


def _flat(params: Mapping[int, int]) -> list[int]:
    return [number for param in params.items() for number in param]
