"""One task of tools.devices, alone in a process: the task on stdin, the reply on stdout, as JSON.

An SDK may hang, crash or write to standard output; here that costs one line of the listing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from agent import plugins
from agent.clock import Clock, SystemClock, from_s, to_s
from agent.config_file import build_config
from agent.contracts import Device
from agent.errors import AgentError, EndOfStream
from agent.redact import redact_text
from agent.stream.pump import Pump, StreamState
from agent.types import Array, Sample

__all__ = ["SETTLE_S", "Reply", "StreamFigures", "Task", "discover", "main", "probe"]

# The first blocks are late or early ones: a backlog, a camera that sets its exposure, a clock
# that is not known yet.
SETTLE_S = 0.5


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """seconds: None to discover what there is of `kind`; else probe `settings` for so long."""

    kind: str
    name: str = ""
    settings: dict[str, Any] = {}
    seconds: float | None = None


class StreamFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one stream gave while it was probed.

    ticks, lost, bad: counts. rate_hz: by the capture stamps. interval_*: from one tick to the
    next, by the same stamps, gaps left out. latency_*: from the capture of a block's newest tick
    to its arrival. clock_*: the device's clock on the agent's, where it has one; clock_drift_ppm
    only once it can be told from jitter. None: not enough ticks to say.
    """

    stream: str
    modality: str
    unit: str
    dtype: str
    shape: tuple[int, ...]
    nominal_hz: float | None
    ticks: int
    lost: int
    bad: int
    rate_hz: float | None
    interval_std_ms: float | None
    interval_p99_ms: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    clock: str
    clock_offset_s: float | None = None
    clock_drift_ppm: float | None = None
    clock_uncertainty_ms: float | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """error: one line, where the task failed."""

    devices: list[Device] = []
    streams: list[StreamFigures] = []
    error: str = ""


class _Meter:
    """Stamps of one stream, and its counters as they were at the start."""

    def __init__(self, state: StreamState) -> None:
        self._state, self._lost, self._bad = state, state.lost, state.bad
        self._stamps: list[Array] = []
        self._gaps: list[int] = []  # into the intervals: those that go over lost ticks
        self._latencies_ns: list[int] = []
        self._ticks = 0

    def add(self, sample: Sample) -> None:
        if sample.lost and self._ticks:
            self._gaps.append(self._ticks - 1)
        self._stamps.append(sample.t_ns)
        self._ticks += len(sample)
        self._latencies_ns.append(sample.arrival_ns - int(sample.t_ns[-1]))

    def figures(self) -> StreamFigures:
        info, clock = self._state.info, self._state.clock
        guess = clock.estimate if clock is not None else None
        t_ns = np.concatenate(self._stamps) if self._stamps else np.empty(0, np.int64)
        span_ns = int(t_ns[-1] - t_ns[0]) if len(t_ns) else 0
        intervals_ms = np.delete(np.diff(t_ns), self._gaps) / 1e6
        latencies_ms = np.array(self._latencies_ns) / 1e6
        return StreamFigures(
            stream=info.name,
            modality=info.modality,
            unit=info.unit,
            dtype=info.dtype,
            shape=info.shape,
            nominal_hz=info.rate_hz,
            ticks=self._ticks,
            lost=self._state.lost - self._lost,
            bad=self._state.bad - self._bad,
            rate_hz=(len(t_ns) - 1) / to_s(span_ns) if span_ns else None,
            interval_std_ms=float(intervals_ms.std()) if len(intervals_ms) else None,
            interval_p99_ms=_percentile(intervals_ms, 99),
            latency_p50_ms=_percentile(latencies_ms, 50),
            latency_p99_ms=_percentile(latencies_ms, 99),
            clock=info.clock,
            clock_offset_s=to_s(guess.offset_ns) if guess else None,
            clock_drift_ppm=guess.drift * 1e6 if guess and guess.drift else None,
            clock_uncertainty_ms=guess.uncertainty_ns / 1e6 if guess else None,
        )


def discover(kind: str) -> list[Device]:
    """What is connected of `kind`, by identity. Raises ConfigError where a package is missing."""
    found: Sequence[Device] = plugins.load("drivers", kind).discover()
    return sorted(found, key=lambda device: (device.identity, device.name))


def probe(task: Task, clock: Clock) -> list[StreamFigures]:
    """Connect as the agent does, and measure each stream. Raises AgentError."""
    raw = {"drivers": {task.name: {"kind": task.kind, **task.settings}}}
    entry = build_config(raw).drivers[0]
    driver = entry.plugin(entry.name, entry.settings, clock)
    pump = Pump(entry.name, driver, entry.config, clock, lambda state: None)
    try:
        pump.connect()
        _read_for(SETTLE_S, pump, clock)
        meters = {name: _Meter(state) for name, state in pump.streams.items()}
        pump.sinks.append(lambda sample: meters[sample.stream.name].add(sample))
        _read_for(task.seconds or 0.0, pump, clock)
    finally:
        driver.disconnect()
    return [meter.figures() for meter in meters.values()]


def main() -> int:
    """Run the task of stdin."""
    reply_fd = os.dup(1)
    os.dup2(2, 1)  # what an SDK prints is no part of the reply
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        if task.seconds is None:
            reply = Reply(devices=discover(task.kind))
        else:
            reply = Reply(streams=probe(task, SystemClock()))
    except AgentError as exc:
        reply = Reply(error=redact_text(str(exc)))
    with os.fdopen(reply_fd, "wb") as out:
        out.write(msgspec.json.encode(reply))
    return 0


def _read_for(seconds: float, pump: Pump, clock: Clock) -> None:
    until_ns = clock.now_ns() + from_s(seconds)
    try:
        while (left_ns := until_ns - clock.now_ns()) > 0:
            pump.step(min(pump.config.read_timeout_s, to_s(left_ns)))
    except EndOfStream:
        return  # a finite source: what it gave is what there is


def _percentile(values: Array, share: float) -> float | None:
    return float(np.percentile(values, share)) if len(values) else None


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a thread of an SDK may never end, and the reply is out
