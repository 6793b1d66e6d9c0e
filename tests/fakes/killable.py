"""A peer in a process of its own, so that it can really be killed, and really hang."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

__all__ = ["Killable"]


class Killable:
    """`_process` is set by who starts it."""

    _process: subprocess.Popen[Any] | None = None

    def stop(self) -> None:
        """Kill it, with no word to who is connected. Idempotent."""
        if self._process is not None:
            self._process.kill()  # SIGKILL ends a stopped process too
            self._process.communicate()
        self._process = None

    def hang(self) -> None:
        """It is there, and does nothing, until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
