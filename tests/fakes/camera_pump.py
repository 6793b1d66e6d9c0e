"""A camera as the agent runs it: its driver in a real pump, on a thread, in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from agent.clock import SystemClock
from agent.config import DriverConfig
from agent.stream.pump import Pump, StreamState
from agent.types import Sample
from drivers.camera import PLUGIN, CameraConfig

__all__ = ["CameraPump"]

PATIENCE_S = 30


class CameraPump:
    """`with CameraPump(...) as pump`. said: (state, reason) of each change; samples: all of them.

    around: fields of DriverConfig, beside those that the kind has by default. The others are the
    camera's own.
    """

    def __init__(self, device: str, around: dict[str, Any] | None = None, **fields: Any) -> None:
        config = msgspec.convert(
            {"kind": "camera", **PLUGIN.defaults, **(around or {})}, DriverConfig
        )
        self.said: list[tuple[str, str]] = []
        self.samples: list[Sample] = []
        self._clock = SystemClock()
        driver = PLUGIN("cam", CameraConfig(device=device, **fields), self._clock)
        self._pump = Pump("cam", driver, config, self._clock, self._say)
        self._pump.sinks.append(self.samples.append)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pump.run, args=(self._stop,))

    def __enter__(self) -> CameraPump:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    @property
    def state(self) -> str:
        return self.said[-1][0] if self.said else "offline"

    @property
    def reconnects(self) -> int:
        return sum(state.reconnects for state in self._pump.streams.values())

    def until(self, true: Callable[[], bool]) -> float:
        """Wait for it, as the agent watches; how many seconds that took."""
        started_s = time.monotonic()
        while not true():
            self._pump.watch(self._clock.now_ns())
            took_s = time.monotonic() - started_s
            assert took_s < PATIENCE_S, f"not so within {PATIENCE_S} s: {self.said}"
            time.sleep(0.01)
        return time.monotonic() - started_s

    def _say(self, state: StreamState) -> None:
        self.said.append((state.state, state.reason))
