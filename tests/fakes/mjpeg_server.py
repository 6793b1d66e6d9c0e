"""A camera that speaks MJPEG over HTTP, in a process of its own so that it can really be killed.

    /live  for ever    /end  five pictures    /stall  five, then silence    /resize  five, then
    larger ones    /private  asks for a password    /silent  never answers
    /frozen  five, then one for FROZEN_S, then on    /other  larger for all but the first who asks

Pictures are red on the left; on the right their green is 8 times their number, modulo 240. Those of
    /clock  are of clock_picture.py, 640x480, 30 a second, with CLOCK_MONOTONIC as the time
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import numpy as np
from PIL import Image

from tests.fakes.clock_picture import luma
from tests.fakes.killable import Killable

__all__ = ["CLOCK_SIZE", "FROZEN_S", "SIZE", "MjpegServer", "number_of", "picture"]

SIZE = (64, 48)
PERIOD_S = 0.01
FEW = 5
SILENCE_S = 60
FROZEN_S = 1.5
CLOCK_SIZE = (640, 480)
CLOCK_HZ = 30


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    rgb[:, : size[0] // 2] = (200, 0, 0)
    rgb[:, size[0] // 2 :] = (0, 8 * (number % 30), 0)
    return rgb


def number_of(rgb: np.ndarray) -> int:
    """The number of a decoded picture, modulo 30."""
    return round(float(rgb[:, rgb.shape[1] * 3 // 4 :, 1].mean()) / 8)


class MjpegServer(Killable):
    """The process. `stop` kills it; `start` brings it back at the same port."""

    def __init__(self) -> None:
        self.port = 0

    def start(self) -> None:
        # It ends when its input does, so that it cannot outlive the tests.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.mjpeg_server", str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, path: str = "live", login: str = "") -> str:
        return f"http://{login}127.0.0.1:{self.port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/silent":
            time.sleep(SILENCE_S)
        elif path == "/private":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
        else:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._stream(path)

    def _stream(self, path: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        for rgb in _clock() if path == "/clock" else _pictures(path):
            jpeg = io.BytesIO()
            Image.fromarray(rgb).save(jpeg, "JPEG", quality=95)
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {jpeg.tell()}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg.getvalue() + b"\r\n")

    def log_message(self, *args: object) -> None:
        pass


def _pictures(path: str) -> Iterator[np.ndarray]:
    size, other = SIZE, (2 * SIZE[0], 2 * SIZE[1])
    if path == "/other" and next(_asked):
        size = other
    for number in count():
        few = number < FEW
        if path == "/end" and not few:
            return
        if path == "/stall" and not few:
            time.sleep(SILENCE_S)
        if path == "/resize" and not few:
            size = other
        again = round(FROZEN_S / PERIOD_S) if path == "/frozen" and number == FEW else 1
        for _ in range(again):
            yield picture(number, size)
            time.sleep(PERIOD_S)


def _clock() -> Iterator[np.ndarray]:
    width, height = CLOCK_SIZE
    started_ns = time.monotonic_ns()
    for number in count(1):
        grey = luma(time.monotonic_ns() // 1000, width, height)
        yield np.frombuffer(grey, np.uint8).reshape(height, width)
        due_ns = started_ns + number * 1_000_000_000 // CLOCK_HZ
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)


_asked = count()

if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()
