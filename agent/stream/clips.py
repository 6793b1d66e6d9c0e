"""One vector for several clips: ImageBind's of a sound is the mean of three, of a film of five."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from agent.types import Embedding

__all__ = ["Clips"]

SLACK_HOPS = 0.5
LEAST_LENGTH = 1e-3  # a mean shorter than this has no direction to speak of


class Clips:
    """Of one stream: the unit mean of its newest `count` clip embeddings, each encoded once.

    Those that end more than `count` hops and a half before the newest are left out: they are of
    before a gap.
    """

    def __init__(self, count: int) -> None:
        self._newest: deque[Embedding] = deque(maxlen=count)
        self._span_hops = count + SLACK_HOPS

    def mean(self, clip: Embedding, hop_ns: int) -> Embedding:
        """`clip`, the newest, with the vector of all that count, from the start of the oldest."""
        self._newest.append(clip)
        while clip.end_ns - self._newest[0].end_ns > self._span_hops * hop_ns:
            self._newest.popleft()
        if len(self._newest) == 1:
            return clip
        # float64 and always from oldest to newest: the same in a replay to the last bit.
        total = np.stack([each.vector for each in self._newest]).sum(axis=0, dtype=np.float64)
        length = float(np.linalg.norm(total))
        if length < LEAST_LENGTH * len(self._newest):
            return clip
        vector = (total / length).astype(np.float32)
        return replace(clip, vector=vector, start_ns=self._newest[0].start_ns)
