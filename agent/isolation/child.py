"""An isolated driver's process: `python -m agent.isolation.child FD PARENT LABEL`.

Started by agent/isolation/driver.py; the label is for people who look at a list of processes.

It reads the driver without a pause and passes on what it gives; where the agent does not keep up,
the newest blocks are dropped and counted as lost ticks of their stream. It ends when the agent
closes the socket, is killed by the kernel when the agent dies, and says something after each
read: that is the heartbeat.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from agent import errors, plugins
from agent.clock import SystemClock
from agent.contracts import Driver
from agent.errors import AgentError, BadData, ReadTimeout
from agent.isolation.ring import (
    MAX_MESSAGE,
    Connected,
    FromChild,
    LogLine,
    RingWriter,
    Setup,
    Trouble,
)
from agent.types import Sample

__all__ = ["Link", "LogForwarder", "main"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAX_TEXT = 8000  # characters, at most 4 bytes each


class Link:
    """The child's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.open = True
        # Room for messages of some more blocks; the kernel gives as much as it allows.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def setup(self) -> Setup:
        return msgspec.msgpack.decode(self._socket.recv(MAX_MESSAGE), type=Setup)

    def tell(self, message: FromChild, fd: int | None = None) -> None:
        """Say what must not be lost; waits for room. fd: a file descriptor to go with it."""
        try:
            socket.send_fds(
                self._socket, [msgspec.msgpack.encode(message)], [] if fd is None else [fd]
            )
        except (BrokenPipeError, ConnectionResetError):
            self.open = False

    def offer(self, message: FromChild) -> bool:
        """Say it if there is room; whether it was said."""
        try:
            self._socket.send(msgspec.msgpack.encode(message), socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self.open = False
        return self.open

    def freed(self) -> int | None:
        """The newest position up to which the agent has read; sees the end of the connection."""
        newest = None
        while self.open:
            try:
                message = self._socket.recv(8, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionResetError:
                message = b""
            self.open = bool(message)
            if message:
                newest = int.from_bytes(message, "little")
        return newest


class LogForwarder(logging.Handler):
    """Log lines go to the agent's log; where the socket is full, to stderr, which it reads too."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)[:MAX_TEXT]
        if not self._link.offer(LogLine(record.levelno, record.name, text)):
            print(f"{record.levelname} {record.name}: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Exit code 0 when the agent has closed the connection or been told of an error."""
    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    faulthandler.enable()
    # A service manager may signal the whole group; the agent still decides when a driver ends.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    with socket.socket(fileno=fd) as sock:
        link = Link(sock)
        setup = link.setup()
        os.environ["PYTHONPATH"] = setup.python_path  # empty is as if it were not set
        logging.basicConfig(
            level=setup.log_level, format="%(message)s", handlers=[LogForwarder(link)]
        )
        try:
            _drive(link, setup)
        except AgentError as exc:
            link.tell(_trouble(exc))
    return 0


def _drive(link: Link, setup: Setup) -> None:
    plugin = plugins.load("drivers", setup.kind)
    settings = msgspec.convert(setup.settings, plugin.Config, dec_hook=_path)
    driver: Driver = plugin(setup.name, settings, SystemClock(setup.anchor))
    try:
        driver.connect()
        writer = RingWriter(driver.streams, setup.buffer_s)
        link.tell(Connected(list(driver.streams)), writer.fd)
        dropped: Counter[str] = Counter()  # ticks since the last block that was passed on
        while link.open:
            try:
                samples = driver.read(setup.read_timeout_s)
            except (BadData, ReadTimeout) as exc:
                link.offer(_trouble(exc))
                samples = ()
            freed = link.freed()
            if freed is not None:
                writer.free(freed)
            for sample in samples:
                _pass_on(link, writer, sample, dropped)
    finally:
        driver.disconnect()


def _pass_on(link: Link, writer: RingWriter, sample: Sample, dropped: Counter[str]) -> None:
    name = sample.stream.name
    before = dropped.pop(name, 0)
    try:
        block = writer.place(replace(sample, lost=sample.lost + before) if before else sample)
    except ValueError as exc:
        link.offer(_trouble(BadData(f"stream {name}: {exc}; give the driver more buffer_s")))
        block = None
    if block is not None and link.offer(block):
        writer.keep(block)
    else:
        dropped[name] = before + sample.lost + len(sample)


def _trouble(error: AgentError) -> Trouble:
    """An error by its class in agent.errors; a driver's own subclass by the nearest of those."""
    known = next(c.__name__ for c in type(error).__mro__ if c.__name__ in errors.__all__)
    return Trouble(known, str(error)[:MAX_TEXT])


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the agent dies, however it does, even while we hang."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died before we could ask
        sys.exit(1)


def _path(wanted: type, value: Any) -> Any:
    if wanted is Path:
        return Path(value)
    raise NotImplementedError(wanted)  # msgspec's own signal: not a type of ours


if __name__ == "__main__":
    sys.exit(main())
