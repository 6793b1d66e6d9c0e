"""One driver, kept alive: retry, back-off, watchdog, counters. Drivers own none of these."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agent.clock import Clock, from_s, to_s
from agent.config import DriverConfig
from agent.contracts import Driver
from agent.errors import BadData, DeviceLost, DriverError, EndOfStream, NotDue, ReadTimeout
from agent.stream.clocksync import ClockSync
from agent.types import Array, Sample, StreamInfo

__all__ = ["Pump", "StreamState"]

logger = logging.getLogger(__name__)

State = Literal["online", "degraded", "offline", "ended"]
Sink = Callable[[Sample], None]
OnState = Callable[["StreamState"], None]


@dataclass
class StreamState:
    """What is known of one stream. Only its pump writes here.

    received, lost, bad: ticks; a block that a driver refuses counts as one bad tick, as nobody
    knows how many it held. reconnects: how often the device has come back.
    """

    info: StreamInfo
    state: State = "offline"
    reason: str = "not connected yet"
    since_ns: int = 0
    received: int = 0
    lost: int = 0
    bad: int = 0
    reconnects: int = 0
    next_seq: int | None = None
    newest_t_ns: int | None = None
    arrival_ns: int | None = None
    clock: ClockSync | None = None
    same_since_ns: int = 0
    last_tick: Array | None = None


class Pump:
    """Moves blocks from a driver to its sinks: checks stamps and sequence, maps device clocks.

    `step` is one read; `run` is steps for ever with reconnects; `watch` is called from another
    thread about once a second, and sees a driver that hangs inside its SDK.
    """

    def __init__(
        self, name: str, driver: Driver, config: DriverConfig, clock: Clock, on_state: OnState
    ) -> None:
        self.name, self.driver, self.config = name, driver, config
        self.streams: dict[str, StreamState] = {}
        self.sinks: list[Sink] = []
        self.ended = False
        self.on_connected: Callable[[Pump], None] = lambda pump: None
        self._clock, self._on_state = clock, on_state
        self._state_lock = threading.Lock()  # `watch` and the driver's thread both change states
        self._timeouts = 0
        self._told_bad = False
        self._backoff_s = config.backoff_min_s

    def connect(self) -> None:
        """Open the driver. Raises what it raises; on a reconnect also DeviceLost if it changed."""
        self.driver.connect()
        streams = {info.name: info for info in self.driver.streams}
        for state in self.streams.values():
            now_is = streams.get(state.info.name)
            if now_is is None or replace(now_is, rate_hz=state.info.rate_hz) != state.info:
                self.driver.disconnect()
                raise DeviceLost(
                    f"{self.name}: came back with {now_is or 'no such stream'}, was {state.info}"
                )
        for name, info in streams.items():
            known = self.streams.get(name)
            if known is None:
                known = self.streams[name] = StreamState(info, since_ns=self._clock.now_ns())
            else:
                known.reconnects += 1
            if known.clock is not None:
                known.clock.reset()  # it may have been off, or set, meanwhile
            elif info.clock == "device":
                known.clock = ClockSync()
            known.next_seq = None  # a reconnected device counts from anew
            known.last_tick = None
            self._set(known, "online", "")
        self._timeouts, self._told_bad = 0, False
        self.on_connected(self)

    def step(self, timeout_s: float) -> int:
        """One read; returns how many samples it gave. Raises EndOfStream and DeviceLost."""
        try:
            samples = self.driver.read(timeout_s)
        except NotDue:
            return 0
        except ReadTimeout as exc:
            self._timeouts += 1
            if self._timeouts >= self.config.timeouts:
                raise DeviceLost(f"{self.name}: silent for {self._timeouts} reads") from exc
            return 0
        except BadData as exc:
            self._timeouts = 0
            self.count_bad(str(exc))
            return 0
        self._timeouts = 0
        if samples:
            self._backoff_s = self.config.backoff_min_s
        for sample in samples:
            self.accept(sample)
        return len(samples)

    def accept(self, sample: Sample) -> None:
        """Check one block and hand it to the sinks, or drop and count it."""
        state = self.streams[sample.stream.name]
        lost = sample.lost
        if state.next_seq is not None:
            lost = max(lost, sample.seq - state.next_seq)
        state.lost += lost
        state.next_seq = sample.seq + len(sample)
        if state.clock is not None and sample.device_t_ns is not None:
            state.clock.observe(int(sample.device_t_ns[-1]), sample.arrival_ns)
            host = state.clock.to_host(sample.device_t_ns, sample.arrival_ns)
            if state.newest_t_ns is not None:
                host = np.maximum(host, state.newest_t_ns)  # a better estimate may step back
            sample = replace(sample, t_ns=np.maximum.accumulate(host))
        elif state.newest_t_ns is not None and int(sample.t_ns[0]) < state.newest_t_ns:
            late = int(np.searchsorted(sample.t_ns, state.newest_t_ns, side="left"))
            state.bad += late
            if late == len(sample):
                return
            sample = replace(
                sample,
                seq=sample.seq + late,
                t_ns=sample.t_ns[late:],
                data=sample.data[late:],
                device_t_ns=None if sample.device_t_ns is None else sample.device_t_ns[late:],
            )
        if lost != sample.lost:
            sample = replace(sample, lost=lost)
        state.received += len(sample)
        state.newest_t_ns = int(sample.t_ns[-1])
        state.arrival_ns = sample.arrival_ns
        if self._frozen(state, sample):
            self._set(state, "degraded", f"frozen: the same data for {self.config.frozen_s:g} s")
            return
        if state.state == "degraded":
            self._set(state, "online", "")
        for sink in self.sinks:
            sink(sample)

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` or the end of a finite source, reconnecting with back-off."""
        connected = bool(self.streams)
        try:
            while not stop.is_set():
                try:
                    if not connected:
                        self.connect()
                        connected = True
                    self.step(self.config.read_timeout_s)
                except EndOfStream:
                    for state in self.streams.values():
                        self._set(state, "ended", "the source has played to its end")
                    return
                except DriverError as exc:
                    self._lost(str(exc))
                    connected = False
                    until = self._clock.now_ns() + from_s(self._backoff_s)
                    self._clock.wait_until_ns(until, stop)
                    self._backoff_s = min(2 * self._backoff_s, self.config.backoff_max_s)
        finally:
            self.ended = True
            self.driver.disconnect()

    def watch(self, now_ns: int) -> None:
        """Degrade streams that have been silent for `stale_s`."""
        if self.ended:
            return
        for state in self.streams.values():
            last = max(state.arrival_ns or 0, state.since_ns)
            silent_s = to_s(now_ns - last)
            if silent_s > self.config.stale_s:
                self._set(state, "degraded", f"no data for {silent_s:.1f} s", only_if="online")

    def _lost(self, reason: str) -> None:
        logger.warning("%s; trying again in %.1f s", reason, self._backoff_s)
        # Said first: to let go of a device that hangs may take a while.
        for state in self.streams.values():
            self._set(state, "offline", reason)
        self.driver.disconnect()

    def count_bad(self, reason: str) -> None:
        """A driver refused a block: one bad tick of the stream that `reason` names."""
        # Said once a connection, as a bad line may say it a hundred times a second.
        logger.log(logging.DEBUG if self._told_bad else logging.WARNING, "%s; dropped", reason)
        self._told_bad = True
        # A driver of several streams names the one in the message; else the first stands for all.
        words = set(re.findall(r"\w+", reason))
        named = [state for state in self.streams.values() if state.info.name in words]
        for state in (named or list(self.streams.values()))[:1]:
            state.bad += 1

    def _frozen(self, state: StreamState, sample: Sample) -> bool:
        if self.config.frozen_s is None:
            return False
        if state.last_tick is None or not bool((sample.data == state.last_tick).all()):
            state.last_tick, state.same_since_ns = sample.data[-1], int(sample.t_ns[-1])
            return False
        return int(sample.t_ns[-1]) - state.same_since_ns >= from_s(self.config.frozen_s)

    def _set(
        self, state: StreamState, value: State, reason: str, only_if: State | None = None
    ) -> None:
        with self._state_lock:
            if only_if not in (None, state.state) or (state.state, state.reason) == (value, reason):
                return
            state.state, state.reason, state.since_ns = value, reason, self._clock.now_ns()
            self._on_state(state)
