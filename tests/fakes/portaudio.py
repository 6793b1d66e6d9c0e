"""What a test needs of the module sounddevice, for what no real sound server does on demand."""

from __future__ import annotations

from collections.abc import Container
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["FakeSounddevice", "FakeStream"]


class FakeStream:
    """A stream whose callback the test calls, by `give`."""

    def __init__(self, sd: FakeSounddevice, callback: Any, **asked: Any) -> None:
        if sd.refuse_open is not None:
            raise sd.refuse_open
        if asked["samplerate"] not in sd.rates_hz:
            raise sd.PortAudioError("Error opening: Invalid sample rate", -9997)
        if asked["channels"] not in sd.counts:
            raise sd.PortAudioError("Error opening: Invalid number of channels", -9998)
        self._sd, self._callback, self.asked = sd, callback, asked
        self._aborted = False
        sd.held += 1
        sd.stream = self

    @property
    def active(self) -> bool:
        """Until it is aborted, or its callback, which PortAudio calls all the time, ends it."""
        return not (self._aborted or self._callback.ending)

    def start(self) -> None:
        if self._sd.refuse_start is not None:
            raise self._sd.refuse_start

    def abort(self) -> None:
        self._aborted = True

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
    """The module. held: streams that are open. starts: how often PortAudio was started anew.

    names: of its inputs; those of hw: cards are ALSA's. rates_hz, counts: what a stream may have.
    """

    class PortAudioError(Exception):
        pass

    class CallbackStop(Exception):
        pass

    def __init__(self, *names: str) -> None:
        self.names = names or ("made up",)
        self.rates_hz: Container[int] = range(1, 1_000_000)
        self.counts: Container[int] = range(1, 65)
        self.refuse_open: Exception | None = None
        self.refuse_start: Exception | None = None
        self.stream: FakeStream | None = None
        self.held = self.starts = self._initialized = 0
        self.default = SimpleNamespace(device=(-1, -1))

    def _terminate(self) -> None:
        assert not self.held, "PortAudio ends every stream when it is ended"
        self._initialized -= 1

    def _initialize(self) -> None:
        self.starts += 1
        self._initialized += 1

    def query_hostapis(self, index: int | None = None) -> Any:
        apis = [{"name": "ALSA", "default_input_device": 0}]
        return apis if index is None else apis[index]

    def query_devices(self) -> list[dict[str, Any]]:
        return [
            {
                "index": index,
                "name": name,
                "hostapi": 0,
                "max_input_channels": 8,
                "default_samplerate": 16000.0,
            }
            for index, name in enumerate(self.names)
        ]

    def check_input_settings(
        self, device: int, channels: int, dtype: str, extra: None, rate_hz: int
    ) -> None:
        if rate_hz not in self.rates_hz:
            raise self.PortAudioError("Invalid sample rate", -9997)

    def RawInputStream(self, callback: Any, **asked: Any) -> FakeStream:
        return FakeStream(self, callback, **asked)
