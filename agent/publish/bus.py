"""The bus: what the agent says and is asked, over ZeroMQ, from one thread (docs/wire-contract.md).

Any thread may `send`; only `run` touches the sockets. zmq is imported by `open`, so that what
lists or checks a config does not load it.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from agent.clock import Clock
from agent.config import BusConfig
from agent.errors import BusError
from agent.publish.control import Control
from agent.publish.events import Outbox, Retained
from agent.publish.security import check_addresses, server_keys
from agent.wire import Reply, Request, WireStruct, encode

if TYPE_CHECKING:
    from agent.publish.sockets import Sockets

__all__ = ["Bus"]

logger = logging.getLogger(__name__)

# How soon `run` notices that `stop` is set; anything to send or receive wakes it at once.
_POLL_MS = 100


class _Wakeup:
    """A file descriptor that other threads make readable. At most one byte is ever under way."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._lock = threading.Lock()
        self._set = False
        self._closed = False

    def fileno(self) -> int:
        return self._reader.fileno()

    def set(self) -> None:
        with self._lock:
            if not (self._set or self._closed):
                self._set = True
                self._writer.send(b"\0")

    def clear(self) -> None:
        with self._lock:
            if self._set:
                self._set = False
                self._reader.recv(1)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._reader.close()
            self._writer.close()


class Bus:
    """Publishes messages, re-sends the retained ones to late joiners, and takes requests.

    ops: the operations that clients may ask for. on_request(request, reply): called by the bus
    thread for each new request; must not block; hands it to whoever executes it, who calls
    `reply(Reply)` once, from any thread. on_sent(message, sent_ns): called by the bus thread
    after each message is given to ZeroMQ, retained copies excepted; sent_ns is on `clock`.
    """

    def __init__(
        self,
        config: BusConfig,
        clock: Clock,
        ops: Collection[str],
        on_request: Callable[[Request, Callable[[Reply], None]], None],
        on_sent: Callable[[WireStruct, int], None] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock
        self._on_sent = on_sent
        self._outbox = Outbox(live_limit=config.hwm)
        self._retained = Retained()
        self._wakeup: _Wakeup | None = None
        self._sockets: Sockets | None = None
        self._ops, self._on_request = ops, on_request

    @property
    def endpoints(self) -> dict[str, str]:
        """Address of each open socket: "bus.events", "bus.control", "bus.bulk"."""
        return self._sockets.endpoints if self._sockets else {}

    @property
    def drops(self) -> dict[str, int]:
        """Messages dropped since start, by queue: "bus.events", "bus.live", "bus.bulk"."""
        return dict(self._outbox.drops)

    @property
    def rejected(self) -> int:
        """Connections refused since start, for a wrong, unknown or missing key."""
        return self._sockets.rejected if self._sockets else 0

    def open(self) -> None:
        """Bind every socket, or none. Once only.

        Raises ConfigError for an exposed address or a bad key file, and BusError for an address
        that cannot be bound.
        """
        from agent.publish.sockets import Sockets

        exposed = check_addresses(self._config)
        keys = server_keys(self._config.curve) if self._config.curve else None
        for name in exposed:
            logger.warning("%s: open to every machine that can reach it (bus.insecure)", name)
        self._sockets = Sockets(self._config, keys)
        self._wakeup = _Wakeup()
        self._sockets.add_wakeup(self._wakeup.fileno())
        logger.info("bus: %s", ", ".join(f"{k} {v}" for k, v in self.endpoints.items()))

    def send(self, topic: str, message: WireStruct, attachments: Sequence[bytes] = ()) -> None:
        """Number `message` on `topic` and queue it. Thread-safe; never blocks.

        attachments: binary frames, sent as they are and not to be written again. Kinds
        "embedding" and "preview" go to the bulk socket. What is dropped: see events.Outbox.
        """
        self._outbox.put(topic, message, attachments)
        self._wake()

    def run(self, stop: threading.Event) -> None:
        """Serve the sockets until `stop` is set; then send what is queued, and close."""
        sockets, wakeup = self._sockets, self._wakeup
        if sockets is None or wakeup is None:
            raise BusError("bus: run was called before open")
        control = Control(self._ops, self._on_request, self._wake)
        try:
            while not stop.is_set():
                sockets.wait(_POLL_MS)
                wakeup.clear()
                self._step(sockets, control)
            self._outbox.close()
            self._step(sockets, control)
        finally:
            self.close()

    def _step(self, sockets: Sockets, control: Control) -> None:
        sockets.authenticate()
        sockets.count_rejections()
        for frames in sockets.requests():
            if answer := control.receive(frames):
                sockets.answer(answer)
        for frames in control.replies():
            sockets.answer(frames)
        # Before the queue is sent, so that a new subscriber gets what is queued only once.
        if prefixes := sockets.new_subscriptions():
            for name, message in self._retained.matching(prefixes):
                sockets.publish((name.encode(), encode(message)))
        for item in self._outbox.take():
            frames = [item.topic.encode(), encode(item.message), *item.attachments]
            if sockets.publish(frames, bulk=item.bulk):
                self._retained.keep(item.topic, item.message)
                if self._on_sent is not None:
                    self._on_sent(item.message, self._clock.now_ns())

    def close(self) -> None:
        """Release everything. Idempotent; while `run` is running only `run` may call it."""
        self._outbox.close()
        if self._wakeup is not None:
            self._wakeup.close()
        if self._sockets is not None:
            self._sockets.close()

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()
