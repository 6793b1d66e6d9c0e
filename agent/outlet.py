"""Everything that leaves the agent: messages on the bus, and the log that is being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent.bulk import Previews, embedding_message, logged
from agent.clock import to_s
from agent.control import OPS
from agent.core import Core
from agent.errors import RecordError
from agent.health import Latencies
from agent.publish.bus import Bus
from agent.publish.events import topic
from agent.recording import Recording
from agent.stream.pump import Pump, StreamState
from agent.supervise import ThreadGroup
from agent.types import Embedding, Sample
from agent.wire import Event, Health, Reply, Request, SensorStatus, Time, WireStruct

__all__ = ["Outlet"]

OnRequest = Callable[[Request, Callable[[Reply], None]], None]


class Outlet:
    """The bus, where the config has one, and at most one recording.

    `send`, and the sinks that `attach` gives to pumps, are for any thread; the rest for the main
    one. Nothing here blocks on a subscriber or a disk but `stop_recording` and `close`.
    """

    def __init__(self, core: Core, latencies: Latencies, on_request: OnRequest) -> None:
        self._core, self._latencies = core, latencies
        self._file = core.config.file
        self._bus: Bus | None = None
        self._bulk = self._file.bus.enabled and self._file.bus.bulk is not None
        self._previews: Previews | None = None
        self._recording: Recording | None = None
        self._group: ThreadGroup | None = None
        self._on_request = on_request
        self.recorded: dict[str, Any] | None = None

    @property
    def endpoints(self) -> dict[str, str]:
        """Addresses of the open sockets."""
        return self._bus.endpoints if self._bus else {}

    @property
    def recording(self) -> str | None:
        """The log being written."""
        return str(self._recording.path) if self._recording else None

    def open(self) -> None:
        """Bind the sockets. Raises ConfigError and BusError."""
        if self._file.bus.enabled:
            bus = Bus(self._file.bus, self._core.clock, OPS, self._on_request, self._on_sent)
            bus.open()
            self._bus = bus
        if self._bulk and self._file.bus.preview_hz:
            self._previews = Previews(
                self._file.bus.preview_hz, self._file.agent, self._core.boot_id, self._send_bulk
            )

    def begin_recording(self, path: Path) -> None:
        """Make the log, before any thread runs. Raises RecordError where it cannot be made."""
        self._recording = self._new_recording(path)

    def start(self, group: ThreadGroup) -> None:
        """Serve the bus, and write the log, in threads of `group`."""
        self._group = group
        if self._bus is not None:
            group.start("bus", self._bus.run)
        if self._recording is not None:
            self._recording.start(group)

    def stop(self) -> None:
        """Nothing more is coming: a recording may finish."""
        if self._recording is not None:
            self._recording.stop()

    def close(self) -> None:
        """Unbind, and finish the log. Idempotent."""
        if self._bus is not None:
            self._bus.close()
        if self._recording is not None:
            recording, self._recording = self._recording, None
            self.recorded = recording.finish()

    def attach(self, pump: Pump) -> None:
        """Let the streams of a connected pump be recorded and previewed."""
        if self._recording is not None:
            for state in pump.streams.values():
                self._recording.add_stream(state.info)
        for sink in (self._record, self._previews):
            if sink is not None and sink not in pump.sinks:
                pump.sinks.append(sink)

    def start_recording(self, path: Path) -> dict[str, Any]:
        """Begin a log at `path`. Raises RecordError where one runs or the file cannot be made."""
        if self._recording is not None:
            raise RecordError(f"record.start: {self._recording.path} is already being recorded")
        if self._group is None:
            raise RecordError("record.start: the agent is not running")
        recording = self._new_recording(path)
        recording.start(self._group)
        self._recording = recording
        return {"path": str(path)}

    def stop_recording(self) -> dict[str, Any]:
        """Finish the log and give its ledger. Raises RecordError where none runs."""
        recording, self._recording = self._recording, None
        if recording is None:
            raise RecordError("record.stop: nothing is being recorded")
        self.recorded = recording.finish()
        return self.recorded

    def send(self, message: WireStruct, *levels: str) -> None:
        """To the bus, on the topic of `levels`. Any thread."""
        if self._bus is not None:
            self._bus.send(topic(self._file.agent, *levels), message)
        else:
            self._on_sent(message, self._core.clock.now_ns())

    def tell_state(self, state: StreamState) -> None:
        """A stream has changed state. Any thread."""
        status = SensorStatus(
            agent=self._file.agent,
            boot_id=self._core.boot_id,
            stream=state.info.name,
            modality=state.info.modality,
            state=state.state,
            reason=state.reason,
            since=Time.of(state.since_ns),
        )
        self.send(status, "sensor", state.info.name)

    def tell_embedding(self, embedding: Embedding) -> None:
        """To the bulk socket and the log, where there are any."""
        recording = self._recording
        if self._bulk or recording is not None:
            message, frames = embedding_message(embedding, self._file.agent, self._core.boot_id)
            if self._bulk:
                self._send_bulk(message, "embedding", embedding.stream, frames)
            if recording is not None:
                recording.note("/embeddings", logged(message, frames))

    def tell_control(self, request: Request) -> None:
        """A request that has changed something belongs in the log: a replay does it again."""
        recording = self._recording
        if recording is not None:
            recording.note("/control", request)

    def drops(self) -> dict[str, int]:
        """Of the bus's queues, and connections it refused."""
        bus = self._bus
        return bus.drops | {"bus.rejected": bus.rejected} if bus else {}

    def _new_recording(self, path: Path) -> Recording:
        core = self._core
        about = {
            "boot_id": core.boot_id,
            "config": core.config.digest,
            "space": core.space.identity,
        }
        recording = Recording(path, self._file.record, core.clock, self._file.agent, about)
        for state in core.states():
            recording.add_stream(state.info)
        return recording

    def _record(self, sample: Sample) -> None:
        recording = self._recording
        if recording is not None:
            recording.put(sample)

    def _send_bulk(
        self, message: WireStruct, kind: str, stream: str, attachments: Sequence[bytes]
    ) -> None:
        if self._bus is not None:
            self._bus.send(topic(self._file.agent, kind, stream), message, attachments)

    def _on_sent(self, message: WireStruct, sent_ns: int) -> None:
        """The bus thread, with the message as it was sent."""
        recording = self._recording
        if isinstance(message, Event):
            if message.phase == "start":
                # latency_ms.total is from the end of the evidence to the making of the event.
                made_ns = message.end_time.ns + round(message.latency_ms.total * 1e6)
                self._latencies.add("publish", to_s(sent_ns - made_ns))
            if recording is not None:
                recording.note("/events_full", message)
        elif isinstance(message, Health) and recording is not None:
            recording.note("/health", message)
            recording.note("/clock", message.clock)
