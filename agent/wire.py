"""What goes over the bus and into the log: docs/wire-contract.md, version 1, as types.

Every message is one JSON object; JSON Schemas are generated from these Structs. Times are
{sec, nsec} in UTC, because a nanosecond integer passes 2^53 and breaks in JavaScript. Fields may
be added within a version; none is removed or changes meaning.
"""

from __future__ import annotations

from inspect import cleandoc
from typing import Any, Literal

import msgspec

from agent.clock import NS_PER_S
from agent.types import Region

__all__ = [
    "VERSION",
    "Attachment",
    "ClockState",
    "EmbeddingMessage",
    "Event",
    "Evidence",
    "Health",
    "HopLatency",
    "Latency",
    "Model",
    "Preview",
    "QueryRef",
    "Reply",
    "Request",
    "RequestError",
    "Score",
    "ScoreMessage",
    "SensorStatus",
    "Span",
    "StreamHealth",
    "Time",
    "WireStruct",
    "encode",
    "json_schemas",
]

VERSION = 1


class WireStruct(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every message and part of one. Unknown fields are ignored: a version may add some."""


class Time(WireStruct, frozen=True, kw_only=True):
    """A UTC time. sec: seconds since 1970; nsec: 0..999999999."""

    sec: int
    nsec: int

    @classmethod
    def of(cls, t_ns: int) -> Time:
        sec, nsec = divmod(t_ns, NS_PER_S)
        return cls(sec=sec, nsec=nsec)

    @property
    def ns(self) -> int:
        return self.sec * NS_PER_S + self.nsec


class Span(WireStruct, frozen=True, kw_only=True):
    start: Time
    end: Time


class QueryRef(WireStruct, frozen=True, kw_only=True):
    """rev: first 12 hex digits of the sha256 of the query's definition."""

    id: str
    rev: str
    label: str


class ClockState(WireStruct, frozen=True, kw_only=True):
    """domain: what stamps count from. offset_ns: UTC minus the agent's clock, now."""

    domain: Literal["utc_anchored_monotonic", "log"]
    offset_ns: int
    uncertainty_ns: int
    replay: bool


class Score(WireStruct, frozen=True, kw_only=True):
    """value: 0..1, compared with `threshold`. kind names the formula (docs/wire-contract.md).
    confidence: 0..1, how much of far_per_hour the streams themselves have said.
    """

    value: float
    kind: str
    threshold: float
    far_per_hour: float | None = None
    calibration: Literal["prior", "learning", "ready"] = "prior"
    confidence: float = 0.0
    quiet_hours: float = 0.0


class Evidence(WireStruct, frozen=True, kw_only=True):
    """One stream's part in an event: what it measured, or why it could say nothing. reused: by
    the vector of an earlier window, as nothing had changed since. region: the part of the frame
    that answers best; None where that is the whole. query: in an event of a `when`, which of the
    queries it names. far_per_hour: how often an hour this stream
    would come as high by itself. share: 0..1, of all that the streams have above what is ordinary.
    """

    stream: str
    modality: str
    query: str = ""
    status: Literal["ok", "missing", "stale"] = "ok"
    frame_id: str = ""
    cosine: float | None = None
    z: float | None = None
    far_per_hour: float | None = None
    share: float | None = None
    window: Span | None = None
    age_ms: float | None = None
    reused: bool = False
    region: Region | None = None


class Latency(WireStruct, frozen=True, kw_only=True):
    """Milliseconds. capture_to_embed: end of the window to its vector; total: to this message."""

    capture_to_embed: float
    embed_to_event: float
    total: float


class Model(WireStruct, frozen=True, kw_only=True):
    space: str
    precision: str
    provider: str


class Event(WireStruct, frozen=True, kw_only=True):
    """One thing that happened, told as it goes on: the same `id` from start through end.

    end_time is the last evidence so far, so an Event maps without loss to foxglove.Event.
    reason: why it ended (""; "quiet", "stale", "max_duration", "shutdown", "query_changed").
    """

    v: int = VERSION
    id: str
    revision: int
    phase: Literal["start", "update", "end"]
    seq: int = 0
    agent: str
    boot_id: str
    query: QueryRef
    start_time: Time
    end_time: Time
    clock: ClockState
    score: Score
    evidence: list[Evidence]
    latency_ms: Latency
    clip: dict[str, Any] | None = None
    model: Model
    drops: dict[str, int]
    reason: str = ""
    retained: bool = False


class ScoreMessage(WireStruct, frozen=True, kw_only=True):
    """A live score of one query, sent whether or not anything fires."""

    v: int = VERSION
    seq: int = 0
    agent: str
    boot_id: str
    query: QueryRef
    time: Time
    score: Score
    evidence: list[Evidence]
    retained: bool = False


class SensorStatus(WireStruct, frozen=True, kw_only=True):
    """A unit changed state. since: when. reason: for people, never empty unless online."""

    v: int = VERSION
    seq: int = 0
    agent: str
    boot_id: str
    stream: str
    modality: str
    state: Literal["online", "degraded", "offline", "ended"]
    reason: str
    since: Time
    retained: bool = False


class StreamHealth(WireStruct, frozen=True, kw_only=True):
    """Counters since start, in ticks. clock_offset_ns etc.: the device's clock to the agent's;
    clock_steps: how often it was set while connected, after each of which it is learnt anew.

    windows: that were encoded; reused: that were not, as nothing had changed.

    hop_s, hop_asked_s: from one window to the next, as it is and as the config has it; None where
    no tower takes the stream. hop_reason: which limit stretches it. duty: share of the last
    minute that the stream's tower was busy, 0..1.

    doubt: why it may be no good though it runs, one sentence without its subject; empty where
    nothing speaks against it.
    """

    stream: str
    modality: str
    state: str
    rate_hz: float
    received: int
    lost: int
    bad: int
    overruns: int
    reconnects: int
    windows: int
    skipped: int
    age_ms: float | None
    reused: int = 0
    hop_s: float | None = None
    hop_asked_s: float | None = None
    hop_reason: Literal["", "max_hz", "max_duty"] = ""
    duty: float | None = None
    clock_offset_ns: int | None = None
    clock_drift_ppm: float | None = None
    clock_uncertainty_ns: int | None = None
    clock_steps: int | None = None
    doubt: str = ""


class HopLatency(WireStruct, frozen=True, kw_only=True):
    """Milliseconds over the last second's worth of messages through one hop."""

    hop: str
    count: int
    p50: float
    p95: float
    p99: float


class Health(WireStruct, frozen=True, kw_only=True):
    """1 Hz. drops: what each bounded queue has dropped since start, by the queue's name."""

    v: int = VERSION
    seq: int = 0
    agent: str
    boot_id: str
    time: Time
    uptime_s: float
    clock: ClockState
    model: Model
    streams: list[StreamHealth]
    latency_ms: list[HopLatency]
    drops: dict[str, int]
    cpu_percent: float
    rss_mb: float
    temperature_c: float | None
    queries: int
    open_events: int
    recording: str | None
    retained: bool = False


class Attachment(WireStruct, frozen=True, kw_only=True):
    """A binary frame that follows the JSON, in order. bytes: its length."""

    media_type: str
    bytes: int


class EmbeddingMessage(WireStruct, frozen=True, kw_only=True):
    """A unit vector of one window of one stream. vector: base64 of little-endian float16, in a
    log; on the bus it is empty and the vector is the attachment, in the same form. reused: nothing
    had changed in the window, and the vector is that of an earlier one.

    views: the parts of the frame that have a vector of their own. view_vectors: theirs one after
    the other, in the form of `vector`; on the bus the second attachment.
    """

    v: int = VERSION
    seq: int = 0
    agent: str
    boot_id: str
    stream: str
    modality: str
    space: str
    dim: int
    window: Span
    vector: str = ""
    reused: bool = False
    views: list[Region] = []
    view_vectors: str = ""
    attachments: list[Attachment] = []
    retained: bool = False


class Preview(WireStruct, frozen=True, kw_only=True):
    """A picture of an image stream, now and then; the JPEG is the attachment."""

    v: int = VERSION
    seq: int = 0
    agent: str
    boot_id: str
    stream: str
    time: Time
    width: int
    height: int
    attachments: list[Attachment] = []
    retained: bool = False


class Request(WireStruct, frozen=True, kw_only=True):
    """A control message. args: the operation's own fields, flat beside op and id."""

    op: str
    id: str
    args: dict[str, Any]


class RequestError(WireStruct, frozen=True, kw_only=True):
    code: str
    message: str


class Reply(WireStruct, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    ok: bool
    result: Any = None
    error: RequestError | None = None


_encoder = msgspec.json.Encoder()


def encode(message: WireStruct) -> bytes:
    """One JSON object, UTF-8, keys in declared order, no newline."""
    return _encoder.encode(message)


def json_schemas() -> dict[str, Any]:
    """JSON Schemas (2020-12) of the messages by name, with shared parts under "$defs"."""
    messages = (Event, ScoreMessage, SensorStatus, Health, EmbeddingMessage, Preview, Reply)
    schemas, parts = msgspec.json.schema_components(messages, ref_template="#/$defs/{name}")
    for part in parts.values():
        # Python 3.13 takes the indentation off docstrings; the schema is the same on all.
        part["description"] = cleandoc(part.get("description", ""))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "messages": {t.__name__: s for t, s in zip(messages, schemas, strict=True)},
        "$defs": parts,
    }
