"""Aravis's fake GigE Vision camera on the loopback: a real peer that can be killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TextIO

import pytest

from tests.fakes.killable import Killable

__all__ = ["ADDRESS", "FRAME_HZ", "PROGRAM", "SERIAL", "SHAPE", "GigeCamera", "give_port_back"]

PROGRAM = "arv-fake-gv-camera-0.8"
ADDRESS, SERIAL = "127.0.0.1", "GV77"
SHAPE, FRAME_HZ = (512, 512), 25
PORT = 3956


class _Turn:
    """Tests run side by side in several processes, and there is one such port: the first camera of
    a process takes it for all of the process's, until the end of the test file.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def take(self) -> None:
        if self._file is None:
            path = Path(tempfile.gettempdir()) / f"sensebind-gige-{os.getuid()}.lock"
            self._file = path.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def give_back(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


_TURN = _Turn()
give_port_back = _TURN.give_back


class GigeCamera(Killable):
    """`start` waits until it listens; `lost_permille` datagrams of its pictures go missing."""

    def __init__(self, lost_permille: int = 0) -> None:
        if shutil.which(PROGRAM) is None:
            pytest.skip(f"needs {PROGRAM}: apt-get install aravis-tools")
        self._lost = lost_permille

    def start(self) -> None:
        _TURN.take()
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
