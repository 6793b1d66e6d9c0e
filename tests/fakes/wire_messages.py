"""Messages of every kind with plain values, for tests of what carries them."""

from __future__ import annotations

from typing import Any, Literal

from agent.clock import from_s
from agent.wire import (
    Attachment,
    ClockState,
    EmbeddingMessage,
    Event,
    Evidence,
    Health,
    HopLatency,
    Latency,
    Model,
    Preview,
    QueryRef,
    Score,
    ScoreMessage,
    SensorStatus,
    Span,
    StreamHealth,
    Time,
)

AGENT = "hat"
ORIGIN_NS = 1_700_000_000_000_000_000
CLOCK = ClockState(domain="log", offset_ns=0, uncertainty_ns=0, replay=True)
MODEL = Model(space="compact@0123456789ab", precision="fp32", provider="CPUExecutionProvider")


def at(seconds: float) -> Time:
    return Time.of(ORIGIN_NS + from_s(seconds))


def evidence(stream: str = "camera", modality: str = "image", end_s: float = 1.0) -> Evidence:
    window = Span(start=at(end_s - 1), end=at(end_s))
    return Evidence(
        stream=stream, modality=modality, cosine=0.31, z=5.2, window=window, age_ms=12.0
    )


def event(
    event_id: str = "01HF0000000000000000000000",
    *,
    query: str = "cat",
    label: str = "a cat",
    phase: Literal["start", "update", "end"] = "start",
    revision: int = 1,
    start_s: float = 1.0,
    end_s: float = 1.0,
    value: float = 0.93,
    reason: str = "",
    seen: list[Evidence] | None = None,
    boot_id: str = "boot1",
) -> Event:
    return Event(
        id=event_id,
        revision=revision,
        phase=phase,
        agent=AGENT,
        boot_id=boot_id,
        query=QueryRef(id=query, rev="0123456789ab", label=label),
        start_time=at(start_s),
        end_time=at(end_s),
        clock=CLOCK,
        score=Score(value=value, kind="logistic_z", threshold=0.7),
        evidence=[evidence(end_s=end_s)] if seen is None else seen,
        latency_ms=Latency(capture_to_embed=20.0, embed_to_event=1.0, total=21.0),
        model=MODEL,
        drops={},
        reason=reason,
    )


def score(
    value: float = 0.5, query: str = "cat", label: str = "a cat", time_s: float = 1.0
) -> ScoreMessage:
    return ScoreMessage(
        agent=AGENT,
        boot_id="boot1",
        query=QueryRef(id=query, rev="0123456789ab", label=label),
        time=at(time_s),
        score=Score(value=value, kind="logistic_z", threshold=0.7, calibration="ready"),
        evidence=[evidence(end_s=time_s)],
    )


def sensor(
    stream: str = "camera",
    state: Literal["online", "degraded", "offline", "ended"] = "online",
    reason: str = "",
    since_s: float = 0.0,
    modality: str = "image",
) -> SensorStatus:
    return SensorStatus(
        agent=AGENT,
        boot_id="boot1",
        stream=stream,
        modality=modality,
        state=state,
        reason=reason,
        since=at(since_s),
    )


def stream_health(stream: str = "camera", modality: str = "image", **changes: Any) -> StreamHealth:
    fields: dict[str, Any] = {
        "stream": stream,
        "modality": modality,
        "state": "online",
        "rate_hz": 29.97,
        "received": 300,
        "lost": 2,
        "bad": 0,
        "overruns": 0,
        "reconnects": 0,
        "windows": 20,
        "skipped": 0,
        "age_ms": 33.0,
    }
    return StreamHealth(**{**fields, **changes})


def health(time_s: float = 10.0, streams: list[StreamHealth] | None = None) -> Health:
    return Health(
        agent=AGENT,
        boot_id="boot1",
        time=at(time_s),
        uptime_s=time_s,
        clock=CLOCK,
        model=MODEL,
        streams=[stream_health()] if streams is None else streams,
        latency_ms=[HopLatency(hop="total", count=40, p50=21.0, p95=38.5, p99=51.0)],
        drops={"bus.live": 0},
        cpu_percent=41.0,
        rss_mb=312.0,
        temperature_c=None,
        queries=2,
        open_events=1,
        recording=None,
    )


def embedding() -> EmbeddingMessage:
    """As it is on the bus, its vector in an attachment."""
    return EmbeddingMessage(
        agent=AGENT,
        boot_id="b00t",
        stream="camera",
        modality="image",
        space=MODEL.space,
        dim=256,
        window=Span(start=at(0.5), end=at(1.0)),
        attachments=[Attachment(media_type="application/x-float16", bytes=512)],
    )


def preview() -> Preview:
    """A picture of a camera."""
    return Preview(
        agent=AGENT,
        boot_id="b00t",
        stream="camera",
        time=at(1.0),
        width=640,
        height=480,
        attachments=[Attachment(media_type="image/jpeg", bytes=9000)],
    )
