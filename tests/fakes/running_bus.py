"""A bus that runs in a thread of the test, and what is asked of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.clock import SystemClock
from agent.config import BusConfig
from agent.publish.bus import Bus
from agent.supervise import ThreadGroup
from agent.wire import Reply, Request, WireStruct

LOOPBACK = "tcp://127.0.0.1:*"


class RunningBus:
    """Answers every request with its arguments, and keeps what it was asked and what it sent."""

    def __init__(self, config: BusConfig) -> None:
        self.asked: list[Request] = []
        self.sent: list[tuple[WireStruct, int]] = []
        self.bus = Bus(
            config,
            SystemClock(),
            ("status", "query.put"),
            self._on_request,
            lambda message, sent_ns: self.sent.append((message, sent_ns)),
        )
        self.stop = threading.Event()

    def _on_request(self, request: Request, reply: Callable[[Reply], None]) -> None:
        self.asked.append(request)
        reply(Reply(id=request.id, ok=True, result=request.args))

    @property
    def events(self) -> str:
        return self.bus.endpoints["bus.events"]

    @property
    def control(self) -> str:
        return self.bus.endpoints["bus.control"]


@contextmanager
def running_bus(config: BusConfig | None = None) -> Iterator[RunningBus]:
    """Open, running in one thread, and closed at the end of the block."""
    running = RunningBus(config or BusConfig(events=LOOPBACK, control=LOOPBACK))
    running.bus.open()
    with ThreadGroup() as group:
        group.start("bus", lambda _: running.bus.run(running.stop))
        try:
            yield running
        finally:
            running.stop.set()
