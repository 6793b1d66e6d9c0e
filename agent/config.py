"""The config's types: frozen, defaults in one place, unknown fields refused.

agent/config_file.py reads them from YAML. Paths are `Path`: those in a file are relative to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agent.contracts import RuntimeOptions
from agent.types import NAME_PATTERN, Settings, slug

__all__ = [
    "AskedConfig",
    "BusConfig",
    "Config",
    "ConfigFile",
    "CurveConfig",
    "DriverConfig",
    "DriverEntry",
    "GateConfig",
    "LogCut",
    "MatchConfig",
    "PartConfig",
    "QueryConfig",
    "RecordConfig",
    "SpaceConfig",
    "Taught",
    "TowerConfig",
]

Name = Annotated[str, msgspec.Meta(pattern=f"^{NAME_PATTERN}$")]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Unit = Annotated[float, msgspec.Meta(ge=0, le=1)]

LEAST_WEIGHT = 1e-3

_SENSES = ("audio", "image", "depth", "thermal", "imu")
_ASKED = ("text", *_SENSES, "file", "log", "vector", "taught")


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


class GateConfig(Settings, frozen=True, kw_only=True):
    """When a score becomes an event: enter >= exit, both 0..1.

    min_duration_s: how long a score must hold before the start is told. hold_s: how long it may
    dip below exit before the end is told. cool_down_s: silence after an end. update_s: least time
    between updates of an open event. max_duration_s: an event is ended after so long, and its query
    is silent until no score has reached exit for hold_s: what never ends is how things are now, and
    is learned as that.
    """

    enter: Unit = 0.7
    exit: Unit = 0.4
    min_duration_s: NotNegative = 0.0
    hold_s: NotNegative = 1.0
    cool_down_s: NotNegative = 2.0
    update_s: Positive = 1.0
    max_duration_s: Positive = 300.0

    def __post_init__(self) -> None:
        if self.exit > self.enter:
            raise ValueError(f"exit {self.exit} must not be above enter {self.enter}")


class Taught(Settings, frozen=True, kw_only=True):
    """A query's vector made from examples, as query.teach and tools.teach make it.

    space: identity of the space, "name@hash", that alone it can be used in. modality: sense of
    the examples. vector: little-endian float32 of unit length, base64 in JSON. ordinary: mean and
    deviation of its cosine with ordinary input of that sense. source: the arguments of tools.teach
    that made it, empty where live streams were marked.
    """

    space: str
    modality: Name
    vector: bytes
    method: Literal["prototype", "ridge"]
    ordinary: tuple[float, float]
    source: str = ""

    def __post_init__(self) -> None:
        mean, deviation = self.ordinary
        if not (math.isfinite(mean) and 0 <= deviation < math.inf):
            raise ValueError(f"ordinary is {list(self.ordinary)}, expected a mean and a deviation")


class LogCut(Settings, frozen=True, kw_only=True):
    """All that a stream of a recording has from `from_s` to `to_s`, seconds into it."""

    file: Path
    stream: str
    from_s: NotNegative
    to_s: Positive

    def __post_init__(self) -> None:
        if self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s:g} must be above from_s {self.from_s:g}")


class AskedConfig(Settings, frozen=True, kw_only=True):
    """What is asked for, in any sense: exactly one of these, or none of them where a query has
    `sum` or `when`.

    text: one phrase, or several whose mean is taken. audio, image, depth, thermal, imu: a file, as
    encoders.files.read_file reads it. file: of any other sense, named by `modality`. log: a cut of
    a recording. vector: a file that tools.teach wrote; taught: what such a file holds.
    """

    text: str | list[str] | None = None
    audio: Path | None = None
    image: Path | None = None
    depth: Path | None = None
    thermal: Path | None = None
    imu: Path | None = None
    file: Path | None = None
    modality: Name | None = None
    log: LogCut | None = None
    vector: Path | None = None
    taught: Taught | None = None

    def __post_init__(self) -> None:
        given = self.given()
        if len(given) != 1:
            raise ValueError(f"exactly one of {self._choices()} is needed, got {given or 'none'}")
        if self.text is not None and not (self.phrases and all(p.strip() for p in self.phrases)):
            raise ValueError("text is empty")
        if (self.file is None) != (self.modality is None):
            raise ValueError("file and modality go together; a known sense has a field of its own")

    def given(self) -> list[str]:
        """Which of the fields say what is asked for."""
        return [name for name in _ASKED if getattr(self, name) is not None]

    def _choices(self) -> str:
        return ", ".join(_ASKED)

    @property
    def phrases(self) -> tuple[str, ...]:
        """Of `text`, none where something else is asked for."""
        text = self.text
        return () if text is None else (text,) if isinstance(text, str) else tuple(text)

    def sense_file(self) -> tuple[str, Path] | None:
        """(modality, file) where a whole file is asked for."""
        if self.file is not None and self.modality is not None:
            return self.modality, self.file
        files = ((sense, getattr(self, sense)) for sense in _SENSES)
        return next(((sense, file) for sense, file in files if file is not None), None)

    def title(self) -> str:
        """For people: the first phrase, or the name of the file; "" where there is neither."""
        if self.phrases:
            return self.phrases[0]
        sensed = self.sense_file()
        file = sensed[1] if sensed else self.log.file if self.log else self.vector
        return file.stem if file else ""


class PartConfig(AskedConfig, frozen=True, kw_only=True):
    """One part of a sum. weight: its say beside the others, of a size of LEAST_WEIGHT to
    1 / LEAST_WEIGHT; below 0 it is to be absent.
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not LEAST_WEIGHT <= abs(self.weight) <= 1 / LEAST_WEIGHT:
            raise ValueError(
                f"weight is {self.weight:g}, expected {LEAST_WEIGHT:g} to {1 / LEAST_WEIGHT:g} "
                "or as much below 0"
            )


class QueryConfig(AskedConfig, frozen=True, kw_only=True):
    """What a person asks for (docs/queries.md): one thing in any sense, as AskedConfig has it; or
    `sum`, several parts by weight, at least one of it above 0; or `when`, how other queries follow
    one another in time (agent/match/grammar.py).

    id: one level of a topic; made from the label or what is asked for where left out. not: what it
    must not be taken for, as phrases or in any sense. templates: by sense, sentences with `{}` for
    a phrase; where one is given for the sense of a stream, text is compared with it as the mean of
    them. streams, senses: which may answer; where both are left out all, but to a taught vector the
    sense of its examples. gate: None takes `match.gate`. max_false_alarms_per_hour: in place of the
    gate's enter and exit; where both this and gate are left out, that of `match`. enabled: whether
    it tells events; one that is not still counts in a `when` that names it.
    """

    id: Name = ""
    label: str = ""
    sum: list[PartConfig] | None = None
    when: str | None = None
    against: list[str | AskedConfig] = msgspec.field(default_factory=list, name="not")
    templates: dict[str, list[str]] = msgspec.field(default_factory=dict)
    streams: list[str] | None = None
    senses: list[str] | None = None
    enabled: bool = True
    gate: GateConfig | None = None
    max_false_alarms_per_hour: Positive | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sum is not None and all(part.weight < 0 for part in self.sum):
            raise ValueError("sum has no part whose weight is above 0, expected at least one")
        if self.when is not None and self.against:
            raise ValueError("when and not do not go together, expected not in what it names")
        if any(isinstance(each, str) and not each.strip() for each in self.against):
            raise ValueError("not has an empty phrase")
        for sense, sentences in self.templates.items():
            if not sentences or any(sentence.count("{}") != 1 for sentence in sentences):
                raise ValueError(
                    f"templates.{sense} is {sentences}, expected sentences with one {{}} each"
                )

    def given(self) -> list[str]:
        own = [name for name in ("sum", "when") if getattr(self, name) is not None]
        return [*super().given(), *own]

    def _choices(self) -> str:
        return f"{super()._choices()}, sum, when"

    def parts(self) -> tuple[PartConfig | AskedConfig, ...]:
        """What is added up; none for a `when`."""
        return () if self.when is not None else tuple(self.sum or (self,))

    def contrasts(self) -> tuple[AskedConfig, ...]:
        """What it must not be taken for."""
        return tuple(AskedConfig(text=a) if isinstance(a, str) else a for a in self.against)

    def title(self) -> str:
        if self.sum is None:
            return self.when or super().title()
        signed = [(part.title(), part.weight < 0) for part in self.sum]
        return " ".join(f"{'-' if less else '+'} {name}" for name, less in signed).removeprefix(
            "+ "
        )

    def named(self) -> QueryConfig:
        """The same query with its id and label filled in."""
        label = self.label or self.title() or self.id
        return msgspec.structs.replace(self, id=self.id or slug(label), label=label)

    def said(self) -> dict[str, Any]:
        """JSON values, without what says nothing: as YAML and query.put take it."""
        fields: dict[str, Any] = _said(msgspec.to_builtins(self, enc_hook=str))
        if self.enabled:
            del fields["enabled"]
        return fields


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        each = {name: _said(inner) for name, inner in value.items()}
        return {name: inner for name, inner in each.items() if inner not in (None, "", [], {})}
    return [_said(inner) for inner in value] if isinstance(value, list) else value


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
