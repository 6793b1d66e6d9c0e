"""What is connected, over all kinds of drivers, and how well it runs; see tools.devices.

Each kind is asked in a process of its own (tools.device_child), so that an SDK that is missing,
hangs or crashes costs one line.
"""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from agent import plugins
from agent.clock import Clock, from_s, to_s
from agent.contracts import Device
from agent.errors import ConfigError, DriverError
from agent.redact import redact_text
from agent.types import slug
from tools.device_child import SETTLE_S, Reply, StreamFigures, Task

__all__ = ["Found", "KindFound", "Probe", "kinds", "probe", "search"]

ROOT = Path(__file__).resolve().parents[1]
# `discover` takes about two seconds; the rest is for a slow computer to import its package.
DISCOVER_LIMIT_S = 20.0
# The same, and OpenCV's own ten seconds for a device that does not answer.
CONNECT_LIMIT_S = 20.0
POLL_S = 0.05


@dataclass(frozen=True)
class Probe:
    """problem: "", or one line: why it could not be measured."""

    streams: Sequence[StreamFigures] = ()
    problem: str = ""


@dataclass(frozen=True)
class Found:
    """A device, and the name of its driver in a config."""

    name: str
    device: Device
    probe: Probe | None = None


@dataclass(frozen=True)
class KindFound:
    """One kind of driver. looked_for: in words. problem: "", or one line: why it was not."""

    kind: str
    looked_for: str
    problem: str = ""
    devices: Sequence[Found] = field(default_factory=tuple)


class _Child:
    """A task in a process of its own. Its files are on disk: no pipe can fill up and block it."""

    def __init__(self, task: Task) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with ExitStack() as stack:
            stdin, self._out, self._err = (
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)
            )
            stdin.write(msgspec.json.encode(task))
            stdin.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.device_child"],
                env={**os.environ, "PYTHONPATH": path},
                stdin=stdin,
                stdout=self._out,
                stderr=self._err,
            )
            stack.callback(self._end)
            self._stack = stack.pop_all()

    def reply(self, limit_s: float, clock: Clock, until_ns: int, tick: Callable[[], None]) -> Reply:
        """Wait for its end. Raises DriverError, one line, where it fails."""
        while (code := self._process.poll()) is None:
            if clock.now_ns() >= until_ns:
                raise DriverError(f"no answer within {limit_s:g} s; it was stopped")
            clock.wait_until_ns(clock.now_ns() + from_s(POLL_S))
            tick()
        self._out.seek(0)
        told = self._out.read()
        if code or not told:
            raise DriverError(f"{_ended(code)}{self._last_line()}")
        reply = msgspec.json.decode(told, type=Reply)
        if reply.error:
            raise DriverError(reply.error)
        return reply

    def close(self) -> None:
        """End it if it still runs. Idempotent."""
        self._stack.close()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _last_line(self) -> str:
        self._err.seek(0)
        lines = self._err.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {redact_text(last)}" if last else ""


def kinds() -> dict[str, str]:
    """Kinds of drivers that can look for devices -> what they look for, in words."""
    found = {}
    for kind in sorted(plugins.find("drivers")):
        try:
            look = getattr(plugins.load("drivers", kind), "discover", None)
        except ConfigError as exc:  # of a package that is only half installed
            found[kind] = str(exc)
            continue
        if look is not None:
            told = " ".join((inspect.getdoc(look) or "").split())
            found[kind] = told.partition(". ")[0].removesuffix(".")
    return found


def search(
    looked_for: Mapping[str, str], clock: Clock, limit_s: float = DISCOVER_LIMIT_S
) -> list[KindFound]:
    """Ask each of these kinds what is connected, all at the same time; `limit_s` for all."""
    children = {kind: _Child(Task(kind=kind)) for kind in looked_for}
    until_ns = clock.now_ns() + from_s(limit_s)
    try:
        return [
            _named(KindFound(kind, told), children[kind], limit_s, clock, until_ns)
            for kind, told in looked_for.items()
        ]
    finally:
        for child in children.values():
            child.close()


def probe(found: Found, seconds: float, clock: Clock, tick: Callable[[float], None]) -> Probe:
    """Measure one device for `seconds`. tick: told the seconds since it began, now and then."""
    device = found.device
    start_ns = clock.now_ns()
    limit_s = CONNECT_LIMIT_S + SETTLE_S + seconds
    child = _Child(
        Task(kind=device.kind, name=found.name, settings=dict(device.settings), seconds=seconds)
    )
    try:
        reply = child.reply(
            limit_s,
            clock,
            start_ns + from_s(limit_s),
            lambda: tick(to_s(clock.now_ns() - start_ns)),
        )
    except DriverError as exc:
        return Probe(problem=str(exc))
    finally:
        child.close()
    silent = [stream.stream for stream in reply.streams if not stream.ticks]
    return Probe(reply.streams, f"nothing came of {', '.join(silent)}" if silent else "")


def _named(of: KindFound, child: _Child, limit_s: float, clock: Clock, until_ns: int) -> KindFound:
    try:
        reply = child.reply(limit_s, clock, until_ns, lambda: None)
    except DriverError as exc:
        return replace(of, problem=str(exc))
    names = _names(of.kind, len(reply.devices))
    return replace(of, devices=tuple(map(Found, names, reply.devices)))


def _names(kind: str, count: int) -> Iterable[str]:
    """camera, camera_2, camera_3."""
    name = slug(kind)
    return [name if number == 1 else f"{name}_{number}" for number in range(1, count + 1)]


def _ended(code: int) -> str:
    return f"crashed ({signal.Signals(-code).name})" if code < 0 else "failed"
