"""The only module that starts threads: a group that lives and dies together."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

from agent.errors import AgentError

__all__ = ["ThreadGroup"]


class ThreadGroup:
    """Threads of which the first failure stops all and no error is lost.

    Each function gets the group's `stop` event and returns once it is set, or earlier when its
    work is done. Use as a context manager: leaving the block sets `stop`, joins every thread and
    raises what they raised: one error as itself, several as an ExceptionGroup.
    """

    def __init__(self, join_timeout_s: float = 10.0) -> None:
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._join_timeout_s = join_timeout_s

    @property
    def failed(self) -> bool:
        """True once any thread has raised."""
        return bool(self._errors)

    def start(self, name: str, run: Callable[[threading.Event], None]) -> None:
        """Run `run(stop)` in a thread called `name`."""

        def guarded() -> None:
            try:
                run(self.stop)
            except BaseException as exc:  # carried to the thread that joins: none may be lost
                with self._lock:
                    self._errors.append(exc)
                self.stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def __enter__(self) -> ThreadGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(self._join_timeout_s)
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        if stuck:
            # A C call that never returns cannot be ended from here; the threads are daemons, so
            # the process still exits. Which one it was is what the reader of the log needs.
            self._errors.append(AgentError(f"threads did not stop: {', '.join(stuck)}"))
        if error is not None and not isinstance(error, KeyboardInterrupt):
            if self._errors:
                raise ExceptionGroup("the agent failed", _exceptions([error, *self._errors]))
            return
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise ExceptionGroup("several threads failed", _exceptions(self._errors))


def _exceptions(errors: list[BaseException]) -> list[Exception]:
    return [e if isinstance(e, Exception) else AgentError(repr(e)) for e in errors]
