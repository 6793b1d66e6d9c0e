"""The media driver on a real local HTTP server."""

from __future__ import annotations

import contextlib
import io
import threading
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent.clock import NS_PER_S, Clock, SystemClock
from agent.contracts import Driver
from agent.errors import DeviceLost, DeviceNotFound, DriverError
from tests.contracts.driver_contract import LiveDriverContract, by_stream, read_all
from tests.fakes.clips import packet_times, tone, write_clip
from tests.fakes.media import build, content, pictures, play, play_damaged, short_clip, times

LOGIN = "me:s3cret@"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_clip(tmp_path_factory.mktemp("media") / "clip.mp4")


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        # The driver hangs up when it is disconnected.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.serve(self)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """/file: the clip. /cut: half of it. /mjpeg: a live camera of 20 pictures. /stall: one that
    falls silent after five. /live.ts: one with sound and a clock. /private: asks for a password.
    """

    def __init__(self, clip: Path, live: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.clip, self.live = clip.read_bytes(), live.read_bytes()
        self.closing = threading.Event()

    def url(self, path: str, login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.server_port}/{path}"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        if path in ("/file", "/cut"):
            request.send_response(200)
            request.send_header("Content-Length", str(len(self.clip)))
            request.end_headers()
            request.wfile.write(self.clip[: len(self.clip) // (2 if path == "/cut" else 1)])
        elif path in ("/mjpeg", "/stall"):
            request.send_response(200)
            request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            request.end_headers()
            for picture in pictures(5 if path == "/stall" else 20):
                jpeg = io.BytesIO()
                Image.fromarray(picture).save(jpeg, "JPEG")
                head = (
                    f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.tell()}\r\n\r\n"
                )
                request.wfile.write(head.encode() + jpeg.getvalue() + b"\r\n")
                self.closing.wait(0.02)
            if path == "/stall":
                self.closing.wait(30)
        elif path == "/live.ts":
            request.send_response(200)
            request.end_headers()
            for start in range(0, len(self.live), 188 * 40):
                request.wfile.write(self.live[start : start + 188 * 40])
                self.closing.wait(0.01)
        elif path == "/private":
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="x"')
            request.end_headers()
        else:
            request.send_error(404)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of an MPEG transport stream."""
    path = tmp_path_factory.mktemp("live") / "live.ts"
    return write_clip(path, frames=pictures(60), sound=tone(96000, 48000))


@pytest.fixture(scope="module")
def server(clip: Path, live: Path) -> Iterator[Server]:
    with Server(clip, live) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


class TestLiveUrl(LiveDriverContract):
    @pytest.fixture
    def make_driver(self, server: Server, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(server.url("mjpeg"), clock)


class TestNetwork:
    def test_a_file_over_http_is_played_as_a_local_one(self, server: Server, clip: Path) -> None:
        local, remote = play(clip, speed=1), play(server.url("file"), speed=1)
        for name in ("cam_video", "cam_audio"):
            np.testing.assert_array_equal(content(local[name]), content(remote[name]))
            np.testing.assert_array_equal(times(local[name]), times(remote[name]))

    def test_a_connection_that_breaks_is_a_lost_device(self, server: Server) -> None:
        driver = build(server.url("cut"))
        driver.connect()
        with pytest.raises(DeviceLost, match="/cut: connection lost"):
            list(read_all(driver, 1000))

    def test_a_live_camera_is_stamped_as_it_arrives(self, server: Server) -> None:
        clock = SystemClock()
        before_ns = clock.now_ns()
        blocks, _, end = play_damaged(server.url("mjpeg"), clock=clock, speed=1)
        assert isinstance(end, DeviceLost)
        assert len(blocks) == 20
        info = blocks[0].stream
        assert (info.rate_hz, info.clock) == (None, "host")  # FFmpeg's 25 Hz would be made up
        for block in blocks:
            assert before_ns < block.t_ns[0] == block.arrival_ns < clock.now_ns()
        assert blocks[-1].t_ns[0] - blocks[5].t_ns[0] > 14 * 15_000_000  # as sent: 20 ms apart

    def test_a_live_source_with_a_clock_gives_its_stamps_too(
        self, server: Server, live: Path
    ) -> None:
        clock = SystemClock()
        samples, _, end = play_damaged(server.url("live.ts"), clock=clock)
        assert isinstance(end, DeviceLost)
        streams = by_stream(samples)
        for kind, exact_s in packet_times(live).items():
            blocks = streams[f"cam_{kind}"]
            assert blocks[0].stream.clock == "device"
            device = np.concatenate([b.device_t_ns for b in blocks if b.device_t_ns is not None])
            assert abs(device[0] - exact_s[0] * NS_PER_S) < 50_000  # a tick of its 90 kHz clock
            assert (np.diff(device) > 0).all()
            for block in blocks:
                assert block.t_ns[-1] <= block.arrival_ns
                assert (np.diff(block.t_ns) >= 0).all()
        video_ns = [
            int(b.device_t_ns[0]) for b in streams["cam_video"] if b.device_t_ns is not None
        ]
        assert len(video_ns) >= 55  # what the decoder still held is lost with the connection
        exact_ns = [t * NS_PER_S // 1 for t in packet_times(live)["video"]]
        assert video_ns == exact_ns[: len(video_ns)]
        span_ns = samples[-1].arrival_ns - samples[0].arrival_ns
        assert span_ns < 2 * NS_PER_S  # not paced: the server sends it faster than it plays

    def test_a_camera_that_falls_silent_is_lost(self, server: Server) -> None:
        driver = build(server.url("stall"), network_timeout_s=0.3)
        driver.connect()
        with pytest.raises(DeviceLost, match=r"silent for 0\.3 s"):
            list(read_all(driver, 1000))
        driver.disconnect()

    @pytest.mark.parametrize("path", ["private?token=s3cret", "missing?token=s3cret"])
    def test_secrets_stay_out_of_messages(self, server: Server, path: str) -> None:
        with pytest.raises(DeviceNotFound) as caught:
            build(server.url(path, LOGIN)).connect()
        whole = "".join(traceback.format_exception(caught.value))
        assert "s3cret" not in whole
        assert "127.0.0.1" in str(caught.value)
        assert "40" in str(caught.value)

    def test_secrets_stay_out_of_streams_and_later_errors(self, server: Server) -> None:
        driver = build(server.url("cut?token=s3cret", LOGIN))
        driver.connect()
        assert "s3cret" not in repr(driver.streams)
        with pytest.raises(DriverError) as caught:
            list(read_all(driver, 1000))
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    def test_nobody_listens(self) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as gone:
            port = gone.server_port
        with pytest.raises(DeviceNotFound, match=f"127.0.0.1:{port}/x: connection refused"):
            build(f"rtsp://{LOGIN}127.0.0.1:{port}/x").connect()
