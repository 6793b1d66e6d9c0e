"""The only module of the agent that starts threads and processes.

Threads live and die together in a ThreadGroup; a ChildProcess is one module in an interpreter of
its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

from agent.errors import AgentError

__all__ = ["ChildProcess", "ThreadGroup"]


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


class ChildProcess:
    """`python -m module args` in a session of its own, so that Ctrl-C does not reach it.

    It finds modules where this process does: its PYTHONPATH is our `sys.path`.

    fds: of this process, to be inherited under the same numbers. output: file descriptor of its
    stdout and stderr together, non-blocking, at its end once the child and all it started are
    gone. `close` has to be called.
    """

    def __init__(self, module: str, args: Sequence[str], fds: Sequence[int]) -> None:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        # A driver does no linear algebra: OpenBLAS would start a thread for each core.
        env = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=fds,
            start_new_session=True,
            env=env,
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout.fileno()
        os.set_blocking(self.output, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, minus the signal's number where one killed it; None while it runs."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self, timeout_s: float = 5.0) -> None:
        """Kill it and all that it started, where they still run. Idempotent.

        Raises AgentError where it outlives SIGKILL, as it does inside a hung system call.
        """
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            return  # by now its number may be another process's
        self._process.stdout.close()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.wait(timeout_s) is None:
            raise AgentError(f"process {self.pid} does not end: it hangs in a system call")
