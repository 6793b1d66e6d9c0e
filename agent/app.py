"""The live agent: threads around a Core, and the main loop."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import msgspec

from agent.clock import NS_PER_S, Clock, from_s, to_s
from agent.config import Config
from agent.control import Operations
from agent.core import TICK_NS, Core
from agent.errors import DriverError
from agent.health import Latencies
from agent.outlet import Outlet
from agent.status import Reporter
from agent.stream.lane import Lane
from agent.stream.pump import Pump, StreamState
from agent.supervise import ThreadGroup
from agent.types import Embedding
from agent.wire import Event, Health, Reply, Request, RequestError

__all__ = ["Agent"]

logger = logging.getLogger(__name__)

# Embeddings and requests that wait for the main thread: minutes of six senses, so that a full
# queue is a fault. The newest is dropped and counted: older ones carry events that are running.
QUEUE_LIMIT = 1024


class Agent:
    """`open` checks and connects everything, `run` works until stopped, `close` releases it.

    on_event: called in the main thread for each event, as it is published.
    """

    def __init__(
        self, config: Config, clock: Clock, on_event: Callable[[Event], None] = lambda event: None
    ) -> None:
        self.config, self.clock = config, clock
        self.stop = threading.Event()
        # Names this run of the agent: its start in ns of UTC, in hex.
        self.core = Core(config, clock, f"{clock.now_ns():x}", self._on_state)
        self._on_event = on_event
        self._latencies = Latencies()
        self._reporter = Reporter(self.core, self._latencies)
        self._health: Health | None = None
        self._work: queue.Queue[Callable[[], None]] = queue.Queue(QUEUE_LIMIT)
        self._dropped: Counter[str] = Counter()  # by lane; each written by its lane only
        self._outlet = Outlet(self.core, self._latencies, self._on_request)
        self._outer = ThreadGroup()
        self._inner = ThreadGroup()
        self.core.on_latency = self._latencies.add
        self.core.queue_drops = lambda: dict(self._dropped) | self._outlet.drops()
        self._operations = Operations(
            self.core,
            self.status,
            self._outlet.start_recording,
            self._outlet.stop_recording,
            self._outlet.tell_control,
        )

    @property
    def endpoints(self) -> dict[str, str]:
        """Addresses of the open sockets."""
        return self._outlet.endpoints

    @property
    def recorded(self) -> dict[str, Any] | None:
        """Path and ledger of the last log that was finished."""
        return self._outlet.recorded

    def open(self) -> None:
        """Queries, sockets, then drivers: all or nothing. Raises AgentError."""
        file = self.config.file
        try:
            self.core.open()
            self._outlet.open()
            for pump in self.core.pumps:
                try:
                    pump.connect()
                except DriverError as exc:
                    if pump.config.required:
                        raise
                    logger.warning("%s; it is not required, trying again", exc)
                    continue
                self._attach(pump)
            if file.queries and all(pump.streams for pump in self.core.pumps):
                self.core.check_queries()
                infos = [state.info for state in self.core.states()]
                self.core.check_streams("drivers", [info.topic or info.name for info in infos])
            if file.record.path is not None:
                self._outlet.begin_recording(file.record.path)
        except BaseException:  # a stop too: no device may stay open
            self.close()
            raise

    def run(self, duration_s: float | None = None) -> None:
        """Until `stop` is set, `duration_s` is over, or every finite source has ended."""
        until_ns = None if duration_s is None else self.clock.now_ns() + from_s(duration_s)
        try:
            with self._outer:
                self._outlet.start(self._outer)
                try:
                    with self._inner:
                        for lane in self.core.lanes.values():
                            self._start_lane(lane)
                        for pump in self.core.pumps:
                            pump.on_connected = self._on_connected
                            self._inner.start(f"driver {pump.name}", pump.run)
                        self._loop(until_ns)
                    self._finish()
                finally:
                    self._outlet.stop()
        finally:
            self.close()

    def close(self) -> None:
        """Disconnect, unbind, release. Idempotent."""
        self.core.close()
        self._outlet.close()

    def status(self) -> dict[str, Any]:
        """What control's `status` answers: the newest health, and what is running where."""
        return {
            "health": msgspec.to_builtins(self._health),
            "endpoints": self.endpoints,
            "version": version("sensebind"),
            "config": self.config.digest,
            "space": {"identity": self.core.space.identity, "licence": self.core.space.licence},
        }

    # The main thread: embeddings and requests in, events out.

    def _loop(self, until_ns: int | None) -> None:
        next_tick_ns = next_health_ns = next_scores_ns = self.clock.now_ns()
        score_hz = self.config.file.bus.score_hz
        while not (self.stop.is_set() or self._inner.failed or self._outer.failed):
            now = self.clock.now_ns()
            if until_ns is not None and now >= until_ns:
                return
            if all(pump.ended for pump in self.core.pumps) and self._work.empty():
                return
            if now >= next_tick_ns:
                next_tick_ns = now + TICK_NS
                self._publish(self.core.matcher.tick(now))
            if score_hz and now >= next_scores_ns:
                next_scores_ns = now + round(NS_PER_S / score_hz)
                for message in self.core.matcher.scores(now):
                    self._outlet.send(message, "score", message.query.id)
            if now >= next_health_ns:
                next_health_ns = now + NS_PER_S
                for pump in self.core.pumps:
                    pump.watch(now)
                self._send_health()
            try:
                work = self._work.get(timeout=to_s(TICK_NS) / 2)
            except queue.Empty:
                continue
            work()

    def _finish(self) -> None:
        """Sources and lanes have stopped: what they left is matched, and open events end."""
        while not self._work.empty():
            self._work.get()()
        for lane in self.core.lanes.values():
            for embedding in lane.step(self.clock.now_ns()):
                self._observe(embedding)
        self._publish(self.core.matcher.close())
        self._send_health()

    def _observe(self, embedding: Embedding) -> None:
        self._publish(self.core.observe(embedding))
        self._outlet.tell_embedding(embedding)

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            self._outlet.send(event, "event", event.query.id)
            self._on_event(event)

    def _send_health(self) -> None:
        self._health = self._reporter.report(self._outlet.recording)
        self._outlet.send(self._health, "health")

    def _attach(self, pump: Pump) -> None:
        self.core.attach(pump)
        self._outlet.attach(pump)

    # Other threads.

    def _start_lane(self, lane: Lane) -> None:
        name = f"lane {lane.encoder.modality}"

        def put(embedding: Embedding) -> None:
            try:
                self._work.put_nowait(lambda: self._observe(embedding))
            except queue.Full:
                self._dropped[name] += 1

        self._inner.start(name, lambda stop: lane.run(stop, self.core.turns, put))

    def _on_request(self, request: Request, reply: Callable[[Reply], None]) -> None:
        """The bus thread: the main thread is to carry it out."""

        def carry_out() -> None:
            reply(self._operations.handle(request))

        try:
            self._work.put_nowait(carry_out)
        except queue.Full:
            error = RequestError(code="busy", message="the agent is behind; ask again")
            reply(Reply(id=request.id, ok=False, error=error))

    def _on_connected(self, pump: Pump) -> None:
        """A driver's thread, at each reconnect: the main thread gives new streams their lanes."""
        done = threading.Event()

        def attach() -> None:
            known = set(self.core.lanes)
            self._attach(pump)
            for modality in self.core.lanes.keys() - known:
                self._start_lane(self.core.lanes[modality])
            done.set()

        self._work.put(attach)
        while not (done.wait(0.1) or self._inner.stop.is_set()):
            pass

    def _on_state(self, state: StreamState) -> None:
        self._outlet.tell_state(state)
