"""The far end of a serial line: a pseudo-terminal behind a link, as udev makes one."""

from __future__ import annotations

import os
import threading
import tty
from pathlib import Path

__all__ = ["PtyPort"]


class PtyPort:
    """`path` is there while plugged in. `_serve` has a thread of its own until `_stop` is set; what
    the other end reads and writes, it writes and reads at `_master`, which never blocks.
    """

    _master: int
    _stop: threading.Event

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread: threading.Thread | None = None

    def plug(self) -> None:
        """Begin to serve."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path.symlink_to(os.ttyname(self._slave))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
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

    def _serve(self) -> None:
        raise NotImplementedError
