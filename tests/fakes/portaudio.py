"""What a test needs of the module sounddevice, for what no real sound server does on demand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["FakeSounddevice", "FakeStream"]


class FakeStream:
    """A stream whose callback the test calls, by `give`."""

    active = True

    def __init__(self, sd: FakeSounddevice, callback: Callable[..., None], **asked: Any) -> None:
        if sd.refuse_open is not None:
            raise sd.refuse_open
        self._sd, self._callback, self.asked = sd, callback, asked
        sd.held += 1
        sd.stream = self

    def start(self) -> None:
        if self._sd.refuse_start is not None:
            raise self._sd.refuse_start

    def abort(self) -> None:
        self.active = False

    def close(self) -> None:
        self._sd.held -= 1

    def give(
        self, data: np.ndarray, capture_s: float = 0.0, now_s: float = 0.0, overflow: bool = False
    ) -> None:
        """A block int16 (n, channels), with PortAudio's own times."""
        times = SimpleNamespace(inputBufferAdcTime=capture_s, currentTime=now_s)
        buffer = bytearray(data.tobytes())
        self._callback(buffer, len(data), times, SimpleNamespace(input_overflow=overflow))
        buffer[:] = bytes(len(buffer))  # PortAudio's memory is its own again


class FakeSounddevice:
    """The module. held: streams that are open. starts: how often PortAudio was started anew."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        self.refuse_open: Exception | None = None
        self.refuse_start: Exception | None = None
        self.stream: FakeStream | None = None
        self.held = self.starts = 0

    def _terminate(self) -> None:
        assert not self.held, "PortAudio ends every stream when it is ended"

    def _initialize(self) -> None:
        self.starts += 1

    def query_devices(self, device: object, kind: str) -> dict[str, Any]:
        return {"name": "made up", "index": 3, "default_samplerate": 16000.0}

    def RawInputStream(self, callback: Callable[..., None], **asked: Any) -> FakeStream:
        return FakeStream(self, callback, **asked)
