"""`isolate: true`: a driver in a process of its own, which may crash or hang for itself alone.

The pump sees a driver like any other: a process that dies or says nothing for too long is a
device that is lost, and connecting again starts a new one. docs/adr/0009-isolated-drivers.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent import errors
from agent.clock import Clock, SystemClock, from_s, to_s
from agent.config import DriverConfig, DriverEntry
from agent.contracts import Driver
from agent.errors import AgentError, BadData, DeviceLost, DeviceNotFound, NotDue, ReadTimeout
from agent.isolation.link import ChildLink
from agent.isolation.ring import Block, Connected, FromChild, RingReader, Setup, Trouble
from agent.types import Sample, StreamInfo

__all__ = ["IsolatedDriver", "hang_s", "make_driver"]

logger = logging.getLogger(__name__)

# An interpreter starts, an SDK is imported, and a camera on the network may take 5 s to answer.
CONNECT_S = 30.0
# Drivers that block longer than they were asked to stop by themselves within 2 s.
LEAST_HANG_S = 2.5
STOP_S = 2.0  # beyond a read, for a driver to put its device to rest
MAX_BLOCKS = 64  # given by one read


def make_driver(entry: DriverEntry, clock: Clock) -> Driver:
    """The driver of a config's entry, inside a process of its own where the entry says so.

    A clock that is moved by hand cannot be in two processes: a replay isolates nothing.
    """
    if entry.config.isolate and isinstance(clock, SystemClock):
        return IsolatedDriver(entry, clock)
    driver: Driver = entry.plugin(entry.name, entry.settings, clock)
    return driver


def hang_s(config: DriverConfig) -> float:
    """Silence after which a connected driver's process counts as hung. It speaks after each read
    of `read_timeout_s`, so this is several of them missed.
    """
    return max(LEAST_HANG_S, config.stale_s, 4 * config.read_timeout_s)


class IsolatedDriver:
    """A Driver whose work is done by a child process.

    Its samples' arrays are copies out of the memory that the two share, so they are valid for as
    long as anybody keeps them. Starts no thread: the child is listened to in `read`.
    """

    def __init__(self, entry: DriverEntry, clock: SystemClock) -> None:
        self._entry, self._clock = entry, clock
        self._label = f"{entry.config.kind} {entry.name}"
        # Built here too, though never connected: it says what is wrong with its settings.
        inside: Driver = entry.plugin(entry.name, entry.settings, clock)
        self._streams = tuple(inside.streams)
        self._hang_ns = from_s(hang_s(entry.config))
        self._child: ChildLink | None = None
        self._ring: RingReader | None = None
        self._heard_ns = 0
        self._held: Trouble | None = None  # to be raised by the next read

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """As the driver's own."""
        return self._streams

    @property
    def pid(self) -> int | None:
        """Of the child, from connect to disconnect."""
        return self._child.process.pid if self._child else None

    def connect(self) -> None:
        """Start the process and wait for its driver to connect; raises what that raises.

        DeviceNotFound too where the process dies or has not connected after `CONNECT_S`.
        """
        self.disconnect()
        child = self._child = ChildLink(self._label, self._clock)
        try:
            child.say(msgspec.msgpack.encode(self._setup()))
            message = child.receive(self._clock.now_ns() + from_s(CONNECT_S))
            if isinstance(message, Trouble):
                raise _error(message, {"DeviceLost": DeviceNotFound})
            if not isinstance(message, Connected):
                raise DeviceNotFound(f"{self._label}: has not connected in {CONNECT_S:g} s")
            self._ring = RingReader(child.take_fd(), message.streams)
        except BaseException:  # a stop too: no child may outlive what asked for it
            self._kill()
            raise
        self._streams = tuple(message.streams)
        self._heard_ns = self._clock.now_ns()

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next samples, at most `MAX_BLOCKS`; raises what the driver in the child raises.

        NotDue where the child has said nothing for `timeout_s`; DeviceLost where it has died, and
        where it has been silent for `hang_s`, after which it is killed.
        """
        child, ring = self._child, self._ring
        if child is None or ring is None:
            raise DeviceLost(f"{self._label}: not connected")
        if self._held is not None:
            raise self._raised(self._held)
        samples: list[Sample] = []
        until_ns = self._clock.now_ns() + from_s(timeout_s)
        while len(samples) < MAX_BLOCKS:
            message = child.receive(0 if samples else until_ns)
            if message is None:
                break
            self._heard_ns = self._clock.now_ns()
            if isinstance(message, Trouble):
                if not samples:
                    raise self._raised(message)
                self._held = message
                break
            samples.append(self._take(child, ring, message))
        if samples:
            return samples
        silent_ns = self._clock.now_ns() - self._heard_ns
        if silent_ns <= self._hang_ns:
            raise NotDue(f"{self._label}: nothing in {timeout_s:g} s")
        self._kill()
        raise DeviceLost(f"{self._label}: hangs, silent for {to_s(silent_ns):.1f} s; killed")

    def disconnect(self) -> None:
        """Have the driver disconnect and its process end; kill it where it does not. Idempotent."""
        if self._child is not None:
            self._child.ask_to_end(from_s(self._entry.config.read_timeout_s + STOP_S))
        self._kill()

    def _setup(self) -> Setup:
        entry = self._entry
        return Setup(
            kind=entry.config.kind,
            name=entry.name,
            settings=msgspec.to_builtins(entry.settings, enc_hook=_plain),
            anchor=self._clock.anchor,
            read_timeout_s=entry.config.read_timeout_s,
            buffer_s=entry.config.buffer_s,
            log_level=logger.getEffectiveLevel(),
            python_path=os.environ.get("PYTHONPATH", ""),
        )

    def _take(self, child: ChildLink, ring: RingReader, message: FromChild) -> Sample:
        try:
            if not isinstance(message, Block):
                raise ValueError(f"{type(message).__name__} while it reads")
            sample = ring.take(message)
        except (IndexError, ValueError) as exc:
            raise DeviceLost(f"{self._label}: its process says what cannot be: {exc}") from exc
        child.free(message.end)
        return sample

    def _raised(self, trouble: Trouble) -> AgentError:
        """The error to raise; one after which the child reads no more is raised again and again."""
        error = _error(trouble)
        self._held = None if isinstance(error, BadData | ReadTimeout) else trouble
        return error

    def _kill(self) -> None:
        child, ring = self._child, self._ring
        self._child = self._ring = self._held = None
        if ring is not None:
            ring.close()
        if child is not None:
            child.close()


def _error(trouble: Trouble, instead: dict[str, type[AgentError]] | None = None) -> AgentError:
    """The error that the child named, of the class in `instead` where that has its name."""
    kind = (instead or {}).get(trouble.error) or getattr(errors, trouble.error)
    error: AgentError = kind(trouble.message)
    return error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))  # msgspec's own signal: not a type of ours
