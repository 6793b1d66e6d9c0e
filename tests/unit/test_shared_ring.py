"""The ring in shared memory: right data or none, whatever the order of blocks and reads."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.isolation.ring import LEAST_BYTES, Block, RingReader, RingWriter
from agent.types import Sample, StreamInfo

STREAMS = (
    StreamInfo("picture", "image", "uint8", (300, 400), 10.0, "mono8"),
    StreamInfo("sound", "audio", "float32", (2,), 1000.0, "full_scale"),
    StreamInfo("knocks", "knock", "int16", (), None, "counts", clock="device"),
)


@contextmanager
def ring(buffer_s: float = 0.1) -> Iterator[tuple[RingWriter, RingReader]]:
    writer = RingWriter(STREAMS, buffer_s)
    reader = RingReader(os.dup(writer.fd), STREAMS)
    try:
        yield writer, reader
    finally:
        reader.close()
        writer.close()


def sample(stream: int, ticks: int, seq: int) -> Sample:
    info = STREAMS[stream]
    rng = np.random.default_rng([stream, seq])
    data = rng.integers(0, 100, (ticks, *info.shape)).astype(info.dtype)
    t_ns = np.arange(ticks, dtype=np.int64) + seq
    return Sample(
        info, seq, t_ns, seq + ticks, data, t_ns * 7 if stream == 2 else None, lost=seq % 3
    )


def same(a: Sample, b: Sample) -> bool:
    stamps = (a.stream, a.seq, a.arrival_ns, a.lost) == (b.stream, b.seq, b.arrival_ns, b.lost)
    device = (a.device_t_ns is None) == (b.device_t_ns is None)
    if a.device_t_ns is not None and b.device_t_ns is not None:
        device = bool((a.device_t_ns == b.device_t_ns).all())
    return stamps and device and bool((a.t_ns == b.t_ns).all() and (a.data == b.data).all())


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans(), st.integers(0, 3)),
        max_size=60,
    )
)
def test_what_is_read_is_what_was_written(steps: list[tuple[int, int, bool, int]]) -> None:
    """Blocks that wait to be read are never written over; a read one is the reader's own."""
    waiting: deque[tuple[Block, Sample]] = deque()
    taken: list[tuple[Sample, Sample]] = []
    with ring() as (writer, reader):
        for seq, (stream, ticks, told, reads) in enumerate(steps):
            given_sample = sample(stream, ticks * (1 if stream == 0 else 200), seq)
            block = writer.place(given_sample)
            if block is None:
                assert waiting, "an empty ring has room"
            elif told:
                writer.keep(block)
                waiting.append((block, given_sample))
            for _ in range(min(reads, len(waiting))):
                block, original = waiting.popleft()
                taken.append((reader.take(block), original))
                writer.free(block.end)
        for block, original in waiting:
            assert same(reader.take(block), original)
    assert all(same(ours, original) for ours, original in taken)


def test_a_reader_that_keeps_up_never_touches_most_of_the_memory() -> None:
    with ring(buffer_s=10.0) as (writer, reader):
        for seq in range(100):
            block = writer.place(sample(0, 1, seq))
            assert block is not None
            assert block.start % writer.size == 0
            writer.keep(block)
            reader.take(block)
            writer.free(block.end)


def test_it_holds_what_was_asked_for_and_no_more() -> None:
    with ring(buffer_s=2.0) as (writer, reader):
        held = 0
        while (block := writer.place(sample(0, 1, held))) is not None:
            writer.keep(block)
            held += 1
        assert 20 <= held <= 30, "10 pictures a second for 2 s"
        assert writer.size == reader.size
        assert writer.size % mmap.PAGESIZE == 0
        assert writer.size >= LEAST_BYTES


def test_memory_cannot_be_taken_away_from_the_reader() -> None:
    with ring() as (writer, _), pytest.raises(PermissionError):
        os.ftruncate(writer.fd, 0)


def test_a_block_larger_than_the_ring_is_refused() -> None:
    with ring() as (writer, _), pytest.raises(ValueError, match=r"a block of .* the ring has"):
        writer.place(sample(0, 100, 0))


def test_a_block_that_is_nowhere_is_refused() -> None:
    with ring() as (_, reader):
        nowhere = Block(7, 0, 0, 1, 0, False, 0, 64)
        with pytest.raises(IndexError):
            reader.take(nowhere)
        beyond = Block(1, 0, 0, 1 << 40, 0, False, 0, 64)
        with pytest.raises(ValueError, match="buffer"):
            reader.take(beyond)
