"""A run as an MCAP file: streams as they came, and what the agent said about them.

Producers put samples and messages into one queue, bounded in bytes, that drops the newest and
counts it; one thread encodes and writes. The file is flushed a few times a second, so that a
process that is killed loses less than a second, and ends with a ledger, so that a reader can
tell a whole log from one that was cut off.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import NamedTuple

import foxglove
import msgspec
from foxglove.mcap import MCAPWriteOptions

from agent.clock import Clock, from_s
from agent.codecs import BLOCKS_TOPIC, Block, Codec, Schema, codec_for
from agent.errors import RecordError
from agent.record.schemas import BLOCK_SCHEMA, EVENT_SCHEMA, foxglove_event, json_schema
from agent.record.sink import Sink
from agent.types import Sample, StreamInfo

__all__ = ["EVENTS_TOPIC", "LEDGER_RECORD", "RUN_RECORD", "STREAMS_RECORD", "Counts", "LogWriter"]

# Names of the metadata records.
RUN_RECORD = "sensebind.run"
STREAMS_RECORD = "sensebind.streams"
LEDGER_RECORD = "sensebind.ledger"

EVENTS_TOPIC = "/events"

_FLUSH_NS = from_s(0.25)
_WAIT_S = 0.1  # how late `stop` and a flush may be seen


class Counts(msgspec.Struct):
    """Of one stream in ticks, or of one message topic in messages."""

    received: int = 0
    written: int = 0
    dropped: int = 0


class _Message(NamedTuple):
    topic: str
    schema_name: str
    payload: bytes
    t_ns: int


class LogWriter:
    """One log. `put` and `put_message` may be called from any thread and never block on the disk.

    metadata: what else to keep about the run (config and its hash, space and its hash), strings.
    Opening is done here, so that a run with a bad path fails before any device opens.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock,
        agent: str,
        boot_id: str,
        metadata: Mapping[str, str] | None = None,
        max_queue_mb: float = 64,
        jpeg_quality: int = 90,
    ) -> None:
        """Raises RecordError where `path` exists or cannot be created."""
        self.path = Path(path)
        self._clock = clock
        self._jpeg_quality = jpeg_quality
        self._max_bytes = int(max_queue_mb * 2**20)
        self._queue: deque[Sample | _Message] = deque()
        self._queued_bytes = 0
        self._ready = threading.Condition()
        self._accepting = True
        self._counts: dict[str, Counts] = {}
        self._streams: dict[StreamInfo, tuple[foxglove.Channel, Codec]] = {}
        self._declared: set[StreamInfo] = set()
        self._channels: dict[tuple[str, str], foxglove.Channel] = {}
        self._context = foxglove.Context()
        try:
            self._sink = Sink(self.path.open("xb"))
        except FileExistsError as exc:
            raise RecordError(f"log {self.path}: exists already and is never overwritten") from exc
        except OSError as exc:
            raise RecordError(f"log {self.path}: cannot be created: {exc.strerror}") from exc
        self._writer = foxglove.open_mcap(
            self._sink,
            context=self._context,
            # No compression threads: the recorder has the one thread that supervise gave it.
            writer_options=MCAPWriteOptions(profile="sensebind", compression_threads=0),
        )
        run = {"agent": agent, "boot_id": boot_id, **(metadata or {}), **_versions()}
        self._write_metadata(RUN_RECORD, run)
        self._check(self._writer.flush)

    @property
    def ledger(self) -> dict[str, Counts]:
        """A copy of the counts so far, by stream name and by message topic."""
        with self._ready:
            return {name: msgspec.structs.replace(c) for name, c in self._counts.items()}

    @property
    def dropped(self) -> int:
        """Ticks and messages dropped so far because the queue was full."""
        with self._ready:
            return sum(counts.dropped for counts in self._counts.values())

    def add_stream(self, info: StreamInfo) -> None:
        """Declare a stream. Optional, but then its first sample waits for its codec to load.

        A declared stream is in the log even if it never gives a sample. Raises ConfigError for
        one that cannot be recorded.
        """
        codec_for(info, self._jpeg_quality)
        self._declare(info)

    def put(self, sample: Sample) -> None:
        """Queue a block, or drop and count it where the queue is full. The arrays are kept."""
        self._put(sample, sample.stream.name, len(sample))

    def put_message(self, topic: str, schema_name: str, payload: bytes, t_ns: int) -> None:
        """Queue a JSON message of the agent's own; `t_ns` becomes its log time.

        schema_name: a type of agent.wire, or any other name for a plain JSON object. An Event
        is written to /events as foxglove.Event too.
        """
        self._put(_Message(topic, schema_name, payload, t_ns), topic, 1)

    def run(self, stop: threading.Event) -> None:
        """Write until `stop`, then what is still queued, the ledger and the index.

        Raises RecordError where the disk is full or fails; the log then has no ledger.
        """
        flushed_ns = self._clock.now_ns()
        dirty = False
        try:
            while True:
                # Read before the queue, so that nothing put before `stop` was set is left behind.
                stopping = stop.is_set()
                item = self._take()
                if item is not None:
                    self._write(item)
                    dirty = True
                elif stopping:
                    break
                now = self._clock.now_ns()
                if dirty and now - flushed_ns >= _FLUSH_NS:
                    self._check(self._writer.flush)
                    flushed_ns, dirty = now, False
            with self._ready:
                self._accepting = False
            while (item := self._take(wait=False)) is not None:
                self._write(item)
            counts = {n: msgspec.json.encode(c).decode() for n, c in self.ledger.items()}
            self._write_metadata(LEDGER_RECORD, {"complete": "true", **counts})
        finally:
            self.close()

    def close(self) -> None:
        """End the file as it is. Idempotent. Raises RecordError where that cannot be written."""
        with self._ready:
            self._accepting = False
        if self._sink.closed:
            return
        try:
            self._check(self._writer.close)
        finally:
            self._sink.close()

    def _put(self, item: Sample | _Message, name: str, ticks: int) -> None:
        size = _size(item)
        with self._ready:
            counts = self._counts.setdefault(name, Counts())
            counts.received += ticks
            if not self._accepting or self._queued_bytes + size > self._max_bytes:
                counts.dropped += ticks
                return
            self._queue.append(item)
            self._queued_bytes += size
            self._ready.notify()

    def _take(self, wait: bool = True) -> Sample | _Message | None:
        with self._ready:
            if not self._queue and wait:
                self._ready.wait(_WAIT_S)
            if not self._queue:
                return None
            item = self._queue.popleft()
            self._queued_bytes -= _size(item)
            return item

    def _write(self, item: Sample | _Message) -> None:
        if isinstance(item, Sample):
            channel, codec = self._stream(item.stream)
            log_time = item.arrival_ns
            blocks = self._channel(BLOCKS_TOPIC, BLOCK_SCHEMA)
            blocks.log(Block.of(item).encode(), log_time=log_time)
            for message in codec.encode(item):
                channel.log(message, log_time=log_time)
            name, ticks = item.stream.name, len(item)
        else:
            schema = json_schema(item.schema_name)
            self._channel(item.topic, schema).log(item.payload, log_time=item.t_ns)
            if item.schema_name == "Event":
                event = foxglove_event(item.payload)
                self._channel(EVENTS_TOPIC, EVENT_SCHEMA).log(event, log_time=item.t_ns)
            name, ticks = item.topic, 1
        self._raise_if_failed()
        with self._ready:
            self._counts[name].written += ticks

    def _declare(self, info: StreamInfo) -> None:
        """Write what a stream is, once. Any thread."""
        with self._ready:
            self._counts.setdefault(info.name, Counts())
            if info in self._declared:
                return
            self._declared.add(info)
        self._write_metadata(STREAMS_RECORD, {info.name: msgspec.json.encode(info).decode()})

    def _stream(self, info: StreamInfo) -> tuple[foxglove.Channel, Codec]:
        if info not in self._streams:
            codec = codec_for(info, self._jpeg_quality)
            self._declare(info)
            channel = self._new_channel(f"/{info.name}", codec.schema, codec.metadata)
            self._streams[info] = channel, codec
        return self._streams[info]

    def _channel(self, topic: str, schema: Schema) -> foxglove.Channel:
        key = topic, schema.name
        if key not in self._channels:
            self._channels[key] = self._new_channel(topic, schema, {})
        return self._channels[key]

    def _new_channel(
        self, topic: str, schema: Schema, metadata: dict[str, str]
    ) -> foxglove.Channel:
        return foxglove.Channel(
            topic,
            schema=foxglove.Schema(name=schema.name, encoding=schema.encoding, data=schema.data),
            message_encoding=schema.message_encoding,
            metadata=metadata,
            context=self._context,
        )

    def _write_metadata(self, name: str, values: dict[str, str]) -> None:
        self._check(lambda: self._writer.write_metadata(name, values))

    def _check(self, write: Callable[[], None]) -> None:
        try:
            write()
        except RuntimeError as exc:  # what the SDK raises for every failure
            self._raise_if_failed()
            raise RecordError(f"log {self.path}: cannot be written: {exc}") from exc
        self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        # The SDK only prints the errors of a message that it cannot write, and goes on.
        error = self._sink.error
        if error is not None:
            raise RecordError(f"log {self.path}: cannot be written: {error.strerror}") from error


def _size(item: Sample | _Message) -> int:
    """Bytes that an item holds while it is queued."""
    if isinstance(item, _Message):
        return len(item.payload)
    device = 0 if item.device_t_ns is None else item.device_t_ns.nbytes
    return item.data.nbytes + item.t_ns.nbytes + device


def _versions() -> dict[str, str]:
    names = ("sensebind", "foxglove-sdk", "mcap", "numpy", "onnxruntime")
    return {f"version.{name}": packages.version(name) for name in names}
