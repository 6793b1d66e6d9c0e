"""Driver `synthetic`: a test pattern for each sense, with faults on demand. No SDK, no device.

The same config gives the same bits: a block depends on the seed, its stream's name and its tick
numbers only. Patterns and their events are described in `drivers/_patterns.py`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated

import numpy as np
from msgspec import Meta

from agent.clock import NS_PER_S, Clock
from agent.errors import DeviceLost, EndOfStream
from agent.types import NAME_PATTERN, Array, Int64Array, Sample, Settings, StreamInfo
from drivers._pacing import ns_per_s, ticks_ns, wait_until_due
from drivers._patterns import OTHER, SENSES, Bool, Pattern, Sense, Spec

__all__ = ["PLUGIN", "SyntheticConfig", "SyntheticDriver", "SyntheticEvent", "SyntheticStream"]

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Pixels = Annotated[int, Meta(ge=8, le=8192)]
Name = Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")]

# A reader that has fallen behind gets this many blocks at once, not all that are overdue.
MAX_BLOCKS = 64
JITTERS = 1009  # delays drawn once and used in turn


class SyntheticEvent(Settings, frozen=True, kw_only=True):
    """Something happens in the scene: at_s after connect, for_s long, again every_s."""

    at_s: NotNegative
    for_s: Positive = 0.25
    every_s: Positive | None = None


class SyntheticStream(Settings, frozen=True, kw_only=True):
    """One stream; what is left out takes the modality's default.

    modality: image (rgb8, or mono8 with channels 1), depth, thermal, audio, imu, or any other
    name for float32 waves. size: (width, height) of a picture. events: by default a quarter of a
    second every two seconds, from the first second on.
    """

    modality: Name
    rate_hz: Annotated[float, Meta(ge=0.01, le=200_000)] | None = None
    size: tuple[Pixels, Pixels] | None = None
    channels: Annotated[int, Meta(ge=1, le=64)] | None = None
    events: tuple[SyntheticEvent, ...] = (SyntheticEvent(at_s=1.0, every_s=2.0),)

    @property
    def sense(self) -> Sense:
        return SENSES.get(self.modality, OTHER)

    def __post_init__(self) -> None:
        sense, channels = self.sense, self.channels
        if self.size is not None and sense.size is None:
            raise ValueError(f"size: a stream of {self.modality} has no pictures")
        if channels is not None and sense.channels and channels not in sense.channels:
            allowed = " or ".join(map(str, sense.channels))
            raise ValueError(f"channels: got {channels}, expected {allowed} for {self.modality}")


class SyntheticConfig(Settings, frozen=True, kw_only=True):
    """streams: by name. speed: 1 true speed, 2 double, 0 as fast as it is read. duration_s: of
    the whole; None for ever.

    Faults, all off by default: jitter_ms delays each block's arrival by 0 to so much;
    drop_every loses each n-th block of a stream; freeze_after_s repeats each stream's block of
    that moment bit for bit; fail_after_s loses the device once, so that a reconnect mends it.
    """

    streams: Annotated[dict[Name, SyntheticStream], Meta(min_length=1)]
    seed: Annotated[int, Meta(ge=0)] = 0
    speed: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    duration_s: Positive | None = None
    jitter_ms: NotNegative = 0.0
    drop_every: Annotated[int, Meta(ge=2)] | None = None
    freeze_after_s: NotNegative | None = None
    fail_after_s: NotNegative | None = None


class _Stream:
    """A pattern with its rate: block number -> ticks, stamps and data."""

    def __init__(self, name: str, config: SyntheticStream, owner: SyntheticConfig) -> None:
        sense = config.sense
        rate_hz = config.rate_hz or sense.rate_hz
        size = config.size or sense.size or (0, 0)
        channels = config.channels or (sense.channels or (1,))[0]
        width, height = size
        picture = (height, width) if channels == 1 else (height, width, channels)
        self.info = StreamInfo(
            name=name,
            modality=config.modality,
            dtype=sense.dtype,
            shape=picture if sense.size else (channels,),
            rate_hz=rate_hz,
            unit="mono8" if sense.unit == "rgb8" and channels == 1 else sense.unit,
            topic=f"synthetic:{name}",
            channels=sense.names,
        )
        self.rate = Fraction(rate_hz).limit_denominator(1001)  # 30000/1001 is NTSC video
        self.block = max(1, round(sense.block_s * rate_hz))
        self.end = math.inf if owner.duration_s is None else math.ceil(owner.duration_s * self.rate)
        self.frozen = (
            math.inf
            if owner.freeze_after_s is None
            else int(owner.freeze_after_s * self.rate) // self.block
        )
        spec = Spec.of(name, owner.seed, rate_hz, size, channels)
        self.delays = spec.rng.uniform(0, owner.jitter_ms / 1000, JITTERS)
        self._pattern: Pattern = sense.make(spec)
        self._events = config.events

    def ticks(self, number: int) -> range:
        """Tick numbers of a block; empty after the end."""
        first = number * self.block
        return range(first, int(max(first, min(first + self.block, self.end))))

    def render(self, number: int, count: int) -> Array:
        first = int(min(number, self.frozen)) * self.block
        ticks = np.arange(first, first + count, dtype=np.int64)
        t_s = ticks / float(self.rate)
        return self._pattern.render(ticks, t_s, self._active(t_s))

    def _active(self, t_s: Array) -> Bool:
        active = np.zeros(len(t_s), np.bool_)
        for event in self._events:
            since_s = t_s - event.at_s
            if event.every_s is not None:
                since_s = np.where(since_s < 0, since_s, since_s % event.every_s)
            active |= (since_s >= 0) & (since_s < event.for_s)
        return active


@dataclass(order=True)
class _Due:
    """The next block of a stream: when it arrives, and what was lost before it."""

    due_ns: int
    index: int
    number: int = field(compare=False)
    t_ns: Int64Array = field(compare=False)
    lost: int = field(compare=False)


class SyntheticDriver:
    """See the module docstring. With speed 0 `arrival_ns` is when the block was due."""

    Config = SyntheticConfig

    def __init__(self, name: str, config: SyntheticConfig, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._label = f"synthetic {name}"
        self._sources = [_Stream(n, s, config) for n, s in config.streams.items()]
        self._ns_per_s = ns_per_s(config.speed)
        self._connected = False
        self._failed = False
        self._queue: list[_Due] = []
        self._start_ns = self._latest_ns = 0

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Known from the config, before connect too."""
        return tuple(source.info for source in self._sources)

    def connect(self) -> None:
        """Start every stream at tick 0, now."""
        # An unpaced source runs ahead of the clock; a second connect must not go back.
        self._start_ns = max(self._clock.now_ns(), self._latest_ns)
        self._queue = []
        for index in range(len(self._sources)):
            self._schedule(index, 0)
        self._connected = True

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next block, and all others that are due by then; with speed 0 just the next one.

        Raises ReadTimeout where none is due, EndOfStream after duration_s, DeviceLost after
        fail_after_s and where not connected.
        """
        if not self._connected:
            raise DeviceLost(f"{self._label}: not connected")
        if not self._queue:
            raise EndOfStream(f"{self._label}: {self._config.duration_s:g} s are over")
        due_ns = self._queue[0].due_ns
        if self._config.speed:
            wait_until_due(self._clock, due_ns, timeout_s, self._label)
            now_ns = self._clock.now_ns()
        else:
            now_ns = max(due_ns, self._latest_ns)
        self._fail(due_ns)
        samples = [self._pop(now_ns)]
        while self._config.speed and self._queue and self._queue[0].due_ns <= now_ns:
            if len(samples) == MAX_BLOCKS:
                break
            samples.append(self._pop(now_ns))
        self._latest_ns = now_ns
        return samples

    def disconnect(self) -> None:
        """Idempotent."""
        self._connected = False

    def _fail(self, due_ns: int) -> None:
        after_s = self._config.fail_after_s
        if after_s is None or self._failed or due_ns - self._start_ns < after_s * self._ns_per_s:
            return
        self._failed = True
        self._connected = False
        raise DeviceLost(f"{self._label}: lost on purpose after {after_s:g} s")

    def _pop(self, arrival_ns: int) -> Sample:
        due = heapq.heappop(self._queue)
        source = self._sources[due.index]
        data = source.render(due.number, len(due.t_ns))
        self._schedule(due.index, due.number + 1)
        seq = due.number * source.block
        return Sample(source.info, seq, due.t_ns, arrival_ns, data, lost=due.lost)

    def _schedule(self, index: int, number: int) -> None:
        """Queue a stream's block `number`, or the one after it where that is to be dropped."""
        source, lost = self._sources[index], 0
        if self._config.drop_every and (number + 1) % self._config.drop_every == 0:
            lost = len(source.ticks(number))
            number += 1
        ticks = source.ticks(number)
        if not ticks:
            return
        step_ns = self._ns_per_s / source.rate
        t_ns = ticks_ns(self._start_ns + ticks.start * step_ns, step_ns, len(ticks))
        delay_ns = round(source.delays[number % JITTERS] * NS_PER_S)
        heapq.heappush(self._queue, _Due(int(t_ns[-1]) + delay_ns, index, number, t_ns, lost))


PLUGIN = SyntheticDriver
