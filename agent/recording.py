"""At most one log being written: started and stopped while the agent runs."""

from __future__ import annotations

import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from agent.clock import Clock
from agent.config import RecordConfig
from agent.errors import RecordError
from agent.record.writer import LogWriter
from agent.supervise import ThreadGroup
from agent.types import Sample, StreamInfo
from agent.wire import WireStruct, encode

__all__ = ["Recording"]

STOP_TIMEOUT_S = 30.0


class Recording:
    """One log from `start` to `stop`; `put` and `note` are for any thread and never block."""

    def __init__(
        self, path: Path, config: RecordConfig, clock: Clock, agent: str, about: dict[str, str]
    ) -> None:
        """about: goes into the log's metadata. Raises RecordError where no log can be made."""
        self.path = path
        self._clock = clock
        self._writer = LogWriter(
            path,
            clock=clock,
            agent=agent,
            boot_id=about["boot_id"],
            metadata=about | {"version": version("sensebind")},
            max_queue_mb=config.max_queue_mb,
            jpeg_quality=config.jpeg_quality,
        )
        self._stop = threading.Event()
        self._done = threading.Event()
        self._started = False

    def start(self, group: ThreadGroup) -> None:
        """Write in a thread of `group`, which must outlive the streams."""

        def run(group_stop: threading.Event) -> None:
            # Not the group's stop: what the last streams and events queue is still written.
            try:
                self._writer.run(self._stop)
            finally:
                self._done.set()

        self._started = True
        group.start("record", run)

    def add_stream(self, info: StreamInfo) -> None:
        self._writer.add_stream(info)

    def put(self, sample: Sample) -> None:
        self._writer.put(sample)

    def note(self, topic: str, message: WireStruct) -> None:
        """One of our own messages on `topic`, such as "/events_full"."""
        now = self._clock.now_ns()
        self._writer.put_message(topic, type(message).__name__, encode(message), now)

    def stop(self) -> None:
        """No more is coming: the thread writes what is queued and the ledger."""
        self._stop.set()

    def finish(self) -> dict[str, Any]:
        """Stop, wait for the file to be whole and give its ledger."""
        self.stop()
        if self._started and not self._done.wait(STOP_TIMEOUT_S):
            raise RecordError(f"{self.path}: still being written after {STOP_TIMEOUT_S:g} s")
        self._writer.close()
        return {"path": str(self.path), "ledger": msgspec.to_builtins(self._writer.ledger)}
