"""A run of matching over tapes, as alarms and as what was measured at each window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.clock import from_s, to_s
from agent.config import Config, GateConfig
from agent.core import Core
from agent.match.fusion import RATE_KIND
from agent.match.gate import Gate
from agent.replay import Tape, match_again
from agent.types import Embedding
from agent.wire import Event, Evidence, ScoreMessage
from tools.event_scores import Alarm

__all__ = ["Run", "Trace", "alarms_at", "play", "window_s"]

Float64Array = NDArray[np.float64]
LEAST_VALUE = 5e-5  # of a score: it is told with four decimals


@dataclass(frozen=True)
class Trace:
    """Of one query, a row a window of a stream that may answer it: (n,) each. t_s: its end.
    rarity: -log10 of the false alarms an hour that its evidence would come to, of all its streams
    and of what they say together; z where the query has no rate.
    """

    t_s: Float64Array
    cosine: Float64Array
    z: Float64Array
    rarity: Float64Array


@dataclass(frozen=True)
class Run:
    """Seconds count from the first tick of the first tape. alarms, traces: by query."""

    space: str
    alarms: dict[str, list[Alarm]]
    traces: dict[str, Trace]
    window_s: float
    hop_s: float


def play(config: Config, tapes: Sequence[Tape], traced: bool) -> Run:
    """The config's queries over the tapes, one after the other. Errors as match_again's.

    traced: with traces, which cost more than the matching itself.
    """
    origin_ns = tapes[0].origin_ns
    rows: dict[str, list[tuple[float, float, float, float]]] = {}
    space = ""
    opened: dict[str, Event] = {}
    alarms: dict[str, list[Alarm]] = {}

    def on_event(event: Event) -> None:
        own = event.query.id
        if event.phase == "start":
            opened[own] = event
        elif event.phase == "end":
            start = opened.pop(own)
            times = (start.start_time, start.end_time, event.end_time)
            alarms.setdefault(own, []).append(Alarm(*(to_s(t.ns - origin_ns) for t in times)))

    def on_match(core: Core, embedding: Embedding) -> None:
        nonlocal space
        space = core.space.identity
        if not traced:
            return
        now_ns = embedding.end_ns
        for told in core.matcher.scores(now_ns):
            best = told.evidence[0] if told.evidence else None
            if best is None or best.cosine is None or best.z is None:
                continue
            if not any(each.stream == embedding.stream for each in told.evidence):
                continue
            row = to_s(now_ns - origin_ns), best.cosine, best.z, _rarity(told, best)
            rows.setdefault(told.query.id, []).append(row)

    match_again(config, tapes, on_event, on_match)
    traces = {name: Trace(*np.array(own, np.float64).T) for name, own in rows.items()}
    ids = [query.named().id for query in config.file.queries]
    hops = [hop_ns for tape in tapes for _, hop_ns in tape.streams.values()]
    return Run(
        space=space,
        alarms={name: alarms.get(name, []) for name in ids},
        traces={name: traces[name] for name in ids if name in traces},
        window_s=window_s(tapes),
        hop_s=to_s(min(hops, default=0)),
    )


def window_s(tapes: Sequence[Tape]) -> float:
    """How long the longest window is."""
    lengths = (e.end_ns - e.start_ns for tape in tapes for e in tape.embeddings[:100])
    return to_s(max(lengths, default=0))


def alarms_at(
    t_s: Float64Array, values: Float64Array, threshold: float, gate: GateConfig, hop_s: float
) -> list[Alarm]:
    """What a fixed threshold on `values` tells, through the agent's own gate."""
    own = Gate(
        GateConfig(  # not from YAML: its thresholds may be any numbers
            enter=threshold,
            exit=threshold,
            min_duration_s=gate.min_duration_s,
            hold_s=gate.hold_s,
            cool_down_s=gate.cool_down_s,
        )
    )
    alarms: list[Alarm] = []
    rows = np.flatnonzero(values >= threshold)
    started: tuple[float, float] | None = None
    row = 0
    while row < len(t_s):
        if own.is_idle:  # what is below the threshold changes nothing
            ahead = int(np.searchsorted(rows, row))
            if ahead == len(rows):
                break
            row = int(rows[ahead])
        t_ns = from_s(float(t_s[row]))
        told = own.step(t_ns, float(values[row]), t_ns - from_s(hop_s))
        if told is not None and told.phase == "start":
            started = to_s(told.start_ns), to_s(told.end_ns)
        elif told is not None and told.phase == "end" and started is not None:
            alarms.append(Alarm(*started, to_s(told.end_ns)))
            started = None
        row += 1
    if started is not None:
        alarms.append(Alarm(*started, float(t_s[-1])))
    return alarms


def _rarity(told: ScoreMessage, best: Evidence) -> float:
    """Of `told`, whose strongest evidence is `best`."""
    score, per_hour = told.score, best.far_per_hour
    if score.kind == RATE_KIND and score.far_per_hour and len(told.evidence) > 1:
        value = min(max(score.value, LEAST_VALUE), 1 - LEAST_VALUE)
        per_hour = score.far_per_hour * (1 - value) / value
    return float(best.z or 0.0) if per_hour is None else -math.log10(max(per_hour, 1e-300))
