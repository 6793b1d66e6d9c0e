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
from agent.stream.clips import Clips
from agent.stream.turns import Turns
from agent.stream.windows import Windows
from agent.types import Embedding, Window, WindowSpec

__all__ = ["Lane"]

logger = logging.getLogger(__name__)

# A wake-up is missed only if a stream goes silent; then windows fall due by the clock.
POLL_S = 0.05


class Lane:
    """Takes the due windows of its streams, encodes them together, gives embeddings in order."""

    def __init__(self, encoder: Encoder, clock: Clock, config: TowerConfig | None = None) -> None:
        config = config or TowerConfig()
        self.encoder = encoder
        self.spec: WindowSpec = replace(encoder.window, hop_s=config.hop_s or encoder.window.hop_s)
        self.budget = Budget(from_s(self.spec.hop_s), config.max_hz, config.max_duty)
        self.windows: list[Windows] = []
        self._config = config
        self._clips: dict[str, Clips] = {}
        self.failed = 0
        self.on_latency: Callable[[str, float], None] = lambda hop, latency_s: None
        self._clock = clock
        self._wake = threading.Event()

    def add(self, windows: Windows) -> None:
        """A stream for this lane, cut by its `spec`. Any thread."""
        windows.stretch_to(self.budget.factor)
        self._clips[windows.ring.stream.name] = Clips(self._config.clips)
        self.windows = [*self.windows, windows]  # another list, as the lane may be in the old one

    def wake(self) -> None:
        """A stream of this lane has new ticks. Any thread."""
        self._wake.set()

    def due(self, now_ns: int) -> bool:
        """Whether there is a window to encode, and the budget allows it; cheap."""
        return now_ns >= self.budget.ready_ns and any(w.due(now_ns) for w in self.windows)

    def step(self, now_ns: int) -> list[Embedding]:
        """Encode what is due at `now_ns`, ordered by (end of window, stream)."""
        due = [window for windows in self.windows for window in windows.take(now_ns)]
        if not due:
            return []
        due.sort(key=lambda w: (w.end_ns, w.stream.name))
        started = self._clock.now_ns()
        for window in due:
            self.on_latency("window", to_s(started - max(window.arrival_ns, window.end_ns)))
        step_ns = self.budget.step_ns
        embeddings = [self._clips[e.stream].mean(e, step_ns) for e in self._encode(due)]
        done = self._clock.now_ns()
        self.budget.spent(started, done, len(due), len(self.windows))
        for each in self.windows:
            each.stretch_to(self.budget.factor)
        if embeddings:
            self.on_latency("encode", to_s(done - started) / len(embeddings))
        return [replace(e, encoded_ns=done) for e in embeddings]

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

    def _encode(self, due: Sequence[Window]) -> list[Embedding]:
        try:
            return self.encoder.encode(due)
        except EncodeFailed as exc:
            if len(due) == 1:
                self.failed += 1
                logger.warning("%s: window dropped: %s", due[0].stream.name, exc)
                return []
        # One bad window must not cost its neighbours: find it by encoding one at a time.
        return [e for window in due for e in self._encode([window])]
