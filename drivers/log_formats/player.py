"""The blocks of a log in the order of (arrival, stream, seq), on the log's own clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.errors import BadData
from agent.types import StreamInfo
from drivers.log_formats.base import Decoded, Decoder, LogFile, Message

__all__ = ["Due", "LogPlayer", "LogStream"]


@dataclass
class _Count:
    """Of one topic: messages, log times of the first and the last, ticks the log says are lost."""

    messages: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    lost: int = 0


@dataclass(order=True)
class Due:
    """A block that waits for its turn."""

    arrival_ns: int
    stream: str
    seq: int
    info: StreamInfo = field(compare=False)
    block: Decoded = field(compare=False)
    lost: int = field(compare=False)


@dataclass
class LogStream:
    """A topic that is played. base_seq: what the log's sequence numbers are ahead of those given;
    None until the first block of a pass.
    """

    info: StreamInfo
    decoder: Decoder
    next_seq: int = 0
    base_seq: int | None = None

    def number(self, block: Decoded) -> tuple[int, int]:
        """(seq, lost) of the next block: gaps of a recorded sequence are kept, its origin not."""
        seq = self.next_seq + block.lost
        if block.seq is not None:
            # Smaller than it can be: the device began to count anew while it was recorded.
            if self.base_seq is None or block.seq - self.base_seq < self.next_seq:
                self.base_seq = block.seq - seq
            seq = block.seq - self.base_seq
        lost = seq - self.next_seq
        self.next_seq = seq + len(block.data)
        return seq, lost


class LogPlayer:
    """Reads ahead as far as it must to put blocks in order: one block's length, as a rule.

    first_ns, end_ns: log times between which messages are played. loop: play again for ever, each
    pass later by what those before it took. ledger: counts by topic of what was played.
    errors: what could not be decoded; the caller takes them out.
    """

    def __init__(
        self,
        label: str,
        log: LogFile,
        streams: Sequence[LogStream],
        first_ns: int,
        end_ns: int | None,
        loop: bool,
    ) -> None:
        self.log, self._label, self._loop = log, label, loop
        self.ledger = {topic: _Count() for topic in log.topics}
        self.errors: deque[BadData] = deque()
        self._streams = {stream.info.topic: stream for stream in streams}
        self._first_ns, self._end_ns = first_ns, end_ns
        self._messages = log.messages()
        self._queue: list[Due] = []
        self._read_to_ns = 0
        self._latest_ns: int | None = None
        self._shift_ns: int | None = 0  # None until the first block of a further pass
        self._ended = False

    def peek(self) -> Due | None:
        """The next block, None at the end. Stops early where there is something in `errors`."""
        while not (self._ended or self.errors or self._is_settled()):
            self._advance()
        return self._queue[0] if self._queue else None

    def pop(self) -> Due:
        """Take the block that `peek` gave."""
        return heapq.heappop(self._queue)

    def _is_settled(self) -> bool:
        """Whether nothing that is still in the file can come before the next block."""
        return bool(self._queue) and self._read_to_ns > self._queue[0].arrival_ns

    def _advance(self) -> None:
        try:
            message = next(self._messages, None)
        except BadData as exc:
            self.errors.append(exc)
            message = None
        if message is None or (self._end_ns is not None and message.log_ns >= self._end_ns):
            self._end_pass()
        else:
            self._take(message)

    def _take(self, message: Message) -> None:
        topic, log_ns, payload = message
        self._read_to_ns = max(self._read_to_ns, log_ns + (self._shift_ns or 0))
        count = self.ledger.setdefault(topic, _Count())
        if log_ns < self._first_ns:
            return
        count.messages += 1
        count.last_ns = log_ns
        if count.first_ns is None:
            count.first_ns = log_ns
        stream = self._streams.get(topic)
        if stream is None:
            return
        try:
            blocks = stream.decoder.decode(log_ns, payload)
        except BadData as exc:
            error = BadData(f"{self._label}: stream {stream.info.name}: {exc}")
            error.__cause__ = exc
            self.errors.append(error)
            return
        self._put(stream, blocks)

    def _put(self, stream: LogStream, blocks: Sequence[Decoded]) -> None:
        for block in blocks:
            if self._shift_ns is None:
                assert self._latest_ns is not None  # else there is no further pass
                self._shift_ns = self._latest_ns - int(block.t_ns[0])
                self._read_to_ns = 0
            seq, lost = stream.number(block)
            self.ledger[stream.info.topic].lost += lost
            arrival_ns = block.arrival_ns + self._shift_ns
            self._latest_ns = max(arrival_ns, self._latest_ns or arrival_ns)
            shifted = block._replace(t_ns=block.t_ns + self._shift_ns)
            due = Due(arrival_ns, stream.info.name, seq, stream.info, shifted, lost)
            heapq.heappush(self._queue, due)

    def _end_pass(self) -> None:
        for stream in self._streams.values():
            self._put(stream, stream.decoder.finish())
            stream.base_seq = None
        # A pass that gave no block would be followed by others like it for ever.
        gave_none = self._shift_ns is None or self._latest_ns is None
        self._ended = not self._loop or gave_none
        self._messages, self._shift_ns = self.log.messages(), None
