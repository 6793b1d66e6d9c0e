"""A driver that does what it is told: each connect and each read is one entry of a script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta, field

from agent.clock import Clock
from agent.errors import EndOfStream
from agent.types import NAME_PATTERN, Sample, Settings, StreamInfo

__all__ = ["FakeConfig", "FakeDriver", "FakePlugin"]


class FakeDriver:
    """connects: streams, or an error to raise; the last one again and again.

    reads: samples, or an error to raise; EndOfStream when they are used up.
    """

    def __init__(
        self,
        connects: Iterable[Sequence[StreamInfo] | Exception],
        reads: Iterable[Sequence[Sample] | Exception] = (),
    ) -> None:
        self._connects, self._reads = list(connects), list(reads)
        self.streams: Sequence[StreamInfo] = ()
        self.connected = False
        self.log: list[str] = []

    def connect(self) -> None:
        self.log.append("connect")
        does = self._connects.pop(0) if len(self._connects) > 1 else self._connects[0]
        if isinstance(does, Exception):
            raise does
        self.streams, self.connected = does, True

    def read(self, timeout_s: float) -> Sequence[Sample]:
        assert self.connected, "read before connect"
        self.log.append("read")
        does = self._reads.pop(0) if self._reads else EndOfStream("the script is over")
        if isinstance(does, Exception):
            raise does
        return does

    def disconnect(self) -> None:
        self.log.append("disconnect")
        self.connected = False


class Band(Settings, frozen=True, kw_only=True):
    low_hz: Annotated[float, Meta(ge=0)] = 0.0
    high_hz: float = 1.0

    def __post_init__(self) -> None:
        if self.low_hz > self.high_hz:
            raise ValueError(f"low_hz {self.low_hz} must not be above high_hz {self.high_hz}")


class FakeConfig(Settings, frozen=True, kw_only=True):
    """One field of every kind that a driver's config may have."""

    device: str
    gain: Annotated[float, Meta(ge=0, le=10)] = 1.0
    file: Path | None = None
    sizes: list[int] = field(default_factory=list)
    bands: dict[Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], Band] = field(
        default_factory=dict
    )


class FakePlugin:
    """A fake for configs."""

    Config = FakeConfig

    def __init__(self, name: str, config: FakeConfig, clock: Clock) -> None:
        self.name, self.config, self.clock = name, config, clock
