"""The embeddings of the last minutes, so that what was just heard or seen can be marked."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from agent.clock import from_s, to_s
from agent.errors import ConfigError
from agent.types import Embedding

__all__ = ["HISTORY_S", "Recent"]

# Two minutes of six senses at two windows a second: under 2 MB in a space of 256 dimensions.
HISTORY_S = 120.0


class Recent:
    """By stream, in order of their end. One thread."""

    def __init__(self) -> None:
        self._streams: dict[str, deque[Embedding]] = {}

    def add(self, embedding: Embedding) -> None:
        """The newest of its stream; those that ended HISTORY_S before it are forgotten."""
        kept = self._streams.setdefault(embedding.stream, deque())
        kept.append(embedding)
        while embedding.end_ns - kept[0].end_ns > from_s(HISTORY_S):
            kept.popleft()

    def mark(self, stream: str, seconds: float, ago_s: float) -> Sequence[Embedding]:
        """Those wholly inside `seconds` that end `ago_s` before the newest.

        Raises ConfigError for a stream that has given none, and a stretch that holds none.
        """
        kept = self._streams.get(stream)
        if kept is None:
            known = ", ".join(self._streams) or "none yet"
            raise ConfigError(f"stream: got {stream!r}, expected one that gives vectors: {known}")
        end_ns = kept[-1].end_ns - from_s(ago_s)
        start_ns = end_ns - from_s(seconds)
        inside = [e for e in kept if e.start_ns >= start_ns and e.end_ns <= end_ns]
        if not inside:
            newest = kept[-1]
            raise ConfigError(
                f"stream {stream}: no whole window in the {seconds:g} s that ended {ago_s:g} s "
                f"ago, expected at least {to_s(newest.end_ns - newest.start_ns):g} s, of the last "
                f"{to_s(newest.end_ns - kept[0].start_ns):g} s"
            )
        return inside
