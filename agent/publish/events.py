"""What is said, before any socket: topics, sequence numbers, what a late joiner is told, queues.

Nothing here imports zmq: a replay numbers its messages by the same rule and writes them as lines.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from agent.errors import BusError
from agent.types import check_name
from agent.wire import VERSION, Event, SensorStatus, WireStruct

__all__ = ["EVENTS_LIMIT", "Outbox", "Outgoing", "Retained", "Sequencer", "topic", "topic_kind"]

# Bound of the queue that never drops. The bus thread empties it in milliseconds, so this many
# waiting means that it is gone; holding them all takes some 100 MB.
EVENTS_LIMIT = 65_536

_QUEUE_OF_KIND = {
    "event": "bus.events",
    "sensor": "bus.events",
    "embedding": "bus.bulk",
    "preview": "bus.bulk",
}
_LIVE = "bus.live"

_Message = TypeVar("_Message", bound=WireStruct)


def topic(agent: str, *levels: str) -> str:
    """`topic("hat", "event", "cat")` -> "sensebind/v1/hat/event/cat/".

    Ends in a slash because ZeroMQ matches prefixes: `cam1` would match `cam10`. Raises
    ConfigError for a level that is not `[a-z0-9_]+`.
    """
    names = [check_name(name, "topic level") for name in (agent, *levels)]
    return f"sensebind/v{VERSION}/{'/'.join(names)}/"


def topic_kind(name: str) -> str:
    """The level after the agent's: "event", "score", "sensor", "health", ...; "" if none."""
    levels = name.split("/")
    return levels[3] if len(levels) > 3 else ""


class Sequencer:
    """Numbers the messages of each topic 1, 2, 3, ...; 0 is a message that was never sent."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def number(self, name: str, message: _Message) -> _Message:
        """A copy of `message` with the next `seq` of topic `name`. Not thread-safe."""
        seq = self._last.get(name, 0) + 1
        self._last[name] = seq
        return msgspec.structs.replace(message, seq=seq)


class Retained:
    """What a late joiner must know: each open event and each sensor's last status.

    As large as the number of open events plus sensors. Not thread-safe: the bus thread owns it.
    """

    def __init__(self) -> None:
        self._sensors: dict[str, SensorStatus] = {}
        self._events: dict[str, tuple[str, Event]] = {}

    def keep(self, name: str, message: WireStruct) -> None:
        """Take note of a message that has just been sent on topic `name`."""
        if isinstance(message, SensorStatus):
            self._sensors[name] = message
        elif isinstance(message, Event):
            # Out and in again, so that iteration is in the order of sending.
            self._events.pop(message.id, None)
            if message.phase != "end":
                self._events[message.id] = (name, message)

    def matching(self, prefixes: Iterable[str]) -> list[tuple[str, WireStruct]]:
        """(topic, message) to send again to a subscriber of `prefixes`: sensors, then events.

        They are as first sent, but for `retained`, which is true.
        """
        starts = tuple(prefixes)
        known: list[tuple[str, WireStruct]] = [*self._sensors.items(), *self._events.values()]
        return [
            (name, msgspec.structs.replace(message, retained=True))
            for name, message in known
            if name.startswith(starts)
        ]


class Outgoing(NamedTuple):
    """A numbered message on its way. attachments: binary frames, not copied."""

    topic: str
    message: WireStruct
    attachments: tuple[bytes, ...]
    bulk: bool


class Outbox:
    """Numbered messages that wait for the bus thread. Thread-safe; no call blocks.

    Three queues, each in order and each with its policy, by the name that `drops` counts them:
    "bus.events" (events, sensor status) never drops; "bus.live" (scores, health) and "bus.bulk"
    (previews, embeddings) hold `live_limit` messages and drop the oldest. A dropped message has
    had its number, so a subscriber sees the gap.
    """

    def __init__(self, live_limit: int) -> None:
        self._limit = {"bus.events": EVENTS_LIMIT, _LIVE: live_limit, "bus.bulk": live_limit}
        self._queues: dict[str, deque[Outgoing]] = {name: deque() for name in self._limit}
        self._sequencer = Sequencer()
        self._lock = threading.Lock()
        self._closed = False
        self.drops: dict[str, int] = dict.fromkeys(self._limit, 0)

    def put(self, name: str, message: WireStruct, attachments: Sequence[bytes] = ()) -> None:
        """Number `message` and queue it. After `close` it is dropped and counted.

        Raises BusError where `EVENTS_LIMIT` events wait: nothing is sending them.
        """
        which = _QUEUE_OF_KIND.get(topic_kind(name), _LIVE)
        with self._lock:
            queue = self._queues[which]
            if self._closed:
                self.drops[which] += 1
                return
            if len(queue) >= self._limit[which]:
                if which == "bus.events":
                    raise BusError(f"{which}: {len(queue)} messages wait and none is being sent")
                queue.popleft()
                self.drops[which] += 1
            numbered = self._sequencer.number(name, message)
            queue.append(Outgoing(name, numbered, tuple(attachments), which == "bus.bulk"))

    def take(self) -> list[Outgoing]:
        """Everything that waits, events first; the queues are empty afterwards."""
        with self._lock:
            waiting = [item for queue in self._queues.values() for item in queue]
            for queue in self._queues.values():
                queue.clear()
        return waiting

    def close(self) -> None:
        """Accept nothing more. Idempotent."""
        with self._lock:
            self._closed = True
