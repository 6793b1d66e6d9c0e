"""rosbag: ROS 1 `.bag` files, whole or cut off, and ROS 2 recordings in SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag1 import ReaderError as ReaderError1
from rosbags.rosbag2 import Reader as Reader2
from rosbags.rosbag2 import ReaderError as ReaderError2
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from agent.errors import BadData, DeviceNotFound
from drivers.log_formats.bag_scan import ScannedBag
from drivers.log_formats.base import RATE_MESSAGES, Decoder, Message
from drivers.log_formats.ros import (
    AUDIO_INFO,
    AudioFormat,
    RosType,
    audio_format,
    audio_info_topic,
    ros_decoder,
)

__all__ = ["BagLog", "open_bag1", "open_bag2"]

# AssertionError and ValueError come from the readers' own checks of what they parse.
_DAMAGE = (ReaderError1, ReaderError2, apsw.Error, AssertionError, ValueError, EOFError, OSError)


def open_bag1(path: Path) -> BagLog:
    """A ROS 1 bag; without a sound index it is walked, chunk by chunk. Raises DeviceNotFound."""
    try:
        return BagLog(path, Reader1(path), ros1=True)
    except DeviceNotFound:
        return BagLog(path, ScannedBag(path), ros1=True, complete=False)


def open_bag2(path: Path) -> BagLog:
    """A rosbag2 folder with its metadata.yaml, or one SQLite file. Raises DeviceNotFound."""
    return BagLog(path, Reader2(path) if path.is_dir() else Sqlite3Reader(path), ros1=False)


class BagLog:
    """See base.LogFile. Memory holds the index of a ROS 1 bag and one of its chunks."""

    def __init__(self, path: Path, reader: Any, *, ros1: bool, complete: bool = True) -> None:
        """reader: one of rosbags', not open yet. Raises DeviceNotFound where it cannot be."""
        self._path, self._reader, self._ros1 = path, reader, ros1
        self.complete = complete
        self.metadata: dict[str, dict[str, str]] = {}
        try:
            reader.open()
        except _DAMAGE as exc:
            raise DeviceNotFound(f"log {path}: cannot be read as a rosbag: {exc}") from exc
        self._open = True
        self._connections: dict[str, Connection] = {}
        for connection in reader.connections:
            self._connections.setdefault(connection.topic, connection)
        self.topics = tuple(sorted(self._connections))
        # Both kinds of reader give the end as the nanosecond after the last message.
        times = reader if ros1 or isinstance(reader, Reader2) else reader.metadata
        has_messages = any(connection.msgcount for connection in reader.connections)
        self.start_ns = times.start_time if has_messages else 0
        self.end_ns = times.end_time - 1 if has_messages else 0

    def messages(self) -> Iterator[Message]:
        return self._messages(self._reader.connections)

    def decoder(self, topic: str, modality: str | None) -> Decoder | None:
        def sound() -> AudioFormat | None:
            types = {name: c.msgtype for name, c in self._connections.items()}
            name = audio_info_topic(topic, [n for n, t in types.items() if t == AUDIO_INFO])
            first = None if name is None else next(self._head(name), None)
            return None if first is None else audio_format(self._type(name or "").read(first[1]))

        return ros_decoder(topic, self._type(topic), self._head(topic), modality, sound)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._reader.close()

    def _type(self, topic: str) -> RosType:
        connection = self._connections[topic]
        definition = connection.msgdef
        idl = definition.format == MessageDefinitionFormat.IDL
        return RosType(connection.msgtype, definition.data, idl=idl, ros1=self._ros1)

    def _messages(self, connections: list[Connection]) -> Iterator[Message]:
        try:
            for connection, log_ns, raw in self._reader.messages(connections):
                yield Message(connection.topic, log_ns, raw)
        except _DAMAGE as exc:
            self.complete = False
            raise BadData(f"log {self._path}: damaged, reading stops here: {exc}") from exc

    def _head(self, topic: str) -> Iterator[tuple[int, bytes]]:
        same = [c for c in self._reader.connections if c.topic == topic]
        return ((m.log_ns, m.payload) for m in islice(self._messages(same), RATE_MESSAGES))
