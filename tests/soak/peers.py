"""What stands in for each device: started, killed, and true about when it gave what."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from tests.fakes.gige_camera import GigeCamera
from tests.fakes.mjpeg_server import MjpegServer
from tests.fakes.pulse import PulseServer
from tests.soak.sound_port import RATE_HZ as AUDIO_HZ

__all__ = ["Camera", "Imu", "IsolatedChild", "Microphone", "Peer", "Thermal"]


class Peer(Protocol):
    """What a device is here. starts: when, by CLOCK_MONOTONIC, what it gives began."""

    starts: list[int]

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Port:
    """A process of this package that gives something at its pace; start_ns: since when."""

    def __init__(self, module: str, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.{module}", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # that nobody takes it any more
            text=True,
        )
        assert self._process.stdout is not None
        self.start_ns = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Camera:
    def __init__(self) -> None:
        self.starts: list[int] = []
        self.server = MjpegServer()
        self.start, self.kill = self.server.start, self.server.stop


class Microphone:
    def __init__(self, folder: Path, environment: pytest.MonkeyPatch) -> None:
        self.starts: list[int] = []
        folder.mkdir()
        self._server = PulseServer(folder)
        self._server.use(environment)
        self._fifo = folder / "fifo"
        self._port: Port | None = None

    def start(self) -> None:
        self._server.start(fed_hz=AUDIO_HZ)
        self._port = Port("sound_port", self._fifo)
        self.starts.append(self._port.start_ns)

    def kill(self) -> None:
        self._server.stop()
        if self._port is not None:
            self._port.kill()


class Imu:
    def __init__(self, path: Path) -> None:
        self.starts: list[int] = []
        self._path = path
        self._port: Port | None = None

    def start(self) -> None:
        self._port = Port("imu_port", self._path)
        self.starts.append(self._port.start_ns)

    def kill(self) -> None:
        if self._port is not None:
            self._port.kill()


class Thermal:
    def __init__(self) -> None:
        self.starts: list[int] = []
        camera = GigeCamera()
        self.start, self.kill = camera.start, camera.stop


class IsolatedChild:
    """The driver's own process: the agent starts it, and starts it again."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.agent: psutil.Process | None = None

    def start(self) -> None:
        pass

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in self.agent.children() if self.agent else ():
                if "agent.isolation.child" in child.cmdline():
                    child.kill()
