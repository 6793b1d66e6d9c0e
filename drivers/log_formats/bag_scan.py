"""The index of a ROS 1 bag that has none: its recorder was killed, or the file was cut off."""

from __future__ import annotations

import bz2
import io
import os
from collections import defaultdict
from collections.abc import Callable
from typing import BinaryIO

import lz4.frame  # type: ignore[import-untyped]  # it publishes no types
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag1,
    MessageDefinition,
    MessageDefinitionFormat,
)
from rosbags.rosbag1 import Reader, ReaderError
from rosbags.rosbag1.reader import (
    Chunk,
    ChunkInfo,
    Header,
    IndexData,
    RecordType,
    normalize,
    read_bytes,
    read_uint32,
)
from rosbags.typesys.msg import normalize_msgtype

__all__ = ["ScannedBag"]

# Unlike one-shot decompression these give what there is of a chunk that was cut off.
_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "bz2": lambda data: bz2.BZ2Decompressor().decompress(data),
    "lz4": lambda data: bytes(lz4.frame.LZ4FrameDecompressor().decompress(data)),
}


class ScannedBag(Reader):
    """rosbags' reader, its index made by reading every whole record of the file."""

    def open(self) -> None:
        """Raises ReaderError for a file that does not begin like a bag, OSError as open()."""
        self.bio = self.path.open("rb")
        size = os.fstat(self.bio.fileno()).st_size
        try:
            if self.bio.readline() != b"#ROSBAG V2.0\n":
                raise ReaderError("it does not begin with #ROSBAG V2.0")
            Header.read(self.bio, RecordType.BAGHEADER)
            self._skip()
        except ReaderError:
            self.bio.close()
            raise
        found: dict[int, Connection] = {}
        indexes: dict[int, list[IndexData]] = defaultdict(list)
        while True:
            position = self.bio.tell()
            try:
                header = Header.read(self.bio)
                if header.get_uint8("op") != RecordType.CHUNK:
                    self._skip()
                    continue
                length = read_uint32(self.bio)
                decompress = _DECOMPRESS[header.get_string("compression")]
                start = self.bio.tell()
                chunk = Chunk(min(length, size - start), start, decompress)
                records = io.BytesIO(chunk.decompressor(read_bytes(self.bio, chunk.datasize)))
            # OSError and RuntimeError are what bz2 and lz4 raise for damaged data.
            except (ReaderError, KeyError, ValueError, EOFError, OSError, RuntimeError):
                break
            self.chunks[position] = chunk
            self.chunk_infos.append(self._index(records, position, found, indexes))
        self.indexes = {i: sorted(indexes[i]) for i in found}
        self.connections = [c._replace(msgcount=len(indexes[i])) for i, c in found.items()]

    def _skip(self) -> None:
        assert self.bio is not None
        self.bio.seek(read_uint32(self.bio), os.SEEK_CUR)

    def _index(
        self,
        records: BinaryIO,
        position: int,
        found: dict[int, Connection],
        indexes: dict[int, list[IndexData]],
    ) -> ChunkInfo:
        times: list[int] = []
        counts: dict[int, int] = defaultdict(int)
        while True:
            offset = records.tell()
            try:
                header = Header.read(records)
                number = header.get_uint32("conn")
                if header.get_uint8("op") == RecordType.CONNECTION:
                    found.setdefault(number, self._connection(number, header, Header.read(records)))
                    continue
                read_bytes(records, read_uint32(records))
                time_ns = header.get_time("time")
            except ReaderError:  # the end, or the message that was cut off
                break
            indexes[number].append(IndexData(time_ns, position, offset))
            counts[number] += 1
            times.append(time_ns)
        start, end = min(times, default=2**63 - 1), max(times, default=-1) + 1
        return ChunkInfo(position, start, end, counts)

    def _connection(self, number: int, header: Header, data: Header) -> Connection:
        definition = data.get_string("message_definition")
        return Connection(
            number,
            normalize(header.get_string("topic")),
            normalize_msgtype(data.get_string("type")),
            MessageDefinition(MessageDefinitionFormat.MSG, definition),
            data.get_string("md5sum"),
            0,
            ConnectionExtRosbag1(None, None),
            self,
        )
