"""What an isolated driver's process and the agent say to each other, and the memory they share.

Words go over a socket that keeps their bounds (SOCK_SEQPACKET), as msgpack; ticks go through a
ring in anonymous memory (memfd_create), which has no name to be left behind under: it is gone
with the last of the two processes, however they end.

Positions in the ring count bytes since its beginning and never go back; a block lies at its
position modulo the size, in one piece. The writer is told of what may be written over by the end
position of the last block that was read.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from agent.types import Sample, StreamInfo

__all__ = [
    "MAX_MESSAGE",
    "Block",
    "Connected",
    "FromChild",
    "LogLine",
    "RingReader",
    "RingWriter",
    "Setup",
    "Trouble",
]

MAX_MESSAGE = 1 << 16  # bytes of one message, either way
ALIGN = 64  # a cache line: more than any dtype asks for
SPARE_BLOCKS_S = 0.1  # docs/adding-a-driver.md: a block is 10 to 100 ms
LEAST_BYTES = 1 << 20
IRREGULAR_HZ = 30.0  # of a stream that does not tell its rate


class Setup(msgspec.Struct, frozen=True):
    """The first message, to the child: which driver, and on which clock.

    anchor: of agent.clock.SystemClock. buffer_s: what the ring holds. log_level: least level of
    the log lines that are wanted. python_path: PYTHONPATH as the agent has it, for programs that
    the driver starts: the child's own is made for this interpreter alone.
    """

    kind: str
    name: str
    settings: dict[str, Any]
    anchor: tuple[int, int]
    read_timeout_s: float
    buffer_s: float
    log_level: int
    python_path: str


class Connected(msgspec.Struct, frozen=True, tag="connected"):
    """The driver has connected; the ring's file descriptor comes with this message."""

    streams: list[StreamInfo]


class Block(msgspec.Struct, frozen=True, tag="block"):
    """One Sample, its arrays in the ring at `start` up to `end`. stream: index in Connected."""

    stream: int
    seq: int
    arrival_ns: int
    ticks: int
    lost: int
    has_device: bool
    start: int
    end: int


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """The driver raised an error of agent.errors: its class and message."""

    error: str
    message: str


class LogLine(msgspec.Struct, frozen=True, tag="log"):
    level: int
    logger: str
    text: str


FromChild = Connected | Block | Trouble | LogLine


class RingWriter:
    """The child's side: makes the memory, copies blocks in, never waits for the reader.

    fd: the memory's file descriptor, the writer's own.
    """

    def __init__(self, streams: Sequence[StreamInfo], buffer_s: float) -> None:
        self._streams = {info.name: (index, info) for index, info in enumerate(streams)}
        bytes_per_s = sum(_tick_bytes(i) * (i.rate_hz or IRREGULAR_HZ) for i in streams)
        # A block lies in one piece, so half a ring of the largest may be wasted at the end.
        largest = max((_tick_bytes(i) for i in streams), default=0)
        wanted = round(bytes_per_s * (buffer_s + SPARE_BLOCKS_S)) + 4 * largest
        self.size = -(-max(wanted, LEAST_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.fd = os.memfd_create("sensebind", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        # A reader of memory that has shrunk would be killed by SIGBUS.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._memory = mmap.mmap(self.fd, self.size)
        self._head = self._tail = 0

    def place(self, sample: Sample) -> Block | None:
        """Copy a sample in where there is room, else None. It is kept once `keep` is called.

        Raises KeyError for a stream that is not one of ours, ValueError for a block that is
        larger than the whole ring.
        """
        index, info = self._streams[sample.stream.name]
        has_device = sample.device_t_ns is not None
        data_at, total = _layout(info, len(sample), has_device)
        if total > self.size:
            raise ValueError(f"a block of {total} bytes, the ring has {self.size}")
        start = self._head
        # An empty ring begins again at its beginning, so that memory which is not needed is
        # never touched; a block that would go over the end does too.
        if self._head == self._tail or start % self.size + total > self.size:
            start = -(-start // self.size) * self.size
        tail = start if self._head == self._tail else self._tail
        if start + total - tail > self.size:
            return None
        at = start % self.size
        ticks = len(sample)
        stamps = np.frombuffer(self._memory, np.int64, ticks * (1 + has_device), at)
        stamps[:ticks] = sample.t_ns
        if sample.device_t_ns is not None:
            stamps[ticks:] = sample.device_t_ns
        count = ticks * int(np.prod(info.shape))
        data = np.frombuffer(self._memory, info.dtype, count, at + data_at)
        data.reshape(sample.data.shape)[...] = sample.data
        return Block(
            stream=index,
            seq=sample.seq,
            arrival_ns=sample.arrival_ns,
            ticks=ticks,
            lost=sample.lost,
            has_device=has_device,
            start=start,
            end=start + total,
        )

    def keep(self, block: Block) -> None:
        """The block has been told to the reader: it stays until it is freed."""
        if self._head == self._tail:
            self._tail = block.start
        self._head = block.end

    def free(self, end: int) -> None:
        """All blocks up to position `end` have been read."""
        self._tail = max(self._tail, end)

    def close(self) -> None:
        """Let go of the memory; the reader keeps its own hold."""
        self._memory.close()
        os.close(self.fd)


class RingReader:
    """The agent's side. Takes over `fd`."""

    def __init__(self, fd: int, streams: Sequence[StreamInfo]) -> None:
        self._streams = streams
        try:
            self.size = os.fstat(fd).st_size
            self._memory = mmap.mmap(fd, self.size, prot=mmap.PROT_READ)
        finally:
            os.close(fd)  # the map holds the memory

    def take(self, block: Block) -> Sample:
        """The block's sample, its arrays copied out: they are the caller's, for as long as it
        likes. Raises BadData as Sample does, and IndexError or ValueError for a block that is
        nowhere in the ring.
        """
        info = self._streams[block.stream]
        data_at, _ = _layout(info, block.ticks, block.has_device)
        at = block.start % self.size
        stamps = np.frombuffer(self._memory, np.int64, block.ticks * (1 + block.has_device), at)
        count = block.ticks * int(np.prod(info.shape))
        data = np.frombuffer(self._memory, info.dtype, count, at + data_at)
        return Sample(
            stream=info,
            seq=block.seq,
            t_ns=stamps[: block.ticks].copy(),
            arrival_ns=block.arrival_ns,
            data=data.reshape(block.ticks, *info.shape).copy(),
            device_t_ns=stamps[block.ticks :].copy() if block.has_device else None,
            lost=block.lost,
        )

    def close(self) -> None:
        self._memory.close()


def _tick_bytes(info: StreamInfo) -> int:
    """Of one tick with both its stamps."""
    return int(np.dtype(info.dtype).itemsize * np.prod(info.shape)) + 16


def _layout(info: StreamInfo, ticks: int, has_device: bool) -> tuple[int, int]:
    """(where the data begins, bytes in all) of a block."""
    data_at = _aligned(8 * ticks * (1 + has_device))
    values = ticks * int(np.prod(info.shape))
    return data_at, data_at + _aligned(values * np.dtype(info.dtype).itemsize)


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
