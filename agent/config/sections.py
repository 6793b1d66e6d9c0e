"""The sections of a config, and the whole of it: as a file says it, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agent.config.queries import GateConfig, QueryConfig
from agent.config.values import Name, NotNegative, Positive, Unit
from agent.contracts import RuntimeOptions
from agent.types import Settings

__all__ = [
    "BusConfig",
    "Config",
    "ConfigFile",
    "CurveConfig",
    "DriverConfig",
    "DriverEntry",
    "MatchConfig",
    "RecordConfig",
    "SpaceConfig",
    "TowerConfig",
]


class TowerConfig(Settings, frozen=True, kw_only=True):
    """When one sense is encoded (docs/streams.md). hop_s: None takes the tower's own.

    change: a window that differs from the last encoded one by no more than this is not encoded,
    and that one's vector is told again, for max_reuse_s at most; None encodes every window.
    clips: the vector told is the mean of that of so many windows of the stream, the newest ones.
    max_hz: windows of a stream a second at most. max_duty: share of the time that the tower may
    be busy, live. Both stretch the hop to a multiple of itself.
    """

    hop_s: Positive | None = None
    enabled: bool = True
    change: NotNegative | None = None
    max_reuse_s: Positive = 30.0
    clips: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    max_hz: Positive | None = None
    max_duty: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class SpaceConfig(Settings, frozen=True, kw_only=True):
    """The model folder, and how its towers are run (see agent.contracts.RuntimeOptions).

    path: a folder, or the name of a space that ships with the project. slots: towers that may run
    at once; None for as many of `threads` each as the cores can, at least 2. lateness_s: how long
    a window waits for ticks of a slow stream. min_coverage: share of the expected ticks below
    which a window is not encoded. max_backlog: windows of one stream that are encoded when its
    tower is free, the newest ones; older ones are skipped and counted. cache: where TensorRT
    keeps its engines; empty it after a change of GPU or driver.
    """

    path: str = "compact"
    providers: list[str] = msgspec.field(default_factory=lambda: ["auto"])
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    precision: str | None = None
    slots: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_batch: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    lateness_s: NotNegative = 0.1
    min_coverage: Unit = 0.75
    max_backlog: Annotated[int, msgspec.Meta(ge=1)] = 1
    cache: Path | None = None
    towers: dict[str, TowerConfig] = msgspec.field(default_factory=dict)

    def options(self) -> RuntimeOptions:
        return RuntimeOptions(
            providers=tuple(self.providers),
            threads=self.threads,
            precision=self.precision,
            max_batch=self.max_batch,
            cache=self.cache,
        )


class DriverConfig(Settings, frozen=True, kw_only=True):
    """What the agent does around any driver; the driver's own fields stand beside these.

    required: a source that cannot be opened at start ends the agent (exit 2); where false it is
    tried again with back-off. read_timeout_s, timeouts: so many silent reads in a row count as
    lost. stale_s: silence after which a stream is degraded. frozen_s: how long a frame may repeat
    bit for bit before the stream is stale (null: not checked; recordings do repeat frames).
    backoff_min_s, backoff_max_s: pause before connecting again, doubled each time: a device that
    is back is read again within the longest of them, however long it was away.
    isolate: run it in a process of its own, so that a crash or hang of its SDK costs its streams
    alone. A kind may have other defaults of its own for these.
    """

    kind: str
    required: bool = True
    read_timeout_s: Positive = 0.5
    timeouts: Annotated[int, msgspec.Meta(ge=1)] = 10
    stale_s: Positive = 2.0
    frozen_s: Positive | None = None
    backoff_min_s: Positive = 0.5
    backoff_max_s: Positive = 3.0
    buffer_s: Positive = 1.0
    isolate: bool = False


class MatchConfig(Settings, frozen=True, kw_only=True):
    """How cosines become scores (docs/matching.md).

    max_age_s: older evidence is stale. z_mid, z_scale: the score is the logistic of
    (z - z_mid) / z_scale. prior_windows: how many windows of its own a stream must give before
    its null weighs as much as the space's prior. memory_windows: windows the running null
    remembers. min_deviation: floor of the null's deviation, in cosine. max_false_alarms_per_hour:
    of each query that has neither this nor a gate of its own; None: their scores are compared with
    gate.enter and gate.exit as they are (docs/adr/0014). calibration: a file of tools.calibrate
    that the nulls begin with.
    """

    max_age_s: Positive = 2.0
    z_mid: float = 3.0
    z_scale: Positive = 0.5
    prior_windows: Positive = 120
    memory_windows: Annotated[float, msgspec.Meta(ge=1)] = 2400
    min_deviation: Positive = 0.02
    max_false_alarms_per_hour: Positive | None = None
    calibration: Path | None = None
    gate: GateConfig = GateConfig()


class CurveConfig(Settings, frozen=True, kw_only=True):
    """CurveZMQ: the server's own secret certificate and the folder of clients let in."""

    server_key: Path
    clients: Path


class BusConfig(Settings, frozen=True, kw_only=True):
    """The sockets (docs/wire-contract.md); None turns one off.

    insecure: allow an address other than loopback or ipc without CURVE. score_hz: most live
    scores a second and query; 0 sends none. preview_hz: most pictures a second of each image
    stream, on the bulk socket. hwm: messages a slow subscriber may lag behind.
    """

    enabled: bool = True
    events: str = "tcp://127.0.0.1:5556"
    control: str | None = "tcp://127.0.0.1:5557"
    bulk: str | None = None
    insecure: bool = False
    curve: CurveConfig | None = None
    score_hz: NotNegative = 0.0
    preview_hz: NotNegative = 1.0
    hwm: Annotated[int, msgspec.Meta(ge=1)] = 1000
    linger_ms: Annotated[int, msgspec.Meta(ge=0)] = 500


class RecordConfig(Settings, frozen=True, kw_only=True):
    """path: write every stream there from the start. jpeg_quality: of recorded images."""

    path: Path | None = None
    jpeg_quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 90
    max_queue_mb: Positive = 64.0


class ConfigFile(Settings, frozen=True, kw_only=True):
    """The top of a YAML config. drivers: name -> kind and fields (`python -m agent --list`)."""

    agent: Name = "sensebind"
    space: SpaceConfig = SpaceConfig()
    drivers: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    queries: list[QueryConfig] = msgspec.field(default_factory=list)
    match: MatchConfig = MatchConfig()
    bus: BusConfig = BusConfig()
    record: RecordConfig = RecordConfig()


@dataclass(frozen=True)
class DriverEntry:
    """One driver of the config: what the agent does around it, its class and its own settings."""

    name: str
    config: DriverConfig
    plugin: Any
    settings: Any


@dataclass(frozen=True)
class Config:
    """A config with everything checked. digest: first 12 hex of the sha256 of its content."""

    file: ConfigFile
    drivers: tuple[DriverEntry, ...]
    digest: str
