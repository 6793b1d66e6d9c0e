"""Events against what did happen: what was found, what was cried for nothing, how late."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

__all__ = [
    "Alarm",
    "Counts",
    "Span",
    "count",
    "poisson_interval",
    "quantile",
    "total",
    "wilson_interval",
]

HOUR_S = 3600.0
EARLY_S = 1.0  # an alarm's start may be rounded to the hop before
Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Span:
    """Something that happened. Seconds."""

    from_s: float
    to_s: float


@dataclass(frozen=True)
class Alarm:
    """Something that was told. told_s: when. to_s: its last evidence."""

    from_s: float
    told_s: float
    to_s: float


@dataclass(frozen=True)
class Counts:
    """Of one query, or of several added up. hours: without those in which it did happen. delays_s:
    of what was found, from onset to being told.
    """

    happened: int
    found: int
    false: int
    hours: float
    delays_s: tuple[float, ...]

    @property
    def recall(self) -> float:
        return self.found / self.happened if self.happened else math.nan

    @property
    def per_hour(self) -> float:
        return self.false / self.hours if self.hours else math.nan

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.happened + other.happened,
            self.found + other.found,
            self.false + other.false,
            self.hours + other.hours,
            (*self.delays_s, *other.delays_s),
        )


def count(
    alarms: Sequence[Alarm], spans: Sequence[Span], within_s: tuple[float, float], slack_s: float
) -> Counts:
    """One query's, of what begins in [within_s). spans: sorted by from_s. slack_s: how long after
    its end evidence may still hold what happened: a window's length.

    What happened is found by an alarm that starts in it or within the slack, or by one that was
    right when it started and is still open. Any other alarm is false, however long it lasts: one
    that stays open finds nothing.
    """
    found: dict[int, float] = {}
    false = 0
    for alarm in alarms:
        own = [
            i
            for i, span in enumerate(spans)
            if span.from_s - EARLY_S <= alarm.from_s <= span.to_s + slack_s
        ]
        if not own:
            false += 1
            continue
        later = (i for i, span in enumerate(spans) if alarm.from_s <= span.from_s <= alarm.to_s)
        for i in {*own, *later}:
            delay_s = max(0.0, alarm.told_s - spans[i].from_s)
            found[i] = min(found.get(i, math.inf), delay_s)
    begin_s, end_s = within_s
    begun = {i for i, span in enumerate(spans) if begin_s <= span.from_s < end_s}
    cut = [Span(max(s.from_s, begin_s), min(s.to_s + slack_s, end_s)) for s in spans]
    return Counts(
        len(begun),
        len(begun & found.keys()),
        false,
        (end_s - begin_s - _covered(cut)) / HOUR_S,
        tuple(found[i] for i in sorted(begun & found.keys())),
    )


def wilson_interval(found: int, of: int) -> tuple[float, float]:
    """95 % of a share (E. B. Wilson, JASA 22, 1927)."""
    if not of:
        return 0.0, 1.0
    share, over = found / of, Z * Z / of
    middle = (share + over / 2) / (1 + over)
    half = Z * math.sqrt(share * (1 - share) / of + over / of / 4) / (1 + over)
    return max(0.0, middle - half), min(1.0, middle + half)


def poisson_interval(events: int, hours: float) -> tuple[float, float]:
    """95 % of a rate an hour, exact (F. Garwood, Biometrika 28, 1936)."""
    if not hours:
        return 0.0, math.inf
    low = 0.0 if events == 0 else _mean_with(events - 1, 0.975)
    return low / hours, _mean_with(events, 0.025) / hours


def quantile(values: Sequence[float], share: float) -> float:
    """nan where there are none."""
    return float(np.quantile(values, share)) if values else math.nan


def total(counts: Mapping[str, Counts]) -> Counts:
    """Of all queries together."""
    whole = Counts(0, 0, 0, 0.0, ())
    for own in counts.values():
        whole = whole + own
    return whole


def _covered(spans: Sequence[Span]) -> float:
    """Seconds that lie in any of them, sorted by from_s."""
    seconds, until = 0.0, -math.inf
    for span in spans:
        seconds += max(0.0, span.to_s - max(span.from_s, until))
        until = max(until, span.to_s)
    return seconds


def _mean_with(events: int, share: float) -> float:
    """Mean of the Poisson distribution that has at most `events` with probability `share`."""
    low, high = 0.0, events + 10 * math.sqrt(events + 1) + 10
    ks = np.arange(events + 1)
    logs = np.cumsum(np.log(np.maximum(ks, 1)))
    for _ in range(60):
        mean = (low + high) / 2
        terms = ks * math.log(mean) - mean - logs
        below = float(np.exp(terms).sum())
        low, high = (mean, high) if below > share else (low, mean)
    return (low + high) / 2
