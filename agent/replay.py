"""A recorded log through the same hops as a live stream, in one thread, on the log's own time.

The same log, config and queries give the same events, byte for byte but for latency and
wall-clock fields: samples are taken in the order (arrival, stream, seq), time moves only with
them, and windows, scores and gates depend on nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from agent import plugins
from agent.clock import Clock, ManualClock, SystemClock, from_s
from agent.config import Config, DriverConfig, DriverEntry
from agent.config_file import convert_section
from agent.contracts import Driver
from agent.control import CHANGING, Operations
from agent.core import TICK_NS, Core
from agent.errors import BadData, DeviceNotFound, EndOfStream
from agent.publish.events import Sequencer, topic
from agent.record.reader import LogReader
from agent.stream.pump import Pump
from agent.types import Embedding, Sample, StreamInfo
from agent.wire import Event, Request

__all__ = ["Progress", "ReplayOptions", "Tape", "match_again", "replay"]

logger = logging.getLogger(__name__)

# (first arrival, arrival of the next sample, both in ns of the log; the log's duration in s)
Progress = Callable[[int, int, float], None]


class LogDriver(Driver, Protocol):
    """What the driver `log` tells beside its samples."""

    @property
    def complete(self) -> bool: ...

    @property
    def duration_s(self) -> float: ...

    def ledger(self) -> dict[str, dict[str, Any]]: ...


@dataclass(frozen=True)
class ReplayOptions:
    """speed: times real time, None for as fast as it goes. from_s, to_s: seconds into the log."""

    speed: float | None = None
    from_s: float = 0.0
    to_s: float | None = None


@dataclass(frozen=True)
class Tape:
    """What matching needs of a log: its embeddings in the order in which they came.

    streams: by name, with the time between windows in ns. origin_ns: capture of the first tick.
    first_ns: arrival of the first sample. end_ns: when the last window had fallen due.
    """

    streams: Mapping[str, tuple[StreamInfo, int]]
    embeddings: Sequence[Embedding]
    origin_ns: int
    first_ns: int
    end_ns: int


def replay(
    config: Config,
    log: Path,
    options: ReplayOptions,
    on_event: Callable[[Event], None],
    progress: Progress = lambda first_ns, now_ns, duration_s: None,
    on_embedding: Callable[[Embedding], None] = lambda embedding: None,
    on_streams: Callable[[Core], None] = lambda core: None,
) -> dict[str, Any]:
    """Play `log` under `config` (whose own drivers are not opened) and give the summary.

    on_event: each event, numbered as on the bus. progress: before each sample. on_embedding: each
    embedding, before the events that it makes. on_streams: once, when rings and lanes are there.
    Raises ConfigError where queries are asked of a
    log with no stream that can answer.
    """
    clock = ManualClock()
    core = Core(_with_log(config, log, options), clock, f"replay{config.digest}", live=False)
    player = _Player(core, clock, on_event, on_embedding)
    pump = core.pumps[0]
    driver: LogDriver = pump.driver  # type: ignore[assignment]  # kind `log`, by _with_log
    try:
        core.open()
        pump.connect()
        core.attach(pump)
        if len(core.queries) and driver.ledger():
            core.check_streams(f"log {log}", tuple(driver.ledger()))
        on_streams(core)
        controls = _controls(log)
        pace = _pace(options.speed, SystemClock())
        first_ns: int | None = None
        for sample in _samples(pump):
            if first_ns is None:
                first_ns = sample.arrival_ns
                player.begin(first_ns)
            pace(sample.arrival_ns - first_ns)
            progress(first_ns, sample.arrival_ns, driver.duration_s)
            player.feed(sample, controls)
        player.finish()
        return {
            "log": str(log),
            "complete": driver.complete,
            "duration_s": driver.duration_s,
            "streams": driver.ledger(),
            "windows": core.windows_taken(),
            "events": player.events,
        }
    finally:
        core.close()


def match_again(
    config: Config,
    tapes: Iterable[Tape],
    on_event: Callable[[Event], None],
    on_match: Callable[[Core, Embedding], None] = lambda core, embedding: None,
) -> None:
    """Hops 5 and 6 of a replay alone, over tapes made in the config's space, one after the other.

    The same events as a replay of the log gives, but that changes of queries which were recorded
    in it are left out. on_match: after each embedding. Raises ConfigError as `replay`, and
    SpaceMismatch for a tape of another space.
    """
    clock = ManualClock()
    core = Core(replace(config, drivers=()), clock, f"replay{config.digest}", live=False)
    player = _Player(core, clock, on_event, lambda embedding: None)
    try:
        core.open()
        for number, tape in enumerate(tapes):
            for info, hop_ns in tape.streams.values():
                core.matcher.add_stream(info, hop_ns)
            if number == 0:
                player.begin(tape.first_ns)
            for embedding in tape.embeddings:
                player.match(embedding)
                on_match(core, embedding)
            player.wait(tape.end_ns)
        player.end()
    finally:
        core.close()


class _Player:
    """Drives a Core by hand: what app.py's threads do, one sample at a time."""

    def __init__(
        self,
        core: Core,
        clock: ManualClock,
        on_event: Callable[[Event], None],
        on_embedding: Callable[[Embedding], None],
    ) -> None:
        self._core, self._clock = core, clock
        self._on_event, self._on_embedding = on_event, on_embedding
        self._sequencer = Sequencer()
        self._next_tick_ns = 0
        self.events = 0
        self._operations = Operations(core, dict, lambda path: {}, dict, lambda request: None)

    def begin(self, first_ns: int) -> None:
        """The time of the log's first sample."""
        self._clock.advance_to_ns(first_ns)
        self._next_tick_ns = first_ns + TICK_NS

    def feed(self, sample: Sample, controls: list[tuple[int, Request]]) -> None:
        """Time moves to the sample's arrival; then the sample goes its way."""
        while controls and controls[0][0] <= sample.arrival_ns:
            t_ns, request = controls.pop(0)
            self._until(t_ns)
            if request.op in CHANGING:
                error = self._operations.handle(request).error
                if error is not None:  # it was carried out when the log was recorded
                    logger.warning("left out of the replay, %s: %s", request.op, error.message)
        self._until(sample.arrival_ns)
        self._core.pumps[0].accept(sample)
        self._encode()

    def finish(self) -> None:
        """The log is over: windows that wait for late ticks fall due, open events end."""
        now = self._clock.now_ns()
        self._until(now + from_s(self._core.config.file.space.lateness_s))
        self._encode()
        self.end()

    def match(self, embedding: Embedding) -> None:
        """An embedding made before, at the time at which it came then."""
        self._until(embedding.encoded_ns)
        self._publish(self._core.observe(embedding))

    def wait(self, t_ns: int) -> None:
        """Time passes, and nothing comes."""
        self._until(t_ns)

    def end(self) -> None:
        """Open events end."""
        self._publish(self._core.matcher.close())

    def _until(self, t_ns: int) -> None:
        while self._next_tick_ns <= t_ns:
            self._clock.advance_to_ns(self._next_tick_ns)
            self._encode()
            self._publish(self._core.matcher.tick(self._next_tick_ns))
            self._next_tick_ns += TICK_NS
        self._clock.advance_to_ns(t_ns)

    def _encode(self) -> None:
        now = self._clock.now_ns()
        due = [e for lane in self._core.lanes.values() for e in lane.step(now)]
        for embedding in sorted(due, key=lambda e: (e.end_ns, e.stream)):
            self._on_embedding(embedding)
            self._publish(self._core.observe(embedding))

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            self.events += 1
            name = topic(event.agent, "event", event.query.id)
            self._on_event(self._sequencer.number(name, event))


def _with_log(config: Config, log: Path, options: ReplayOptions) -> Config:
    plugin = plugins.load("drivers", "log")
    raw = {"path": str(log.absolute()), "speed": 0.0, "from_s": options.from_s}
    if options.to_s is not None:
        raw["to_s"] = options.to_s
    settings = convert_section(raw, plugin.Config, "replay")
    entry = DriverEntry("log", DriverConfig(kind="log"), plugin, settings)
    return replace(config, drivers=(entry,))


def _samples(pump: Pump) -> Iterator[Sample]:
    while True:
        try:
            samples = pump.driver.read(0.0)
        except EndOfStream:
            return
        except BadData as exc:
            pump.count_bad(str(exc))
            continue
        yield from sorted(samples, key=lambda s: (s.arrival_ns, s.stream.name, s.seq))


def _controls(log: Path) -> list[tuple[int, Request]]:
    """(log time, request) of every change of queries while the log was recorded."""
    try:
        with LogReader(log) as reader:
            messages = list(reader.messages("/control"))
    except DeviceNotFound:
        return []  # not an MCAP: nobody's controls but ours are in a log
    return [(t_ns, msgspec.json.decode(data, type=Request)) for t_ns, data in messages]


def _pace(speed: float | None, clock: Clock) -> Callable[[int], None]:
    """Wait until the log's elapsed ns are due, counted from the first call."""
    start_ns: int | None = None

    def wait(elapsed_ns: int) -> None:
        nonlocal start_ns
        if speed is not None:
            start_ns = clock.now_ns() if start_ns is None else start_ns
            clock.wait_until_ns(start_ns + round(elapsed_ns / speed))

    return wait
