"""A serial device that sends at its pace, on a pseudo-terminal, and can be unplugged."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.fakes.pty_port import PtyPort

__all__ = ["SerialDevice"]


class SerialDevice(PtyPort):
    """Sends `message(0)`, `message(1)`, ... at `rate_hz`, from message 0 on whenever plugged in.

    A serial line does not wait for who reads: what a full pseudo-terminal (4 kB) does not take is
    lost. Where `keeps`, it is sent later instead, so that a busy machine loses nothing.
    """

    def __init__(
        self, path: Path, message: Callable[[int], bytes], rate_hz: float, *, keeps: bool = False
    ) -> None:
        super().__init__(path)
        self._message, self.rate_hz, self._keeps = message, rate_hz, keeps
        self.sent_ns: list[int] = []
        """time.monotonic_ns() of each message."""
        self.start_ns = 0
        """time.monotonic_ns() at which message 0 is due, and each next one a period later."""

    def plug(self) -> None:
        self.sent_ns = []
        super().plug()

    def _serve(self) -> None:
        self.start_ns = time.monotonic_ns()
        start, number, rest = self.start_ns / 1e9, 0, b""
        while not self._stop.wait(max(0.0, start + number / self.rate_hz - time.monotonic())):
            data, sent = rest + self._message(number), 0
            with suppress(BlockingIOError):
                sent = os.write(self._master, data)
            rest = data[sent:] if self._keeps else b""
            self.sent_ns.append(time.monotonic_ns())
            number += 1
