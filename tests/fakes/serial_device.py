"""A serial device that can be unplugged: a pseudo-terminal behind a link, as udev makes one."""

from __future__ import annotations

import os
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["SerialDevice"]


class SerialDevice:
    """`path` is there while plugged in; sends `message(0)`, `message(1)`, ... at `rate_hz`.

    A serial line does not wait for who reads: what a full pseudo-terminal (4 kB) does not take is
    lost. Where `keeps`, it is sent later instead, so that a busy machine loses nothing.
    """

    def __init__(
        self, path: Path, message: Callable[[int], bytes], rate_hz: float, *, keeps: bool = False
    ) -> None:
        self.path, self._message, self.rate_hz, self._keeps = path, message, rate_hz, keeps
        self.sent_ns: list[int] = []
        """time.monotonic_ns() of each message."""
        self.start_ns = 0
        """time.monotonic_ns() at which message 0 is due, and each next one a period later."""
        self._thread: threading.Thread | None = None

    def plug(self) -> None:
        """Begin to send, from message 0 on."""
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.path.symlink_to(os.ttyname(slave))
        self._slave = slave
        self._stop = threading.Event()
        self.sent_ns = []
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def unplug(self) -> None:
        """Gone, also for who has it open. Idempotent."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        self.path.unlink()
        os.close(self._slave)
        os.close(self._master)

    def _send(self) -> None:
        self.start_ns = time.monotonic_ns()
        start, number, rest = self.start_ns / 1e9, 0, b""
        while not self._stop.wait(max(0.0, start + number / self.rate_hz - time.monotonic())):
            data, sent = rest + self._message(number), 0
            with suppress(BlockingIOError):
                sent = os.write(self._master, data)
            rest = data[sent:] if self._keeps else b""
            self.sent_ns.append(time.monotonic_ns())
            number += 1
