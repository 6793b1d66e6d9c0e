"""What each stream of a query should weigh, measured where it is known what happens when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.clock import ManualClock, from_s, to_s
from agent.config import Config
from agent.core import Core
from agent.match.calibrated import Calibration
from agent.match.combined import Combined, weighted_sum
from agent.match.fusion import Fusion
from agent.match.queries import Query
from agent.match.tail import CLUSTER_S
from agent.replay import Tape
from tools.event_labels import labelled_spans
from tools.event_scores import Span
from tools.event_traces import window_s
from tools.log_tape import shown_tape
from tools.output import progress_bars

__all__ = [
    "LEAST_EVENTS",
    "PEAKS",
    "Heard",
    "Weighed",
    "best_weights",
    "highest_peaks",
    "learn_labelled",
    "share_of",
    "shrunk",
]

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Share: TypeAlias = Callable[[tuple[int, ...]], float]  # 0..1, of weights in tenths
LEAST_EVENTS = 8  # of fewer one event is more than what most weights differ by
PEAKS = 12  # thresholds that weights are judged at
STEPS = 10  # a weight is a multiple of a tenth
OTHERS = 24.0  # events that what other queries say is worth: a dozen tell weights apart by chance
NEVER_PER_HOUR = 1e-3  # a rate so low that hours without an alarm say nothing


@dataclass(frozen=True)
class Weighed:
    """What came of one query. weights: by stream. together, alone: of the weighted sum and of each
    stream, 0..1, the share of `events` higher than the k-th highest peak of what else there is,
    mean over k = 1..PEAKS. why: there are no weights, else "".
    """

    query: str
    events: int
    weights: Mapping[str, float]
    together: float
    alone: Mapping[str, float]
    why: str


@dataclass(frozen=True)
class Heard:
    """A run over the logs, a row an embedding. t_s: (n,), its end. z, fresh: (n, queries, streams)
    and known: (n, queries), as Combined is told.
    """

    t_s: Float64Array
    z: Float64Array
    fresh: BoolArray
    known: BoolArray


def learn_labelled(
    config: Config, rated: Collection[str], logs: Sequence[Path], labels: Path
) -> tuple[Calibration, list[Weighed]]:
    """What is ordinary in logs played one after the other, as one run, and what the streams of each
    query should weigh.

    config: in which no query ever fires. rated: ids of those that have a rate of false alarms.
    Nothing of the height of what happens is taken for ordinary. Raises ConfigError and the errors
    of `replay`.
    """
    tapes = [shown_tape(config, log) for log in logs]
    origin_ns = tapes[0].origin_ns
    begins_s = {
        log.name: to_s(tape.origin_ns - origin_ns) for log, tape in zip(logs, tapes, strict=True)
    }
    names = [query.named().id for query in config.file.queries]
    spans, _ = labelled_spans(labels, names, begins_s)
    core = Core(replace(config, drivers=()), ManualClock(), "calibrate", live=False)
    try:
        core.open()
        queries = core.queries.scored()
        own = [spans.get(query.ref.id, []) for query in queries]
        return _learn(core, queries, rated, tapes, own)
    finally:
        core.close()


def _learn(
    core: Core,
    queries: list[Query],
    rated: Collection[str],
    tapes: Sequence[Tape],
    spans: Sequence[Sequence[Span]],
) -> tuple[Calibration, list[Weighed]]:
    streams = {name: each for tape in tapes for name, each in tape.streams.items()}
    may = np.array([[q.may_answer(info) for info, _ in streams.values()] for q in queries], bool)
    told, rows = [], []
    for row, query in enumerate(queries):
        why = _why_not(query.ref.id in rated, int(may[row].sum()), len(spans[row]))
        told.append(Weighed(query.ref.id, len(spans[row]), {}, 0.0, {}, why))
        if not why:
            rows.append(row)
    slack_s = window_s(tapes)
    match = core.config.file.match
    fusion = Fusion(match, core.space, queries, streams)
    max_age_ns = from_s(match.max_age_s)
    heard = _listen(fusion, tapes, list(streams), may, spans, rows, slack_s, max_age_ns)
    learned = fusion.learned()
    if not rows:
        return learned, told
    hop_s = 1 / sum(1 / to_s(hop_ns) for _, hop_ns in streams.values())
    correlation = np.empty((*heard.z.shape, len(streams)))
    _combine(heard, Combined(len(rows), list(streams), hop_s), correlation)
    shares = [share_of(heard, correlation, i, spans[row], slack_s) for i, row in enumerate(rows)]
    weights = np.full(may.shape, np.nan)
    for share, row in zip(shares, rows, strict=True):
        alike = [
            other
            for other, at in zip(shares, rows, strict=True)
            if at != row and np.array_equal(may[at], may[row])
        ]
        columns = np.flatnonzero(may[row])
        best = best_weights(may[row], shrunk(share, len(spans[row]), alike))
        weights[row, columns] = np.array(best)[columns] / STEPS
        ones = np.eye(len(streams), dtype=int)[columns] * STEPS
        names = [list(streams)[column] for column in columns]
        told[row] = replace(
            told[row],
            weights=dict(zip(names, weights[row, columns].tolist(), strict=True)),
            together=share(best),
            alone={n: share(tuple(one)) for n, one in zip(names, ones.tolist(), strict=True)},
        )
    combined = Combined(len(rows), list(streams), hop_s, np.nan_to_num(weights[rows]))
    _combine(heard, combined)
    whole = Combined(len(queries), list(streams), hop_s).learned()
    for name, array in combined.learned().items():
        whole[name][rows] = array
    return learned.with_weights(weights, whole), told


def _why_not(rated: bool, streams: int, events: int) -> str:
    if not rated:
        return "it has no max_false_alarms_per_hour"
    if streams < 2:
        return f"{streams} stream may answer it"
    if events < LEAST_EVENTS:
        return f"of {LEAST_EVENTS} events at least"
    return ""


def _listen(
    fusion: Fusion,
    tapes: Sequence[Tape],
    names: list[str],
    may: BoolArray,
    spans: Sequence[Sequence[Span]],
    rows: list[int],
    slack_s: float,
    max_age_ns: int,
) -> Heard:
    """Let `fusion` hear and learn all of the tapes; and what it heard for the queries `rows`."""
    embeddings = [embedding for tape in tapes for embedding in tape.embeddings]
    t_s = np.array([to_s(embedding.end_ns - tapes[0].origin_ns) for embedding in embeddings])
    known = np.zeros((len(embeddings), len(spans)), bool)
    for column, own in enumerate(spans):
        for span in own:
            known[:, column] |= (t_s >= span.from_s) & (t_s <= span.to_s + slack_s)
    z = np.zeros((len(embeddings), len(rows), len(names)))
    now = np.zeros(z.shape[1:])
    seen_ns = np.full(len(names), np.iinfo(np.int64).min // 2)
    fresh = np.zeros((len(embeddings), len(names)), bool)
    quiet = np.ones(len(spans), bool)
    with progress_bars() as bars:
        for n, embedding in enumerate(bars.track(embeddings, description="matching")):
            fusion.observe(embedding)
            column = names.index(embedding.stream)
            now[:, column] = fusion.said(embedding.stream)[0][rows]
            z[n] = now
            seen_ns[column] = embedding.end_ns
            fresh[n] = embedding.end_ns - seen_ns <= max_age_ns
            fusion.learn(embedding.stream, quiet, known[n])
    return Heard(t_s, z, fresh[:, np.newaxis] & may[rows], known[:, rows])


def _combine(heard: Heard, combined: Combined, path: Float64Array | None = None) -> None:
    """Let `combined` hear and learn all of it. path: (n, queries, streams, streams), filled with
    the correlation that each sum is divided by.
    """
    queries = heard.z.shape[1]
    quiet, never = np.ones(queries, bool), np.full(queries, NEVER_PER_HOUR)
    low = np.zeros(heard.z.shape[1:], bool)
    for n in range(len(heard.t_s)):
        if path is not None:
            path[n] = combined.correlation
        combined.observe(heard.z[n], heard.fresh[n], low, 0)
        combined.learn(quiet, never, heard.known[n])


def share_of(
    heard: Heard, correlation: Float64Array, query: int, spans: Sequence[Span], slack_s: float
) -> Share:
    """Of `spans`, what weights of all streams find, as Weighed has it."""
    order = np.argsort(heard.t_s, kind="stable")
    t_s, known = heard.t_s[order], heard.known[order, query]
    z, fresh = heard.z[order, query], heard.fresh[order, query]
    own = correlation[order, query]
    begin = np.searchsorted(t_s, [span.from_s for span in spans])
    end = np.searchsorted(t_s, [span.to_s + slack_s for span in spans], side="right")

    @cache
    def share(tenths: tuple[int, ...]) -> float:
        weights = np.array(tenths) * fresh / STEPS
        summed = np.where(weights.any(axis=1), weighted_sum(z, weights, own), -np.inf)
        within = zip(begin, end, strict=True)
        highest = np.array([summed[a:b].max(initial=-np.inf) for a, b in within])
        peaks = highest_peaks(t_s, np.where(known, -np.inf, summed))
        return float((highest[:, np.newaxis] > peaks).mean())

    return share


def highest_peaks(t_s: Float64Array, values: Float64Array) -> Float64Array:
    """(PEAKS,), falling: those that are CLUSTER_S or more apart, as agent.match.tail counts them;
    -inf where there are no more. t_s rises.
    """
    left = values.copy()
    peaks = np.full(PEAKS, -np.inf)
    for k in range(PEAKS if len(left) else 0):
        top = int(left.argmax())
        peaks[k] = left[top]
        near = np.searchsorted(t_s, [t_s[top] - CLUSTER_S, t_s[top] + CLUSTER_S])
        left[near[0] : near[1]] = -np.inf
    return peaks


def shrunk(own: Share, events: int, alike: Sequence[Share]) -> Share:
    """`own` of so many events, together with what the other queries of the same streams say of the
    same weights, as if that were OTHERS events more.
    """

    def share(tenths: tuple[int, ...]) -> float:
        others = sum(each(tenths) for each in alike) / len(alike)
        return (events * own(tenths) + OTHERS * others) / (events + OTHERS)

    return share if alike else own


def best_weights(may: Sequence[bool] | BoolArray, share: Share) -> tuple[int, ...]:
    """Tenths, whose sum is ten, of the streams that `may` answer, those of the highest `share`, by
    coordinate ascent over pairs of streams; of equal shares the most equal weights.
    """
    own = [int(column) for column in np.flatnonzero(may)]
    parts = {i: STEPS // len(own) + (n < STEPS % len(own)) for n, i in enumerate(own)}
    best = tuple(parts.get(i, 0) for i in range(len(may)))
    before = None
    while best != before:
        before = best
        for i, j in combinations(own, 2):
            moved = [_with(best, i, j, part) for part in range(best[i] + best[j] + 1)]
            # Rounded: equal shares may be summed up in another order.
            best = max(moved, key=lambda each: (round(share(each), 9), -sum(w * w for w in each)))
    return best


def _with(tenths: tuple[int, ...], i: int, j: int, part: int) -> tuple[int, ...]:
    """`part` of what the two have for stream i, the rest for j."""
    moved = list(tenths)
    moved[i], moved[j] = part, tenths[i] + tenths[j] - part
    return tuple(moved)
