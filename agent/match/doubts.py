"""Streams that run, and yet say nothing: a covered lens, a dead microphone."""

from __future__ import annotations

from collections.abc import Sequence

from agent.clock import NS_PER_S
from agent.match.agreement import Agreement, BoolArray, Float64Array, Key
from agent.match.stillness import Stillness
from agent.types import Embedding, StreamInfo

__all__ = ["Doubts"]


class Doubts:
    """What speaks against each stream: that it stands still, or no longer answers the others."""

    def __init__(self) -> None:
        self._still: dict[str, Stillness] = {}
        self._agreement = Agreement()

    def add_stream(self, info: StreamInfo) -> None:
        self._still.setdefault(info.name, Stillness())
        self._agreement.add_stream(info)

    def ask(self, keys: Sequence[Key]) -> None:
        """The queries, row by row, from now on."""
        self._agreement.ask(keys)

    def observe(
        self, embedding: Embedding, z: Float64Array, per_hour: Float64Array, may: BoolArray
    ) -> None:
        """The newest of a stream, and what it says of each query: as Agreement.observe."""
        self._still[embedding.stream].observe(embedding)
        self._agreement.observe(embedding.stream, embedding.end_ns, z, per_hour, may)

    def sentences(self, now_ns: int) -> dict[str, str]:
        """By stream, for people; those without doubt left out."""
        told = self._agreement.doubts()
        for name, still in self._still.items():
            if still.since_ns is not None:
                minutes = (now_ns - still.since_ns) / NS_PER_S / 60
                told[name] = (
                    f"has hardly changed for {minutes:.0f} min, less than in any minute before: "
                    "is it covered, unplugged or stuck?"
                )
        return told
