"""One vector for several clips: ImageBind's of a sound is the mean of three, of a film of five."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from agent.types import Embedding, Views

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
        """`clip`, the newest, with the vector of all that count, from the start of the oldest.

        So with each view, where all have the same; else there are none: frames of another size.
        """
        self._newest.append(clip)
        while clip.end_ns - self._newest[0].end_ns > self._span_hops * hop_ns:
            self._newest.popleft()
        if len(self._newest) == 1:
            return clip
        same = all(each.regions == clip.regions for each in self._newest)
        views = clip.views if same else None
        count = 1 + len(views.regions) if views else 1
        # float64 and always from oldest to newest: the same in a replay to the last bit.
        totals = np.stack([each.rows[:count] for each in self._newest]).sum(
            axis=0, dtype=np.float64
        )
        lengths = np.array([np.linalg.norm(total) for total in totals])
        if lengths.min() < LEAST_LENGTH * len(self._newest):
            return clip
        rows = (totals / lengths[:, np.newaxis]).astype(np.float32)
        return replace(
            clip,
            vector=rows[0],
            views=Views(rows[1:], views.regions) if views else None,
            start_ns=self._newest[0].start_ns,
        )
