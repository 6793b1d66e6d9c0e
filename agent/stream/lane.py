"""A lane: one tower and the streams it encodes, a batch at a time, when it has its turn."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.clock import Clock, from_s, to_s
from agent.config import TowerConfig
from agent.contracts import Encoder
from agent.errors import EncodeFailed
from agent.stream.budget import Budget
from agent.stream.change import Change
from agent.stream.clips import Clips
from agent.stream.turns import Turns
from agent.stream.windows import Windows
from agent.types import Embedding, Window, WindowSpec

__all__ = ["Lane"]

logger = logging.getLogger(__name__)

# A wake-up is missed only if a stream goes silent; then windows fall due by the clock.
POLL_S = 0.05


class _Stream:
    """What a lane has of one of its streams."""

    def __init__(self, windows: Windows, config: TowerConfig) -> None:
        self.windows = windows
        self.clips = Clips(config.clips)
        self.change = None if config.change is None else Change(config.change, config.max_reuse_s)

    def told(self, window: Window, fresh: Embedding | None, is_new: bool) -> Embedding | None:
        """The embedding of `window`: `fresh` where it was encoded, else an earlier one's."""
        if self.change is None:
            return fresh
        if is_new:
            self.change.keep(fresh)
            return fresh
        told = self.change.again(window)
        self.windows.counts.reused += told is not None
        return told


class Lane:
    """Takes the due windows of its streams, encodes them together, gives embeddings in order."""

    def __init__(self, encoder: Encoder, clock: Clock, config: TowerConfig | None = None) -> None:
        config = config or TowerConfig()
        self.encoder = encoder
        self.spec: WindowSpec = replace(encoder.window, hop_s=config.hop_s or encoder.window.hop_s)
        self.budget = Budget(from_s(self.spec.hop_s), config.max_hz, config.max_duty)
        self._config = config
        self._streams: list[_Stream] = []
        self.failed = 0
        self.on_latency: Callable[[str, float], None] = lambda hop, latency_s: None
        self._clock = clock
        self._wake = threading.Event()

    @property
    def windows(self) -> list[Windows]:
        """Of its streams, in the order in which they came."""
        return [stream.windows for stream in self._streams]

    def add(self, windows: Windows) -> None:
        """A stream for this lane, cut by its `spec`. Any thread."""
        windows.stretch_to(self.budget.factor)
        # Another list, as the lane may be in the old one.
        self._streams = [*self._streams, _Stream(windows, self._config)]

    def wake(self) -> None:
        """A stream of this lane has new ticks. Any thread."""
        self._wake.set()

    def due(self, now_ns: int) -> bool:
        """Whether there is a window to encode, and the budget allows it; cheap."""
        return now_ns >= self.budget.ready_ns and any(s.windows.due(now_ns) for s in self._streams)

    def step(self, now_ns: int) -> list[Embedding]:
        """Encode what is due at `now_ns`, ordered by (end of window, stream)."""
        due = [(w, stream) for stream in self._streams for w in stream.windows.take(now_ns)]
        if not due:
            return []
        due.sort(key=lambda pair: (pair[0].end_ns, pair[0].stream.name))
        started = self._clock.now_ns()
        for window, _ in due:
            self.on_latency("window", to_s(started - max(window.arrival_ns, window.end_ns)))
        new = [stream.change is None or stream.change.is_new(w) for w, stream in due]
        fresh = iter(self._encode([w for (w, _), is_new in zip(due, new, strict=True) if is_new]))
        clips = [
            stream.told(window, next(fresh) if is_new else None, is_new)
            for (window, stream), is_new in zip(due, new, strict=True)
        ]
        # Those that were to be told by a window that has failed are lost with it.
        self.failed += sum(c is None and not n for c, n in zip(clips, new, strict=True))
        done = self._clock.now_ns()
        step_ns = self.budget.step_ns
        self.budget.spent(started, done, len(due), len(self._streams))
        for stream in self._streams:
            stream.windows.stretch_to(self.budget.factor)
        if any(new):
            self.on_latency("encode", to_s(done - started) / sum(new))
        return [
            replace(stream.clips.mean(clip, step_ns), encoded_ns=done)
            for clip, (_, stream) in zip(clips, due, strict=True)
            if clip is not None
        ]

    def run(self, stop: threading.Event, turns: Turns, put: Callable[[Embedding], None]) -> None:
        """Step whenever there is something new, until `stop`."""
        while not stop.is_set():
            self._wake.wait(POLL_S)
            self._wake.clear()
            if not self.due(self._clock.now_ns()):
                continue
            with turns.turn(self.encoder.modality, stop) as mine:
                # Only now are windows taken: they are the newest there are when they are encoded.
                embeddings = self.step(self._clock.now_ns()) if mine else []
            for embedding in embeddings:
                put(embedding)

    def _encode(self, windows: Sequence[Window]) -> list[Embedding | None]:
        """In order; None for a window that cannot be encoded."""
        if not windows:
            return []
        try:
            return list(self.encoder.encode(windows))
        except EncodeFailed as exc:
            if len(windows) == 1:
                self.failed += 1
                logger.warning("%s: window dropped: %s", windows[0].stream.name, exc)
                return [None]
        # One bad window must not cost its neighbours: find it by encoding one at a time.
        return [embedding for window in windows for embedding in self._encode([window])]
