"""Whether a stream still moves: a covered lens and a dead microphone say one thing for ever."""

from __future__ import annotations

from collections import deque

import numpy as np

from agent.clock import from_s
from agent.types import Embedding

__all__ = ["Stillness"]

BLOCK_S = 60.0
LEAST_WINDOWS = 10  # of a block that is judged
LEAST_BLOCKS = 20  # that it is compared with
KEPT_BLOCKS = 180
STILL = 1 / 3  # of the least spread of those
IN_A_ROW = 3  # blocks that are so still


class Stillness:
    """Of one stream, told each of its embeddings.

    The spread of a block of BLOCK_S is the mean squared distance of its unit vectors from their
    mean, 1 - |mean|^2. A live sensor has its own noise and its surroundings' in every minute, so
    that the least spread of the last KEPT_BLOCKS is a floor; IN_A_ROW blocks below STILL of it are
    no quiet hour, but nothing. These are not remembered, so that it is said for as long as it
    lasts; fewer, that ended by themselves, are. Windows that were not encoded, as nothing had
    changed in them, say nothing here.
    """

    def __init__(self) -> None:
        self.since_ns: int | None = None  # it has been still, where it is
        self._spreads: deque[float] = deque(maxlen=KEPT_BLOCKS)
        self._begin_ns = 0
        self._sum = np.zeros(0)
        self._count = 0
        self._row: list[tuple[int, float]] = []  # still blocks: when they began, and their spreads

    def observe(self, embedding: Embedding) -> None:
        """Its next embedding."""
        if embedding.reused:
            return
        if self._count and embedding.end_ns - self._begin_ns >= from_s(BLOCK_S):
            if self._count >= LEAST_WINDOWS:
                self._judge(1.0 - float(np.sum((self._sum / self._count) ** 2)))
            self._count = 0
        if not self._count:
            self._begin_ns, self._sum = embedding.end_ns, np.zeros(len(embedding.vector))
        self._sum += embedding.vector
        self._count += 1

    def _judge(self, spread: float) -> None:
        known = len(self._spreads) >= LEAST_BLOCKS
        if known and spread < STILL * min(self._spreads):
            if self.since_ns is None:
                self._row.append((self._begin_ns, spread))
            if len(self._row) >= IN_A_ROW:
                self.since_ns = self._row[0][0]
            return
        if self.since_ns is None:
            self._spreads.extend(each for _, each in self._row)
        self._spreads.append(spread)
        self._row.clear()
        self.since_ns = None
