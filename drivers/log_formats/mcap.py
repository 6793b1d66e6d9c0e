"""MCAP: our own logs, ROS 2 (and ROS 1) recordings, and other makers' Foxglove messages."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from mcap.records import Channel, Schema

from agent.codecs import BLOCKS_TOPIC, STREAM_KEY, Block, McapFile, decode
from agent.errors import BadData, ConfigError
from agent.types import Array, Int64Array, StreamInfo, slug
from drivers.log_formats.base import (
    RATE_MESSAGES,
    Blocks,
    Decoded,
    Decoder,
    Message,
    TickDecoder,
    audio_stamps,
    capture_ns,
    measured_rate_hz,
    picture_stream,
)
from drivers.log_formats.ros import (
    AUDIO_INFO,
    AudioFormat,
    RosType,
    audio_format,
    audio_info_topic,
    ros_decoder,
)

__all__ = ["McapLog"]

_PICTURES = ("foxglove.CompressedImage", "foxglove.RawImage")


class McapLog:
    """One file, or the files of a rosbag2 folder as one log. See base.LogFile."""

    def __init__(self, paths: Sequence[Path], ledger_record: str = "sensebind.ledger") -> None:
        """Raises DeviceNotFound."""
        self._files: list[McapFile] = []
        try:
            self._files.extend(McapFile(path) for path in paths)
        except BaseException:  # a stop too: no file may stay open
            self.close()
            raise
        self.metadata: dict[str, dict[str, str]] = {}
        for file in self._files:
            for name, values in file.metadata.items():
                self.metadata.setdefault(name, {}).update(values)
        self._channels: dict[str, tuple[Channel, Schema | None]] = {}
        for file in self._files:
            for channel in file.channels.values():
                self._channels.setdefault(channel.topic, (channel, file.schema_of(channel)))
        self.topics = tuple(sorted(self._channels))
        self._own: set[str] = set()
        spans = [(file.start_ns, file.end_ns) for file in self._files if file.count]
        self.start_ns = min((start for start, _ in spans), default=0)
        self.end_ns = max((end for _, end in spans), default=0)
        ours = any(STREAM_KEY in channel.metadata for channel, _ in self._channels.values())
        # A log of ours ends with a ledger; without it the recorder was killed.
        self._ended = not ours or ledger_record in self.metadata

    @property
    def complete(self) -> bool:
        return self._ended and all(file.complete for file in self._files)

    def messages(self) -> Iterator[Message]:
        notes: dict[str, Block] = {}
        for message in self._messages(None):
            if message.topic in self._own:
                note = notes.pop(message.topic, None)
                yield message._replace(payload=(note, message.payload))
                continue
            if message.topic == BLOCKS_TOPIC and self._own:
                block = Block.decode(message.payload)
                notes[f"/{block.stream}"] = block
            yield message

    def decoder(self, topic: str, modality: str | None) -> Decoder | None:
        channel, schema = self._channels[topic]
        text = channel.metadata.get(STREAM_KEY)
        if text is not None and schema is not None:
            try:
                info = msgspec.json.decode(text, type=StreamInfo)
            except (msgspec.DecodeError, ConfigError) as exc:
                raise BadData(f"log topic {topic}: its {STREAM_KEY} cannot be read") from exc
            info = replace(info, topic=topic, clock="host", modality=modality or info.modality)
            self._own.add(topic)
            return _OwnDecoder(info, schema.name)
        if schema is None:
            return None
        if channel.message_encoding in ("cdr", "ros1"):
            return self._ros(topic, channel, schema, modality)
        if schema.name.startswith("foxglove."):
            return self._foxglove(topic, schema.name, modality)
        return None

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _messages(self, topics: Sequence[str] | None) -> Iterator[Message]:
        by_time = heapq.merge(*(f.messages(topics) for f in self._files), key=lambda m: m.log_ns)
        return (Message(m.topic, m.log_ns, m.data) for m in by_time)

    def _head(self, topic: str) -> Iterator[tuple[int, bytes]]:
        first = islice(self._messages([topic]), RATE_MESSAGES)
        return ((message.log_ns, message.payload) for message in first)

    def _ros(
        self, topic: str, channel: Channel, schema: Schema, modality: str | None
    ) -> Decoder | None:
        def sound() -> AudioFormat | None:
            return self._audio_format(topic)

        ros_type = _ros_type(channel, schema)
        return ros_decoder(topic, ros_type, self._head(topic), modality, sound)

    def _audio_format(self, topic: str) -> AudioFormat | None:
        infos = {
            name: _ros_type(channel, schema)
            for name, (channel, schema) in self._channels.items()
            if schema is not None and schema.name == AUDIO_INFO
        }
        name = audio_info_topic(topic, list(infos))
        first = None if name is None else next(self._head(name), None)
        return None if first is None else audio_format(infos[name or ""].read(first[1]))

    def _foxglove(self, topic: str, schema: str, modality: str | None) -> Decoder | None:
        head = self._head(topic)
        first = next(head, None)
        ticks = None if first is None else decode(schema, first[1])
        if ticks is None:
            return None
        if schema in _PICTURES:
            rest = ((log_ns, decode(schema, raw)) for log_ns, raw in head)
            stamps = [capture_ns(t.t_ns, log_ns) for log_ns, t in rest if t is not None]
            if ticks.encoding == "mono16":
                modality = modality or "thermal"
            rate_hz = measured_rate_hz(stamps)
            info, convert = picture_stream(topic, ticks.data[0], modality, rate_hz, ticks.frame_id)

            def extract(raw: bytes) -> tuple[Array, int]:
                found = decode(schema, raw)
                assert found is not None  # the schema is one that decode knows
                return convert(found.data[0]), found.t_ns

            return TickDecoder(info, extract)
        if ticks.rate_hz is None:
            return None
        info = StreamInfo(
            slug(topic), modality or "audio", "int16", ticks.data.shape[1:], ticks.rate_hz,
            "full_scale", topic=topic,
        )  # fmt: skip
        self._own.add(topic)
        return _OwnDecoder(info, schema)


def _ros_type(channel: Channel, schema: Schema) -> RosType:
    return RosType(
        schema.name,
        schema.data.decode(errors="replace"),
        idl=schema.encoding == "ros2idl",
        ros1=channel.message_encoding == "ros1",
    )


class _OwnDecoder:
    """Puts the blocks of a stream together again as they were recorded.

    A payload is (note, message): the note of a block comes with the first of its messages.
    Messages without a note are blocks of their own.
    """

    def __init__(self, info: StreamInfo, schema: str) -> None:
        self.info, self._schema = info, schema
        self._note: Block | None = None
        self._parts: list[Array] = []
        self._stamps: list[Int64Array] = []
        self._log_ns = 0

    def decode(self, log_ns: int, payload: tuple[Block | None, bytes]) -> Blocks:
        note, message = payload
        unfinished: Blocks = ()
        if note is not None:
            unfinished = self.finish()
            self._note = note
        ticks = decode(self._schema, message, self.info)
        if ticks is None:
            raise BadData(f"schema {self._schema} is not known")
        self._log_ns = log_ns
        self._parts.append(ticks.data)
        rate_hz = self.info.rate_hz or 1.0
        self._stamps.append(audio_stamps(capture_ns(ticks.t_ns, log_ns), len(ticks.data), rate_hz))
        if self._note is None or sum(map(len, self._parts)) >= self._note.ticks:
            return [*unfinished, *self.finish()]
        return unfinished

    def finish(self) -> Blocks:
        note, self._note = self._note, None
        parts, self._parts = self._parts, []
        stamps, self._stamps = self._stamps, []
        if not parts:
            return ()
        data, t_ns = np.concatenate(parts), np.concatenate(stamps)
        if note is None:
            arrival_ns = max(self._log_ns, int(t_ns[-1]))
            return [Decoded(data, t_ns, arrival_ns, t_ns.copy())]
        # A log that was cut off may end inside a block.
        count = min(len(data), note.ticks)
        t_ns, device_t_ns = note.t_ns()[:count], note.device_t_ns()
        device_t_ns = t_ns.copy() if device_t_ns is None else device_t_ns[:count]
        return [Decoded(data[:count], t_ns, self._log_ns, device_t_ns, note.seq, note.lost)]
