"""The agent's end of the line to an isolated driver's process (agent/isolation/child.py)."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from contextlib import suppress

import msgspec

from agent.clock import Clock, from_s
from agent.errors import AgentError
from agent.isolation.ring import MAX_MESSAGE, FromChild, LogLine, Trouble
from agent.supervise import ChildProcess

__all__ = ["ChildLink"]

logger = logging.getLogger(__name__)

LAST_WORDS_S = 1.0

_DECODER = msgspec.msgpack.Decoder(FromChild)


class ChildLink:
    """The process, the agent's end of its socket, and what it writes to stdout and stderr."""

    def __init__(self, label: str, clock: Clock) -> None:
        self._label, self._clock = label, clock
        self._partial = b""
        self._output_open = True
        self._said, self._again = b"", 0
        self._fds: list[int] = []
        self._socket, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            args = (str(far.fileno()), str(os.getpid()), label)
            self.process = ChildProcess("agent.isolation.child", args, [far.fileno()])
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self.process.output, select.POLLIN)

    def receive(self, until_ns: int) -> FromChild | None:
        """What the driver says next; None at `until_ns`. Log lines go to the log meanwhile.

        The process's death is one more trouble of the driver: DeviceLost.
        """
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(
                    self._socket, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                if not self._wait(until_ns):
                    return None
                continue
            except ConnectionResetError:
                continue  # said once, where it ended with words of ours unread; its own follow
            self._fds += fds
            if not data:
                return Trouble("DeviceLost", f"{self._label}: {self._last_words()}")
            message: FromChild = _DECODER.decode(data)
            if not isinstance(message, LogLine):
                return message
            logging.getLogger(message.logger).log(message.level, "%s", message.text)

    def say(self, message: bytes) -> None:
        """Tell the child, unless it has died or does not listen: `receive` will say so."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._socket.send(message)

    def free(self, end: int) -> None:
        """Everything in the ring up to position `end` has been read."""
        self.say(end.to_bytes(8, "little"))

    def take_fd(self) -> int:
        """The file descriptor that came with a message; the caller's from now on."""
        return self._fds.pop()

    def ask_to_end(self, patience_ns: int) -> None:
        """Close the connection, and wait for the process to close all it has."""
        self._socket.close()
        self._drain(self._clock.now_ns() + patience_ns)

    def close(self) -> None:
        """Kill it, and close everything."""
        self._log_line(b"")
        self._socket.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        try:
            self.process.close()
        except AgentError as exc:
            logger.error("%s: %s", self._label, exc)

    def _wait(self, until_ns: int) -> bool:
        """Wait for a word on the socket; output is logged. False at `until_ns`."""
        while True:
            left_ms = max(0, -(-(until_ns - self._clock.now_ns()) // 1_000_000))
            ready = dict(self._poll.poll(left_ms))
            if self.process.output in ready:
                self._log_output()
            if self._socket.fileno() in ready:
                return True
            if not left_ms:
                return False

    def _last_words(self) -> str:
        """How it ended, after logging what it still had to say."""
        self._drain(self._clock.now_ns() + from_s(LAST_WORDS_S))
        code = self.process.wait(LAST_WORDS_S)
        if code is None:
            return "its process has hung up"
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def _drain(self, until_ns: int) -> None:
        """Log the output to its end, which is that of the process and all that it started."""
        poll = select.poll()
        poll.register(self.process.output, select.POLLIN)
        while True:
            left_ms = (until_ns - self._clock.now_ns()) // 1_000_000
            if left_ms <= 0 or (poll.poll(left_ms) and not self._log_output()):
                return

    def _log_output(self) -> bool:
        """Log the whole lines that are there; False at the end of the output."""
        try:
            data = os.read(self.process.output, MAX_MESSAGE)
        except BlockingIOError:
            return True
        if not data and self._output_open:
            self._output_open = False
            self._poll.unregister(self.process.output)
        *lines, self._partial = (self._partial + (data or b"\n")).split(b"\n")
        for line in filter(None, lines):
            self._log_line(line)
        return bool(data)

    def _log_line(self, line: bytes) -> None:
        """A line that comes again and again is told once, and how often when another follows: a
        library that runs in circles says the same a hundred thousand times a second.
        """
        if line == self._said:
            self._again += 1
            return
        if self._again:
            logger.warning("%s: the last line came %d times more", self._label, self._again)
        self._said, self._again = line, 0
        if line:
            logger.warning("%s: %s", self._label, line.decode(errors="replace"))
