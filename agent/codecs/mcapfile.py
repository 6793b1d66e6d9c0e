"""An MCAP file of any maker, whole or cut off, its messages in the order of their log time."""

from __future__ import annotations

import heapq
import io
import struct
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, ChunkIndex, Message, Metadata, Schema, Statistics
from mcap.stream_reader import breakup_chunk
from mcap.summary import Summary

from agent.errors import BadData, DeviceNotFound

__all__ = ["MCAP_MAGIC", "McapFile", "McapMessage"]

MCAP_MAGIC = b"\x89MCAP0\r\n"

# What the readers of damaged records raise. RuntimeError is lz4's; a length inside a record that
# was never filled in (2**64 - 1) or is garbage cannot be read or be held in memory.
_DAMAGE = (
    McapError,
    struct.error,
    zstandard.ZstdError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
)


class McapMessage(NamedTuple):
    """log_ns: log time. data: the message as written. channel_id: a key of McapFile.channels."""

    topic: str
    log_ns: int
    data: bytes
    channel_id: int


class McapFile:
    """Open for reading; memory holds the index and the chunks that overlap, not the file.

    complete: False where the file was cut off, or has no end; then it was walked once, whole
    record by whole record, to find what is there. metadata: its metadata records by name, those
    of one name merged. channels, schemas: by id. start_ns, end_ns: first and last log time, 0 if
    it has no messages.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises DeviceNotFound where the file cannot be opened or is not MCAP."""
        self.path = Path(path)
        try:
            self._file: IO[bytes] = self.path.open("rb")
        except OSError as exc:
            raise DeviceNotFound(f"log {self.path}: {exc.strerror or exc}") from exc
        try:
            if self._file.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
                raise DeviceNotFound(f"log {self.path}: not an MCAP file")
            self._size = self._file.seek(0, io.SEEK_END)
            self._file.seek(0)
            self._open()
        except BaseException:  # a reader's own errors too: the file may not stay open
            self._file.close()
            raise

    def _open(self) -> None:
        self.metadata: dict[str, dict[str, str]] = {}
        self.complete = True
        self._loose_times, self._loose_offsets = array("Q"), array("Q")
        self._reader: SeekingReader = SeekingReader(self._file)
        summary = self._indexed()
        if summary is None:
            summary = self._scan()
            self._reader = _Scanned(self._file, summary)
        self._has_chunks = bool(summary.chunk_indexes)
        self.channels: dict[int, Channel] = summary.channels
        self.schemas: dict[int, Schema] = summary.schemas
        statistics = summary.statistics
        assert statistics is not None  # both ways to a summary see to it
        self.count = statistics.message_count
        self.start_ns, self.end_ns = statistics.message_start_time, statistics.message_end_time

    def schema_of(self, channel: Channel) -> Schema | None:
        """The schema of a channel, None where it has none."""
        return self.schemas.get(channel.schema_id)

    def messages(self, topics: Collection[str] | None = None) -> Iterator[McapMessage]:
        """Messages of `topics` (None: all) by log time; ties stay in the order of writing.

        Raises BadData at a damaged record, after which there is nothing more to read.
        """
        # Without a chunk the library would walk the file itself, and into what was cut off.
        found = self._reader.iter_messages(topics) if self._has_chunks else ()
        chunked = (McapMessage(c.topic, m.log_time, m.data, c.id) for _, c, m in found)
        try:
            if self._loose_times:
                # heapq.merge reads chunks only as far as it has to.
                yield from heapq.merge(chunked, self._loose(topics), key=lambda m: m.log_ns)
            else:
                yield from chunked
        except _DAMAGE as exc:
            self.complete = False
            raise BadData(f"log {self.path}: damaged, reading stops here: {exc}") from exc

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def _indexed(self) -> Summary | None:
        """The file's own index, None where it has none that can be used for every message."""
        try:
            summary = self._reader.get_summary()
            if summary is None or summary.statistics is None:
                return None
            counts = summary.statistics
            if len(summary.channels) < counts.channel_count or (
                counts.message_count and not summary.chunk_indexes
            ):
                return None
            for record in self._reader.iter_metadata():
                self.metadata.setdefault(record.name, {}).update(record.metadata)
        except (*_DAMAGE, OSError):  # OSError: a file shorter than a footer cannot be sought
            self.metadata.clear()
            return None
        return summary

    def _scan(self) -> Summary:
        """Walk the file to its last whole record and build the index it lacks."""
        summary = Summary()
        spans: list[int] = []
        count = 0
        self.complete = False
        for opcode, start, length in self._records():
            if opcode == Opcode.FOOTER:
                self.complete = True
                break
            try:
                times = self._scan_record(summary, opcode, start, length)
            except _DAMAGE:
                break  # such as a chunk whose own header was not filled in when the writer died
            count += len(times)
            spans += (min(times), max(times)) if times else ()
        if self._loose_times:
            count += len(self._loose_times)
            spans += (min(self._loose_times), max(self._loose_times))
        summary.statistics = Statistics(
            attachment_count=0,
            channel_count=len(summary.channels),
            channel_message_counts={},
            chunk_count=len(summary.chunk_indexes),
            message_count=count,
            message_end_time=max(spans, default=0),
            message_start_time=min(spans, default=0),
            metadata_count=len(self.metadata),
            schema_count=len(summary.schemas),
        )
        return summary

    def _scan_record(self, summary: Summary, opcode: int, start: int, length: int) -> list[int]:
        """Take one record into the index; log times of the messages of a chunk."""
        stream = ReadDataStream(self._file)
        if opcode == Opcode.CHUNK:
            return _index_chunk(summary, Chunk.read(stream), start, length)
        if opcode == Opcode.MESSAGE:
            self._loose_times.append(Message.read(stream, length).log_time)
            self._loose_offsets.append(start)
        elif opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            summary.schemas[schema.id] = schema
        elif opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            summary.channels[channel.id] = channel
        elif opcode == Opcode.METADATA:
            metadata = Metadata.read(stream)
            self.metadata.setdefault(metadata.name, {}).update(metadata.metadata)
        return []

    def _records(self) -> Iterator[tuple[int, int, int]]:
        """(opcode, offset, length) of each whole record; the file is left at its content."""
        position = len(MCAP_MAGIC)
        while position + 9 <= self._size:
            self._file.seek(position)
            opcode, length = struct.unpack("<BQ", self._file.read(9))
            end = position + 9 + length
            if end > self._size or not opcode:
                return
            yield opcode, position, length
            position = end

    def _loose(self, topics: Collection[str] | None) -> Iterator[McapMessage]:
        """Messages that are in no chunk, sorted by log time."""
        for i in np.argsort(np.asarray(self._loose_times), kind="stable"):
            self._file.seek(self._loose_offsets[i])
            _, length = struct.unpack("<BQ", self._file.read(9))
            message = Message.read(ReadDataStream(self._file), length)
            topic = self.channels[message.channel_id].topic
            if topics is None or topic in topics:
                yield McapMessage(topic, message.log_time, message.data, message.channel_id)


class _Scanned(SeekingReader):
    """The library's reader over an index that is not in the file."""

    def __init__(self, stream: IO[bytes], summary: Summary) -> None:
        stream.seek(0)
        super().__init__(stream)
        self._scanned = summary

    def get_summary(self) -> Summary:
        return self._scanned


def _index_chunk(summary: Summary, chunk: Chunk, start: int, length: int) -> list[int]:
    """Add a chunk to the index; log times of its messages. Raises _DAMAGE, then adding nothing."""
    records = breakup_chunk(chunk, validate_crc=True)
    messages = [record for record in records if isinstance(record, Message)]
    summary.channels |= {r.id: r for r in records if isinstance(r, Channel)}
    summary.schemas |= {r.id: r for r in records if isinstance(r, Schema)}
    summary.chunk_indexes.append(
        ChunkIndex(
            chunk_length=length + 9,
            chunk_start_offset=start,
            compression=chunk.compression,
            compressed_size=len(chunk.data),
            message_end_time=chunk.message_end_time,
            message_index_length=0,
            # Readers look at the keys only, to skip chunks that have none of their topics.
            message_index_offsets=dict.fromkeys((m.channel_id for m in messages), 0),
            message_start_time=chunk.message_start_time,
            uncompressed_size=chunk.uncompressed_size,
        )
    )
    return [message.log_time for message in messages]
