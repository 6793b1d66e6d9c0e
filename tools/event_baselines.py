"""What others do, on the same windows: a fixed cosine, and one z-score for everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.config import GateConfig
from tools.event_scores import Alarm, Counts, Span, count, total
from tools.event_traces import Run, alarms_at

__all__ = ["Point", "Truth", "cosines", "curve", "global_z", "rarities", "within"]

Float64Array = NDArray[np.float64]
STEPS = 25  # of a curve


@dataclass(frozen=True)
class Truth:
    """What did happen, by query, from `begin_s` to `end_s` of the run; the rest is not counted."""

    spans: Mapping[str, Sequence[Span]]
    begin_s: float
    end_s: float
    slack_s: float

    def count(self, alarms: Mapping[str, Sequence[Alarm]]) -> dict[str, Counts]:
        counts = {}
        for name, spans in self.spans.items():
            near = [span for span in spans if span.to_s + self.slack_s > self.begin_s]
            own = [a for a in alarms.get(name, ()) if self.begin_s <= a.from_s < self.end_s]
            counts[name] = count(own, near, (self.begin_s, self.end_s), self.slack_s)
        return counts


@dataclass(frozen=True)
class Point:
    """One threshold for all queries, and what it gives."""

    threshold: float
    counts: Mapping[str, Counts]

    @property
    def all(self) -> Counts:
        return total(self.counts)


def cosines(run: Run) -> dict[str, Float64Array]:
    return {name: trace.cosine for name, trace in run.traces.items()}


def rarities(run: Run) -> dict[str, Float64Array]:
    return {name: trace.rarity for name, trace in run.traces.items()}


def global_z(run: Run) -> dict[str, Float64Array]:
    """One running mean and deviation of all that was ever measured, whatever was asked.

    As Frigate normalises the distances of its semantic search: class ZScoreNormalization of
    frigate/embeddings/util.py keeps count, mean and sum of squares (Welford) of every distance of
    every query, nothing is forgotten, and a distance is normalised with its own batch taken in.
    A cosine distance is 1 - cosine, so the sign is turned back here.
    """
    names = list(run.traces)
    t_s = np.concatenate([run.traces[name].t_s for name in names])
    cosine = np.concatenate([run.traces[name].cosine for name in names])
    owner = np.repeat(np.arange(len(names)), [len(run.traces[name].t_s) for name in names])
    order = np.argsort(t_s, kind="stable")
    number = np.arange(1, len(order) + 1)
    centre = cosine.mean()  # of no effect but on rounding
    moved = cosine[order] - centre
    mean = np.cumsum(moved) / number
    squares = np.cumsum(moved**2) - number * mean**2
    deviation = np.sqrt(np.maximum(squares, 0) / np.maximum(number - 1, 1))
    # With its whole batch, which is what came at one time.
    last = np.searchsorted(t_s[order], t_s[order], side="right") - 1
    z = (moved - mean[last]) / np.maximum(deviation[last], 1e-9)
    back = np.empty_like(z)
    back[order] = z
    return {name: back[owner == i] for i, name in enumerate(names)}


def curve(
    run: Run, values: Mapping[str, Float64Array], truth: Truth, gate: GateConfig
) -> list[Point]:
    """From strict to loose: thresholds at even steps of how many windows are over."""
    pooled = np.sort(np.concatenate(list(values.values())))
    shares = np.logspace(np.log10(5 / len(pooled)), np.log10(0.1), STEPS)
    thresholds = sorted({float(pooled[-max(1, round(s * len(pooled)))]) for s in shares})
    points = []
    for threshold in reversed(thresholds):
        alarms = {
            name: alarms_at(run.traces[name].t_s, own, threshold, gate, run.hop_s)
            for name, own in values.items()
        }
        points.append(Point(threshold, truth.count(alarms)))
    return points


def within(counts: Mapping[str, Counts], target: float) -> float:
    """Share of the queries whose rate lies within a factor of two of `target`."""
    right = [target / 2 <= own.per_hour <= target * 2 for own in counts.values()]
    return sum(right) / len(right)
