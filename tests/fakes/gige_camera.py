"""Aravis's fake GigE Vision camera on the loopback: a real peer that can be killed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import pytest

from tests.fakes.killable import Killable

__all__ = ["ADDRESS", "FRAME_HZ", "PROGRAM", "SERIAL", "SHAPE", "GigeCamera"]

PROGRAM = "arv-fake-gv-camera-0.8"
ADDRESS, SERIAL = "127.0.0.1", "GV77"
SHAPE, FRAME_HZ = (512, 512), 25
PORT = 3956


class GigeCamera(Killable):
    """`start` waits until it listens; `lost_permille` datagrams of its pictures go missing."""

    def __init__(self, lost_permille: int = 0) -> None:
        if shutil.which(PROGRAM) is None:
            pytest.skip(f"needs {PROGRAM}: apt-get install aravis-tools")
        self._lost = lost_permille

    def start(self) -> None:
        until = time.monotonic() + 20
        while _taken():  # by another run of the tests: there is one such port
            assert time.monotonic() < until, f"port {PORT} of {ADDRESS} is in use"
            time.sleep(0.05)
        command = [PROGRAM, "-i", ADDRESS, "-s", SERIAL, "-r", str(self._lost)]
        self._process = subprocess.Popen(command)
        while not _taken():
            assert self._process.poll() is None, f"{PROGRAM} has ended"
            assert time.monotonic() < until, f"{PROGRAM} does not listen"
            time.sleep(0.01)


def _taken() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ADDRESS, PORT))
        except OSError:
            return True
    return False
