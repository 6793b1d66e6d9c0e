"""The newest ticks of one stream, in memory that is allocated once."""

from __future__ import annotations

import numpy as np

from agent.errors import Overrun
from agent.types import Array, Sample, StreamInfo, Window

__all__ = ["Ring"]

BEGINNING_NS = int(np.iinfo(np.int64).min)


class Ring:
    """A circular buffer of ticks: one writer, any number of readers, no locks.

    The writer never waits: the oldest ticks make room. A reader copies out and then checks that
    nothing it copied was overwritten meanwhile, as a seqlock does: `_claim` is replaced before
    the writer touches a slot, `_head` moves after it. So a read is the right data or `Overrun`,
    never newer or torn data. Stamps must not decrease from push to push (pump.py sees to it).

    A search that meets slots being overwritten sees newer stamps there, which can only lead it
    to too low an index, below the new claim: so one check of the index it found covers it.
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
        # Ticks that are whole or being written, and the stamp of the newest tick lost to them:
        # one tuple, so that a reader never sees the one without the other.
        self._claim: tuple[int, int | None] = (0, None)
        self._head = 0  # ticks that are whole
        self._newest_t_ns: int | None = None

    @property
    def head(self) -> int:
        """Ticks pushed since birth."""
        return self._head

    @property
    def newest_t_ns(self) -> int | None:
        """Stamp of the newest whole tick; None while empty."""
        return self._newest_t_ns

    @property
    def oldest_t_ns(self) -> int | None:
        """Stamp of the oldest tick still held; None while empty."""
        return self.first_t_ns_from(BEGINNING_NS)

    @property
    def gone_t_ns(self) -> int | None:
        """Stamp of the newest tick that was overwritten; None while none was."""
        return self._claim[1]

    def push(self, sample: Sample) -> None:
        """Append a block; the oldest ticks make room. Copies; never blocks on a reader."""
        count = len(sample)
        keep = min(count, self.capacity)
        skipped = count - keep  # a block longer than the ring leaves only its end
        first = self._head + skipped
        end = self._head + count
        gone_t_ns = self._claim[1]
        if end > self.capacity:
            gone = end - self.capacity - 1  # the newest tick that this push loses
            gone_t_ns = (
                int(sample.t_ns[gone - self._head])
                if gone >= self._head
                else int(self._t_ns[gone % self.capacity])
            )
        self._claim = (end, gone_t_ns)
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
        self._newest_t_ns = int(sample.t_ns[-1])  # last: whoever sees it finds the ticks whole

    def first_t_ns_from(self, t_ns: int) -> int | None:
        """Stamp of the first held tick at or after `t_ns`; None where there is none yet."""
        while True:
            tail, head, _ = self._span()
            index = self._search(t_ns, tail, head)
            found = int(self._t_ns[index % self.capacity]) if index < head else None
            if not self._overwritten(index):
                return found

    def window(
        self, start_ns: int, end_ns: int, ticks: int | None = None, spread: bool = False
    ) -> Window:
        """Copy out the ticks with start_ns <= t_ns < end_ns; of those only the newest `ticks`.

        With `spread` the `ticks` >= 2 are taken evenly over the span, its first and its last among
        them; all where it has no more. The window may hold no tick at all. Raises Overrun if a
        tick at or after `start_ns` is gone, unless the newest `ticks` are wanted and all here.
        """
        newest, evenly = (None, ticks) if spread else (ticks, None)
        while True:  # a repeat needs a push meanwhile, and enough of those end in Overrun
            tail, head, gone_t_ns = self._span()
            low = self._search(start_ns, tail, head)
            high = self._search(end_ns, low, head)
            gone = gone_t_ns is not None and gone_t_ns >= start_ns
            first = low
            if newest is not None and high - low >= newest:
                gone, first = False, high - newest
            window = None if gone else self._cut(start_ns, end_ns, first, high, evenly)
            if self._overwritten(low):
                continue
            if window is None:
                raise Overrun(
                    f"stream {self.stream.name}: ticks from {start_ns} ns on are overwritten"
                )
            return window

    def _span(self) -> tuple[int, int, int | None]:
        """(tail, head, gone_t_ns): ticks tail <= index < head are whole and not claimed."""
        head = self._head
        claimed, gone_t_ns = self._claim
        tail = max(0, claimed - self.capacity)
        return tail, max(tail, head), gone_t_ns

    def _overwritten(self, index: int) -> bool:
        """Whether the tick `index` of a span has been claimed since."""
        return self._claim[0] - self.capacity > index

    def _cut(self, start_ns: int, end_ns: int, low: int, high: int, evenly: int | None) -> Window:
        """evenly: how many ticks of low <= index < high to copy; None for all."""
        if evenly is not None and high - low > evenly:
            slots = (low + np.arange(evenly) * (high - 1 - low) // (evenly - 1)) % self.capacity
            data, t_ns = self._data[slots], self._t_ns[slots]
        else:
            data, t_ns = self._copy(self._data, low, high), self._copy(self._t_ns, low, high)
        return Window(
            self.stream,
            start_ns,
            end_ns,
            data=data,
            t_ns=t_ns,
            lost=int(self._copy(self._lost, low + 1, high).sum()),
            arrival_ns=int(self._arrival_ns[(high - 1) % self.capacity]) if high > low else 0,
        )

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
