"""The program of rtsp_server.py: H.264 over RTSP. Run by the system's Python, which has GStreamer.

    /live 640x480    /small 320x240

Each at 30 pictures a second, of clock_picture.py with CLOCK_MONOTONIC as the time. Arguments: the
port, 0 for a free one, and where a login is asked for, user and password.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # its version has to be said first

from tests.fakes.clock_picture import luma  # noqa: E402  # stands with the others

RATE_HZ = 30
PATHS = {"/live": (640, 480), "/small": (320, 240)}
ROLE = "watcher"
LAUNCH = (
    "( appsrc name=camera is-live=true format=time do-timestamp=true ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=4000 ! "
    "rtph264pay config-interval=1 name=pay0 pt=96 )"
)


def configure(factory: Any, media: Any, size: tuple[int, int]) -> None:
    """Let pictures come until nobody watches any more."""
    width, height = size
    source = media.get_element().get_by_name_recurse_up("camera")
    form = f"format=I420,width={width},height={height},framerate={RATE_HZ}/1"
    source.set_property("caps", Gst.Caps.from_string(f"video/x-raw,{form}"))
    started_ns, sent, watched = 0, 0, True

    def begin(source: Any, length: int) -> None:
        # Pictures from before it plays have no running time: at times none came after them.
        nonlocal started_ns
        if not started_ns:
            started_ns = time.monotonic_ns()
            GLib.timeout_add(1, tick)

    def end(media: Any) -> None:
        nonlocal watched
        watched = False

    def tick() -> bool:
        nonlocal sent
        now_ns = time.monotonic_ns()
        # A timer of whole milliseconds would drift from the rate by a hundredth.
        if now_ns - started_ns >= sent * 1_000_000_000 // RATE_HZ:
            sent += 1
            grey = luma(now_ns // 1000, width, height)
            colour = bytes([128]) * (width * height // 2)
            source.emit("push-buffer", Gst.Buffer.new_wrapped(grey + colour))
        return watched

    source.connect("need-data", begin)
    media.connect("unprepared", end)


def main(port: str, *login: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    if login:
        auth = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*login), token)
        server.set_auth(auth)
    for path, size in PATHS.items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(LAUNCH)
        factory.set_shared(True)
        permissions = Gst.Structure.new_empty(ROLE)
        permissions.set_value("media.factory.access", True)
        permissions.set_value("media.factory.construct", True)
        factory.add_role_from_structure(permissions)
        factory.connect("media-configure", partial(configure, size=size))
        server.get_mount_points().add_factory(path, factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()
    # It ends when its input does, so that it cannot outlive the tests.
    GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_HUP, lambda *_: loop.quit())
    loop.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
