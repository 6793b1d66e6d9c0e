"""Driver `log`: a recording as a source. MCAP (ours, ROS 2, Foxglove), rosbag 1 and 2, VRS, CSV.

Each topic with a numeric form is a stream named after it. Samples come in the order of (arrival,
stream, seq). Unpaced (`speed: 0`) they keep the log's own times, which is what a replay moves its
clock by; paced, the first arrival is now and the rest follow at `speed`, and no block is handed
over before it is due. `device_t_ns` is the capture stamp that the log holds, never shifted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec import Meta

from agent.clock import Clock, from_s, to_s
from agent.errors import BadData, ConfigError, DeviceLost, EndOfStream
from agent.types import NAME_PATTERN, Int64Array, Sample, Settings, StreamInfo, slug
from drivers._pacing import wait_until_due

if TYPE_CHECKING:
    from drivers.log_formats.base import LogFile
    from drivers.log_formats.player import Due, LogPlayer, LogStream

__all__ = ["PLUGIN", "LogConfig", "LogDriver"]

logger = logging.getLogger(__name__)

Name = Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")]

# Blocks of one read: what is due, but not a whole log after a pause in a debugger.
_MAX_BLOCKS = 64


class LogConfig(Settings, frozen=True, kw_only=True):
    """path: a file or a rosbag2 folder. speed: 1 true speed, 0 unpaced; others press time itself
    together, so that sound and motion sound and move faster. from_s, to_s: the part to play, in
    seconds from the log's first message. topics: only these. names: stream names by topic.
    modalities: senses by topic, where a topic's type does not tell.
    """

    path: Path
    speed: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    loop: bool = False
    from_s: Annotated[float, Meta(ge=0)] = 0.0
    to_s: Annotated[float, Meta(gt=0)] | None = None
    topics: list[str] | None = None
    names: dict[str, Name] = msgspec.field(default_factory=dict)
    modalities: dict[str, Name] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.to_s is not None and self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s:g} must be later than from_s {self.from_s:g}")


@dataclass
class _Run:
    """What lasts from connect to disconnect. start: the first arrival on the log's clock, and the
    agent's time then.
    """

    player: LogPlayer
    start: tuple[int, int] | None = None


class LogDriver:
    """See the module docstring. What was found out about a log stays after disconnect."""

    Config = LogConfig

    def __init__(self, name: str, config: LogConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"log {config.path}"
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None
        self._last: _Run | None = None
        self._last_t_ns: dict[str, int] = {}
        self._warned = False

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect, and for a log without anything numeric."""
        return self._streams

    @property
    def complete(self) -> bool:
        """False once the log is known to be cut off. Raises DeviceLost before the first connect."""
        return self._known().log.complete

    @property
    def duration_s(self) -> float:
        """From the first log time to the last, of the whole log. Raises as `complete`."""
        log = self._known().log
        return to_s(log.end_ns - log.start_ns)

    @property
    def metadata(self) -> dict[str, dict[str, str]]:
        """The log's own metadata records by name. Raises as `complete`."""
        return self._known().log.metadata

    def ledger(self) -> dict[str, dict[str, int | None]]:
        """What has been played of every topic of the file so far, decodable or not: by topic
        {"messages", "first_ns", "last_ns", "lost"}, log times in ns, None before the first
        message; lost: ticks that the log itself says are missing. Raises as `complete`.
        """
        return {topic: asdict(count) for topic, count in self._known().ledger.items()}

    def connect(self) -> None:
        """Open the log and find its streams.

        Raises DeviceNotFound for a file that is not there or not a log, ConfigError for a topic
        that it does not have, two topics of one name, or a missing extra.
        """
        # Not at the top: a list of all drivers must not load what every format needs.
        from drivers.log_formats.player import LogPlayer
        from drivers.log_formats.sniff import open_log

        self.disconnect()
        log = open_log(self._config.path)
        try:
            streams = self._find_streams(log)
        except BaseException:  # a stop too: the log may not stay open
            log.close()
            raise
        self._streams = tuple(stream.info for stream in streams)
        config = self._config
        first_ns = log.start_ns + from_s(config.from_s)
        end_ns = None if config.to_s is None else log.start_ns + from_s(config.to_s)
        player = LogPlayer(self._label, log, streams, first_ns, end_ns, config.loop)
        self._run = self._last = _Run(player)
        self._warn_if_cut(log)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The blocks that are due: unpaced, those of one arrival; never more than 64.

        Raises ReadTimeout where the next is due later, BadData for each message that cannot be
        decoded, EndOfStream after the last block, DeviceLost where it is not connected.
        """
        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        player = run.player
        due = player.peek()
        self._warn_if_cut(player.log)
        if player.errors:
            raise player.errors.popleft()
        if due is None:
            raise EndOfStream(f"{self._label}: played to its end")
        if run.start is None:
            run.start = due.arrival_ns, self._clock.now_ns()
        until_ns = due.arrival_ns
        if self._config.speed:
            due_ns = self._on_clock(run, due.arrival_ns)
            wait_until_due(self._clock, due_ns, timeout_s, self._label)
            until_ns = self._clock.now_ns()
        samples: list[Sample] = []
        while due is not None and len(samples) < _MAX_BLOCKS and not player.errors:
            if self._on_clock(run, due.arrival_ns) > until_ns:
                break
            player.pop()
            try:
                samples.append(self._sample(run, due))
            except BadData as exc:
                player.errors.append(exc)
            due = player.peek()
        return samples

    def disconnect(self) -> None:
        """Close the log. Idempotent."""
        if self._run is not None:
            self._run.player.log.close()
        self._run = None

    def _known(self) -> LogPlayer:
        if self._last is None:
            raise DeviceLost(f"{self._label}: not connected yet")
        return self._last.player

    def _find_streams(self, log: LogFile) -> list[LogStream]:
        from drivers.log_formats.player import LogStream

        config = self._config
        for what, topics in (
            ("topics", config.topics or ()),
            ("names", config.names),
            ("modalities", config.modalities),
        ):
            for topic in topics:
                if topic not in log.topics:
                    has = ", ".join(log.topics) or "none"
                    raise ConfigError(f"{self._label}: {what}: no topic {topic!r}, it has {has}")
        streams: list[LogStream] = []
        names = set(config.names.values())
        if len(names) < len(config.names):
            raise ConfigError(f"{self._label}: names: two topics have the same name")
        for topic in log.topics if config.topics is None else dict.fromkeys(config.topics):
            try:
                decoder = log.decoder(topic, config.modalities.get(topic))
            except BadData as exc:
                logger.warning("%s: no stream for topic %s: %s", self._label, topic, exc)
                continue
            if decoder is not None:
                name = config.names.get(topic) or _free_name(slug(topic), names)
                names.add(name)
                streams.append(LogStream(self._named(decoder.info, name, topic), decoder))
        return streams

    def _named(self, info: StreamInfo, name: str, topic: str) -> StreamInfo:
        rate_hz, speed = info.rate_hz, self._config.speed
        if rate_hz is not None and speed:
            rate_hz *= speed
        return replace(info, name=name, topic=topic, rate_hz=rate_hz)

    def _on_clock(self, run: _Run, log_ns: int) -> int:
        """A time of the log on the agent's clock."""
        speed = self._config.speed
        if not speed:
            return log_ns
        assert run.start is not None  # set before the first block is handed over
        return run.start[1] + round((log_ns - run.start[0]) / speed)

    def _sample(self, run: _Run, due: Due) -> Sample:
        t_ns: Int64Array = due.block.t_ns
        name, speed = due.stream, self._config.speed
        if speed:
            assert run.start is not None  # as above
            steps = t_ns - run.start[0]
            t_ns = run.start[1] + np.rint(steps / speed).astype(np.int64)
            # Where a pass or a connection begins anew, captures may lie before what was given.
            t_ns = np.maximum(t_ns, self._last_t_ns.get(name, 0))
            self._last_t_ns[name] = int(t_ns[-1])
        return Sample(
            stream=due.info,
            seq=due.seq,
            t_ns=t_ns,
            arrival_ns=self._on_clock(run, due.arrival_ns),
            data=due.block.data,
            device_t_ns=due.block.device_t_ns,
            lost=due.lost,
        )

    def _warn_if_cut(self, log: LogFile) -> None:
        if not log.complete and not self._warned:
            self._warned = True
            logger.warning("%s: it was cut off; playing what is there", self._label)


def _free_name(base: str, taken: set[str]) -> str:
    """`base`, or with a number from the second of a name on."""
    candidates = chain([base], (f"{base}_{i}" for i in count(2)))
    return next(name for name in candidates if name not in taken)


PLUGIN = LogDriver
