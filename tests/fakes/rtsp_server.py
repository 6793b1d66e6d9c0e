"""A camera that speaks RTSP, in a process of its own so that it can really be killed and hung."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.fakes.killable import Killable

__all__ = ["SIZE", "RtspServer", "why_not"]

PYTHON = Path("/usr/bin/python3")  # the system's: GStreamer's bindings come by apt alone
SIZE = (640, 480)
ROOT = Path(__file__).parents[2]
APT = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,ugly}"
CHECK = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
raise SystemExit(not all(map(Gst.ElementFactory.find, ("appsrc", "x264enc", "rtph264pay"))))
"""


def why_not() -> str | None:
    """What is missing here, for a skip; None where all is there."""
    if (
        PYTHON.exists()
        and not subprocess.run([PYTHON, "-c", CHECK], capture_output=True).returncode
    ):
        return None
    return f"no RTSP server of GStreamer: apt install {APT}"


class RtspServer(Killable):
    """The process. `stop` kills it; `start` brings it back at the same port.

    login: user and password that it asks for; none where empty.
    """

    def __init__(self, *login: str) -> None:
        self.port = 0
        self._login = login

    def start(self) -> None:
        self._process = subprocess.Popen(
            [PYTHON, "-m", "tests.fakes.rtsp_camera", str(self.port), *self._login],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, path: str = "live", login: str = "") -> str:
        return f"rtsp://{login}127.0.0.1:{self.port}/{path}"
