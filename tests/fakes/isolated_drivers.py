"""A driver that fails as SDKs do; package.py makes its kind known to any process."""

from __future__ import annotations

import ctypes
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from agent.clock import Clock, from_s
from agent.errors import BadData, DeviceBusy, DeviceLost, DeviceNotFound, EndOfStream
from agent.extras import needs_extra
from agent.types import Sample, Settings, StreamInfo

__all__ = ["FailingConfig", "FailingDriver"]

Fault = Literal["none", "busy", "extra", "crash", "hang", "bug", "exit", "bad", "subclass", "talk"]
PERIOD_S = 0.01


class OwnError(DeviceLost):
    """A driver's own error, which another process cannot know."""


class FailingConfig(Settings, frozen=True, kw_only=True):
    """at: in connect, or in the read after `after` blocks. gate: no device until it is there.

    width: float32 values in one tick. ticks: of one block. blocks: ticks in all.
    """

    fault: Fault = "none"
    at: Literal["connect", "read"] = "read"
    after: Annotated[int, Meta(ge=0)] = 3
    gate: Path | None = None
    width: Annotated[int, Meta(ge=1)] = 4
    ticks: Annotated[int, Meta(ge=1)] = 1
    rate_hz: float = 100.0
    blocks: int | None = None


class FailingDriver:
    """A block every 10 ms, each value its tick's number; stamps of a device's clock too."""

    Config = FailingConfig

    def __init__(self, name: str, config: FailingConfig, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._info = StreamInfo(
            name, "temperature", "float32", (config.width,), config.rate_hz, "c", clock="device"
        )
        self._seq = -1

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return (self._info,)

    def connect(self) -> None:
        gate = self._config.gate
        if gate is not None and not gate.exists():
            raise DeviceNotFound(f"failing: there is no {gate.name}")
        if self._config.at == "connect":
            self._fail()
        self._seq = 0

    def read(self, timeout_s: float) -> Sequence[Sample]:
        if self._seq < 0:
            raise DeviceLost("failing: not connected")
        if self._config.blocks == self._seq:
            raise EndOfStream("failing: through")
        if self._config.at == "read" and self._seq == self._config.after:
            self._fail()
        time.sleep(PERIOD_S)
        now_ns = self._clock.now_ns()
        numbers = np.arange(self._seq, self._seq + self._config.ticks)
        data = np.repeat(numbers[:, np.newaxis].astype(np.float32), self._config.width, axis=1)
        t_ns = np.full(len(numbers), now_ns)
        sample = Sample(self._info, self._seq, t_ns, now_ns, data, from_s(PERIOD_S) * numbers)
        self._seq += len(numbers)
        return [sample]

    def disconnect(self) -> None:
        self._seq = -1

    def _fail(self) -> None:
        fault = self._config.fault
        if fault == "busy":
            raise DeviceBusy("failing: another program has it")
        if fault == "extra":
            with needs_extra("imu"):
                import a_package_that_is_not_there  # noqa: F401  # it is not there on purpose
        if fault == "crash":
            ctypes.string_at(0)
        if fault == "hang":
            ctypes.PyDLL(None).sleep(3600)  # in C, and with the GIL held
        if fault == "bug":
            raise ZeroDivisionError("a bug of the driver")
        if fault == "exit":
            os._exit(7)
        if fault == "bad":
            self._seq += 1
            raise BadData("failing: a block is unusable")
        if fault == "subclass":
            raise OwnError("failing: in a way of its own")
        if fault == "talk":
            logging.getLogger("sdk").error("a log line of the SDK")
            print(f"printed by the SDK, PYTHONPATH={os.environ['PYTHONPATH']}", flush=True)
            os.write(2, b"written by C code\n")
