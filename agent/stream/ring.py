"""The newest ticks of one stream, in memory that is allocated once."""

from __future__ import annotations

import numpy as np

from agent.errors import Overrun
from agent.types import Array, Sample, StreamInfo, Window

__all__ = ["Ring"]

SEARCHES = 16  # each loses only to a push inside its few microseconds


class Ring:
    """A circular buffer of ticks: one writer, any number of readers, no locks.

    The writer never waits: the oldest ticks make room. A reader copies out and then checks that
    nothing it copied was overwritten meanwhile, as a seqlock does: `_claimed` is raised before
    the writer touches a slot, `_head` after it. So a read is the right data or `Overrun`, never
    newer or torn data. Stamps must not decrease from push to push (pump.py sees to it).
    """

    def __init__(self, stream: StreamInfo, capacity: int) -> None:
        """Room for `capacity` >= 1 ticks; owns capacity * bytes-per-tick of memory."""
        if capacity < 1:
            raise ValueError(f"ring of {stream.name}: capacity {capacity} must be at least 1")
        self.stream = stream
        self.capacity = capacity
        self._data: Array = np.empty((capacity, *stream.shape), stream.dtype)
        self._t_ns = np.zeros(capacity, np.int64)
        self._arrival_ns = np.zeros(capacity, np.int64)
        self._lost = np.zeros(capacity, np.int64)
        self._claimed = 0  # ticks whose slots may be being written
        self._head = 0  # ticks that are whole
        self._gone_t_ns: int | None = None  # stamp of the newest tick that was overwritten

    @property
    def head(self) -> int:
        """Ticks pushed since birth."""
        return self._head

    @property
    def newest_t_ns(self) -> int | None:
        """Stamp of the newest tick; None while empty."""
        head = self._head
        return int(self._t_ns[(head - 1) % self.capacity]) if head else None

    @property
    def oldest_t_ns(self) -> int | None:
        """Stamp of the oldest tick still held; None while empty."""
        head = self._head
        return int(self._t_ns[max(0, head - self.capacity) % self.capacity]) if head else None

    def push(self, sample: Sample) -> None:
        """Append a block; the oldest ticks make room. Copies; never blocks on a reader."""
        count = len(sample)
        keep = min(count, self.capacity)
        skipped = count - keep  # a block longer than the ring leaves only its end
        first = self._head + skipped
        end = self._head + count
        self._claimed = end
        if end > self.capacity:
            gone = end - self.capacity - 1  # the newest tick that this push loses
            self._gone_t_ns = (
                int(sample.t_ns[gone - self._head])
                if gone >= self._head
                else int(self._t_ns[gone % self.capacity])
            )
        at = first % self.capacity
        left = min(keep, self.capacity - at)
        for buffer, values in (
            (self._data, sample.data[skipped:]),
            (self._t_ns, sample.t_ns[skipped:]),
        ):
            buffer[at : at + left] = values[:left]
            buffer[: keep - left] = values[left:]
        for column, fill in ((self._arrival_ns, sample.arrival_ns), (self._lost, 0)):
            column[at : at + left] = fill
            column[: keep - left] = fill
        if not skipped:
            self._lost[at] = sample.lost
        self._head = end

    def first_t_ns_from(self, t_ns: int) -> int | None:
        """Stamp of the first held tick at or after `t_ns`; None where there is none yet."""
        head = self._head
        index = self._search(t_ns, max(0, head - self.capacity), head)
        return int(self._t_ns[index % self.capacity]) if index < head else None

    def window(self, start_ns: int, end_ns: int, ticks: int | None = None) -> Window:
        """Copy out the ticks with start_ns <= t_ns < end_ns; of those only the newest `ticks`.

        The window may hold no tick at all. Raises Overrun if a tick that belongs in it is gone.
        """
        for _ in range(SEARCHES):
            head, gone_t_ns = self._head, self._gone_t_ns
            tail = max(0, head - self.capacity)
            low = self._search(start_ns, tail, head)
            high = self._search(end_ns, low, head)
            if self._claimed - self.capacity <= tail:
                break  # no stamp that the search may have looked at was overwritten under it
        else:
            raise Overrun(f"stream {self.stream.name}: the writer laps every read")
        cut = ticks is not None and high - low >= ticks
        if cut and ticks is not None:
            low = high - ticks
        elif low == tail and tail > 0 and gone_t_ns is not None and gone_t_ns >= start_ns:
            raise Overrun(f"stream {self.stream.name}: ticks from {start_ns} ns on are overwritten")
        data = self._copy(self._data, low, high)
        t_ns = self._copy(self._t_ns, low, high)
        lost = int(self._copy(self._lost, low + 1, high).sum())
        arrival_ns = int(self._arrival_ns[(high - 1) % self.capacity]) if high > low else 0
        if high > low and self._claimed - self.capacity > low:
            raise Overrun(f"stream {self.stream.name}: overwritten while it was being read")
        return Window(self.stream, start_ns, end_ns, data, t_ns, lost, arrival_ns)

    def _search(self, t_ns: int, low: int, high: int) -> int:
        """Index of the first tick in [low, high) stamped at or after `t_ns`, else `high`."""
        while low < high:
            middle = (low + high) // 2
            if self._t_ns[middle % self.capacity] < t_ns:
                low = middle + 1
            else:
                high = middle
        return low

    def _copy(self, buffer: Array, low: int, high: int) -> Array:
        count = max(0, high - low)
        out: Array = np.empty((count, *buffer.shape[1:]), buffer.dtype)
        at = low % self.capacity
        left = min(count, self.capacity - at)
        out[:left] = buffer[at : at + left]
        out[left:] = buffer[: count - left]
        return out
