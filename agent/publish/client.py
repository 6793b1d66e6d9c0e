"""The other end of the bus, for tools and tests: subscribe to messages, ask for operations."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import zmq

from agent.errors import BusError
from agent.publish.events import topic_kind
from agent.publish.security import load_key
from agent.wire import (
    VERSION,
    EmbeddingMessage,
    Event,
    Health,
    Preview,
    Reply,
    ScoreMessage,
    SensorStatus,
)

__all__ = ["ClientKeys", "Message", "Subscriber", "request"]

Message = Event | ScoreMessage | SensorStatus | Health | EmbeddingMessage | Preview

_TYPE_OF_KIND: dict[str, type[Message]] = {
    "event": Event,
    "score": ScoreMessage,
    "sensor": SensorStatus,
    "health": Health,
    "embedding": EmbeddingMessage,
    "preview": Preview,
}
_HWM = 10_000

_Socket = zmq.Socket[bytes]


@dataclass(frozen=True)
class ClientKeys:
    """CURVE: own: the client's secret certificate; server: the agent's public one."""

    own: Path
    server: Path


def _connect(
    kind: int, address: str, keys: ClientKeys | None, identity: str = ""
) -> tuple[zmq.Context[_Socket], _Socket]:
    own = load_key(keys.own, "client key", secret=True) if keys else None
    server = load_key(keys.server, "server key", secret=False)[0] if keys else None
    context: zmq.Context[_Socket] = zmq.Context()
    socket = context.socket(kind)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RCVHWM, _HWM)
    socket.set(zmq.IPV6, "[" in address)
    if identity:
        socket.set(zmq.ROUTING_ID, identity.encode())
    if own is not None and server is not None:
        socket.set(zmq.CURVE_PUBLICKEY, own[0])
        socket.set(zmq.CURVE_SECRETKEY, own[1])
        socket.set(zmq.CURVE_SERVERKEY, server)
    try:
        socket.connect(address)
    except zmq.ZMQError as exc:
        context.destroy(0)
        raise BusError(f"{address}: cannot connect: {exc.strerror}") from exc
    return context, socket


class Subscriber:
    """Messages of an agent, decoded; a context manager. To be used from one thread.

    address: of the events or the bulk socket; the agent need not run yet. topics: prefixes, ending
    in a slash. `gaps`: messages missed so far, by topic. `attachments`: the binary frames of the
    message last received: a vector, a JPEG. Raises BusError for a bad address and
    ConfigError for a bad key file.
    """

    def __init__(
        self,
        address: str,
        topics: Sequence[str] = (f"sensebind/v{VERSION}/",),
        keys: ClientKeys | None = None,
    ) -> None:
        self._context, self._socket = _connect(zmq.SUB, address, keys)
        for prefix in topics:
            self._socket.subscribe(prefix)
        self._last: dict[str, tuple[str, int]] = {}  # topic -> (boot_id, seq)
        self.gaps: dict[str, int] = {}
        self.attachments: list[bytes] = []

    def receive(self, timeout_s: float | None) -> tuple[str, Message] | None:
        """The next (topic, message), or None after `timeout_s` (None: wait for ever).

        A retained message may be one that was already received: its `seq` tells. Kinds that this
        version does not know are passed over. Raises BusError for what is no message.
        """
        while self._socket.poll(None if timeout_s is None else round(timeout_s * 1000)):
            frames = self._socket.recv_multipart()
            name = frames[0].decode("utf-8", "replace")
            kind = _TYPE_OF_KIND.get(topic_kind(name))
            if kind is None:
                continue
            try:
                message = msgspec.json.decode(b"".join(frames[1:2]), type=kind)
            except ValueError as exc:  # bad JSON, bad UTF-8 or other fields
                raise BusError(f"{name}: not a message of this version: {exc}") from exc
            self.attachments = frames[2:]
            self._note(name, message)
            return name, message
        return None

    def messages(self, timeout_s: float | None = None) -> Iterator[tuple[str, Message]]:
        """Each (topic, message) until none comes for `timeout_s` (None: for ever)."""
        while (received := self.receive(timeout_s)) is not None:
            yield received

    def _note(self, name: str, message: Message) -> None:
        # A retained message is out of turn, so it says nothing about what was missed.
        if message.retained:
            return
        boot_id, last = self._last.get(name, ("", 0))
        if boot_id == message.boot_id and message.seq > last + 1:
            self.gaps[name] = self.gaps.get(name, 0) + message.seq - last - 1
        self._last[name] = (message.boot_id, message.seq)

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._context.destroy(0)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def request(
    address: str,
    op: str,
    timeout_s: float = 5.0,
    *,
    keys: ClientKeys | None = None,
    request_id: str | None = None,
    **args: Any,
) -> Reply:
    """Ask the agent at control `address` for `op` with `args` (JSON values); wait for its reply.

    request_id: 1..128 characters, a new one unless given; asking again with the same one gets
    the same reply and does nothing twice. A refusal is a Reply too: look at `ok`. Raises BusError
    where none comes within `timeout_s`, ConfigError for a bad key file.
    """
    request_id = request_id or uuid.uuid4().hex
    body = {"op": op, "id": request_id, **args}
    # The agent knows a request by its client and its id, so the client is named by the id too.
    context, socket = _connect(zmq.DEALER, address, keys, identity=request_id)
    try:
        socket.send(msgspec.json.encode(body))
        if not socket.poll(round(timeout_s * 1000)):
            raise BusError(f"{address}: no answer to {op} within {timeout_s:g} s")
        return msgspec.json.decode(socket.recv(), type=Reply)
    except ValueError as exc:
        raise BusError(f"{address}: the answer to {op} is not a reply: {exc}") from exc
    finally:
        context.destroy(0)
