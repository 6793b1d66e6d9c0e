"""How often what is ordinary scores as high: a generalised Pareto tail over the highest peaks of z,
held to what was asked for by what it has told.

Peaks over a threshold (S. Coles, An Introduction to Statistical Modeling of Extreme Values, 2001,
chapter 4): of all queries on one stream at once, learned as the stream runs, in bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent.types import Array

__all__ = ["CLUSTER_S", "EXCESS", "FALSE_SHARE", "OVER_Z", "SHARE", "Rows", "Tail", "bank_tail"]

Float64Array = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.intp]

OVER_Z = 1.5  # peaks above this are kept: some 7 % of windows of normal noise are
CLUSTER_S = 2.0  # what is this close together is one peak, as it is one event to a gate
KEPT = 512  # peaks of a query and stream; in noise those of the last three hours or so
MEMORY_H = 2.0  # quiet hours of them that count
PRIOR_H = 0.25  # hours of the stream's own that weigh as much as the prior's rate
PRIOR_PEAKS = 20.0  # and peaks, as much as its mean excess
PRIOR_SHAPE = 50.0  # and peaks, as much as SHAPE
LEAST_SHAPE, MOST_SHAPE = -0.2, 0.4
SHAPE = 0.3  # of the tail, before any is seen: rather too heavy than too light
EXCESS = 0.5  # mean excess of peaks of correlated normal noise over OVER_Z
SHARE = 0.067  # of windows of normal noise over OVER_Z
BANK_Z = 4.0  # what a bank has above it is taken for what a query asks for

FALSE_SHARE = (
    1 / 1.75
)  # of what comes as high, taken to be false; the rest to be what was asked for
TOP = 26.0  # times the wanted rate: so many of the highest peaks make the tail
LEAST_TOP = 30
STEP = 0.3  # in ln(rate): what one alarm moves the rates by
LEAST_AHEAD, MOST_AHEAD = -2.0, 4.0
APART = 12.0  # e^-12 of the gaps in an exponential tail are as wide
BELOW = 20  # peaks that tell it
LEAST_CLEAR = 3
CLEAR_PER_HOUR = 12.0
CLEAR_STEP = STEP / 4


class Tail:
    """Of `n` queries on one stream with a window every `hop_s`. Arrays are (n,).

    The exceedances of z over OVER_Z are declustered by runs (Coles 2001, 5.3.2; C. A. T. Ferro and
    J. Segers, JRSS B 65(2), 2003, on why: overlapping windows say one thing several times): a
    cluster ends after CLUSTER_S of quiet windows and leaves its peak. Of those of the last
    MEMORY_H the highest, TOP times as many as are wanted, give a generalised Pareto distribution by
    probability-weighted moments (J. R. M. Hosking and J. R. Wallis, Technometrics 29(3), 1987):
    noise that comes a hundred times an hour says little of the sounds of a street. Its shape is
    shrunk by counts towards SHAPE, and not towards that of the stream's other queries, for to ask
    one thing more is to change nothing of another; its mean excess towards the prior's; and the
    rate of clusters, as a Poisson's with a conjugate Gamma prior:
    (clusters + prior rate * PRIOR_H) / (hours + PRIOR_H).

    What opened an event may be a false alarm or what was asked for; nothing tells which. Leaving
    it out would cut the tail off, upon which the threshold would sink, alarm by alarm. So all of it
    is taken in, FALSE_SHARE of what comes as high is taken to be false, and the rates are held to
    what they promise by `ahead`: each alarm adds STEP to their logarithm, and each hour takes off
    as much as the alarms of an hour should have added. However wrong the tail is, the long run has
    as many alarms as that (I. Gibbs and E. Candes, Adaptive conformal inference, NeurIPS 2021;
    A. N. Angelopoulos et al., Conformal PID control, NeurIPS 2023).

    Only what stands apart is taken for what was asked for: the highest peaks, LEAST_CLEAR or more
    and at most CLEAR_PER_HOUR, where the gap under them, times their number, is APART times what
    that is on average for the next BELOW. In an exponential tail that product is exponential too,
    and of one scale (A. Renyi, Acta Math. Hung. 4, 1953). They are left out of the tail and add
    CLEAR_STEP, so that what is frequent and clear goes on being told.
    """

    LEARNED = (
        "hours", "since", "peak", "gap", "alarm", "ahead", "excesses", "when", "count",
        "clusters", "top", "base", "edge", "raw", "mean", "prior_rate", "prior_excess",
    )  # fmt: skip

    def __init__(self, hop_s: float, share: Float64Array, excess: Float64Array) -> None:
        """share: prior share of windows over OVER_Z; excess: prior mean excess, in z."""
        n = len(share)
        self._hour = hop_s / 3600
        self._run = max(2, math.ceil(CLUSTER_S / hop_s))
        self._noise = SHARE / self._run / self._hour
        self.prior_rate = share / self._run / self._hour
        self.prior_excess = excess
        self.hours = np.zeros(n)  # quiet ones
        self.since = np.zeros(n)  # of them: when what counts began
        self.peak = np.full(n, -np.inf)
        self.gap = np.zeros(n, np.int64)
        self.alarm = np.zeros(n, bool)
        self.ahead = np.zeros(n)
        self.excesses = np.zeros((n, KEPT), np.float32)
        self.when = np.zeros((n, KEPT), np.float32)  # of each, in quiet hours
        self.count = np.zeros(n, np.int64)
        self.clusters = self.prior_rate * PRIOR_H  # over `base`, the prior's among them
        self.top = np.zeros(n, np.int64)  # of which so many are its own
        self.base = np.zeros(n)  # over OVER_Z: where the tail begins
        self.edge = np.full(n, np.inf)  # z over which what comes stands apart
        self.raw = np.zeros(n)  # shape of its own peaks alone
        self.mean = np.zeros(n)
        self.shape = np.zeros(n)
        self.scale = np.zeros(n)
        self._shrink(np.arange(n))

    @property
    def rate(self) -> Float64Array:
        """False alarms an hour over where the tail begins."""
        return self._rate(slice(None))

    @property
    def confidence(self) -> Float64Array:
        """0..1: the stream's own weight in `rate`, where the rest is the prior's."""
        share: Float64Array = self.hours / (self.hours + PRIOR_H)
        return share

    def confidence_of(self, row: int) -> float:
        """`confidence` of one query."""
        hours = float(self.hours[row])
        return hours / (hours + PRIOR_H)

    def per_hour(self, z: Float64Array) -> Float64Array:
        """False alarms an hour that a threshold at `z` would give, at most one a window.

        Below where the tail begins it is continued as an exponential one, and nothing below OVER_Z
        is rarer than in noise.
        """
        y = (z - OVER_Z - self.base) / self.scale
        inside = np.maximum(1 + self.shape * np.maximum(y, 0.0), 1e-12)
        straight = np.abs(self.shape) < 1e-9
        curved = np.where(straight, y, np.log(inside) / np.where(straight, 1.0, self.shape))
        exponent = np.where(y > 0, curved, y)
        rate: Float64Array = self.rate * np.exp(-np.clip(exponent, -50.0, 200.0))
        rate = np.where(z < OVER_Z, np.maximum(rate, self._noise), rate)
        return np.minimum(rate, 1 / self._hour)

    def level(self, per_hour: Float64Array, rows: Any = slice(None)) -> Float64Array:
        """z of a threshold that gives at most `per_hour` false alarms, > 0: the inverse of that.

        Of `rows` alone, where they are given; `per_hour` is then of them.
        """
        times = np.log(self._rate(rows) / per_hour)
        curved = np.where(times > 0, _curved(times, self.shape[rows]), times)
        level: Float64Array = OVER_Z + self.base[rows] + self.scale[rows] * curved
        return np.where(per_hour < self._noise, np.maximum(level, OVER_Z), level)

    def learn(
        self,
        z: Float64Array,
        quiet: NDArray[np.bool_],
        wanted: Float64Array,
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        """One window. quiet: no event of the query is open; wanted: false alarms an hour, > 0.
        known: what is asked for is known to be there, so that nothing of its height is ordinary.
        """
        if known is not None:
            z = np.where(known, -np.inf, z)
        self.hours += self._hour * quiet
        told = wanted / FALSE_SHARE * self._hour * quiet
        self.ahead = np.maximum(self.ahead - STEP * told, LEAST_AHEAD)
        self.alarm |= ~quiet
        over = z > OVER_Z
        self.peak = np.where(over, np.maximum(self.peak, z), self.peak)
        self.gap = np.where(over | ~quiet, 0, self.gap + 1)
        ended = np.flatnonzero((self.peak > -np.inf) & (self.gap >= self._run))
        if len(ended):
            self._take(ended, wanted[ended])

    def learned(self) -> dict[str, Array]:
        """All that it has, by name; (n,) or (n, KEPT), its own and not to be written to."""
        return {name: getattr(self, name) for name in self.LEARNED}

    def take(self, learned: Mapping[str, Array], here: Rows, there: Rows) -> None:
        """Of what another has `learned`, its queries `there` for those `here`."""
        for name in self.LEARNED:
            getattr(self, name)[here] = learned[name][there]
        self._shrink(np.atleast_1d(here))

    def _rate(self, rows: Any) -> Float64Array:
        hours = self.hours[rows] - self.since[rows] + PRIOR_H
        rate: Float64Array = FALSE_SHARE * self.clusters[rows] / hours * np.exp(self.ahead[rows])
        return rate

    def _take(self, ended: Rows, wanted: Float64Array) -> None:
        """The peaks of clusters that are over."""
        peaks, alarm = self.peak[ended], self.alarm[ended]
        self.peak[ended], self.alarm[ended] = -np.inf, False
        clear = alarm & (peaks > self.edge[ended])
        step = np.where(clear, CLEAR_STEP, STEP) * alarm
        self.ahead[ended] = np.minimum(self.ahead[ended] + step, MOST_AHEAD)
        place = self.count[ended] % KEPT
        self.excesses[ended, place] = peaks - OVER_Z
        self.when[ended, place] = self.hours[ended]
        self.count[ended] += 1
        self._fit(ended, wanted)

    def _fit(self, rows: Rows, wanted: Float64Array) -> None:
        """Probability-weighted moments, with the plotting positions (i - 0.35) / m of Hosking and
        Wallis 1987.
        """
        place = np.arange(KEPT)
        when, count = self.when[rows], self.count[rows]
        kept = place < np.minimum(count, KEPT)[:, np.newaxis]
        oldest = np.where(count > KEPT, when.min(axis=1), 0.0)
        since = np.maximum(self.hours[rows] - MEMORY_H, oldest)
        used = kept & (when >= since[:, np.newaxis])
        n = used.sum(axis=1)
        falling = -np.sort(np.where(used, -self.excesses[rows], 0.0), axis=1).astype(np.float64)
        hours = self.hours[rows] - since + PRIOR_H
        clear = self._clear(falling, n, CLEAR_PER_HOUR * hours)
        each = np.arange(len(rows))
        edge = (falling[each, clear - 1] + falling[each, clear]) / 2 + OVER_Z
        self.edge[rows] = np.where(clear > 0, edge, np.inf)
        falling = np.take_along_axis(falling, np.minimum(place + clear[:, np.newaxis], KEPT - 1), 1)
        n = n - clear
        most = np.maximum(TOP * wanted * hours, LEAST_TOP)
        top = np.minimum(most, n).astype(np.int64)
        below = falling[each, np.minimum(top, KEPT - 1)]
        base = np.where(top < n, below, 0.0)
        excess = np.where(place < top[:, np.newaxis], falling - base[:, np.newaxis], 0.0)
        mean = excess.sum(axis=1) / top
        lower = (excess * (place + 0.35)).sum(axis=1) / top**2
        # One or two peaks have no shape, and any number of equal ones has none that is bounded.
        raw = 2 - mean / np.maximum(mean - 2 * lower, 1e-6)
        self.raw[rows], self.mean[rows] = np.clip(raw, -1.0, 1.0), mean
        self.since[rows], self.top[rows], self.base[rows] = since, top, base
        self.clusters[rows] = (n + self.prior_rate[rows] * PRIOR_H) * top / n
        self._shrink(rows)

    def _clear(
        self, falling: Float64Array, n: NDArray[np.int64], most: Float64Array
    ) -> NDArray[np.int64]:
        """How many of the highest peaks stand apart from all others."""
        rank = np.arange(1, KEPT)
        spacing = (falling[:, :-1] - falling[:, 1:]) * rank
        total = np.cumsum(spacing, axis=1)
        ahead = np.minimum(rank - 1 + BELOW, KEPT - 2)
        local = (total[:, ahead] - total) / BELOW
        apart = spacing / np.maximum(local, 1e-6)
        apart = np.where((rank >= LEAST_CLEAR) & (rank <= most[:, np.newaxis]), apart, 0.0)
        apart = np.where(rank + BELOW < n[:, np.newaxis], apart, 0.0)
        found = apart.argmax(axis=1)
        high = apart[np.arange(len(found)), found] > APART
        return np.where(high, found + 1, 0)

    def _shrink(self, rows: Rows) -> None:
        own = self.top[rows]
        shape = (own * self.raw[rows] + PRIOR_SHAPE * SHAPE) / (own + PRIOR_SHAPE)
        shape = np.clip(shape, LEAST_SHAPE, MOST_SHAPE)
        prior = PRIOR_PEAKS * self.prior_excess[rows]
        mean = (own * self.mean[rows] + prior) / (own + PRIOR_PEAKS)
        self.shape[rows] = shape
        self.scale[rows] = np.maximum(mean * (1 - shape), 1e-3)  # mean = scale / (1 - shape)


def bank_tail(z: Float64Array) -> tuple[float, float]:
    """Share over OVER_Z and mean excess, of z (n,) of n independent pieces of ordinary input.

    Shrunk towards normal noise as Tail is towards this. What is over BANK_Z is left out.
    """
    over = z[(z > OVER_Z) & (z < BANK_Z)] - OVER_Z
    share = (len(over) + SHARE * PRIOR_PEAKS) / (len(z) + PRIOR_PEAKS)
    return share, float((over.sum() + EXCESS * PRIOR_PEAKS) / (len(over) + PRIOR_PEAKS))


def _curved(times: Float64Array, shape: Float64Array) -> Float64Array:
    """(exp(shape * times) - 1) / shape, and its limit `times` where shape is 0."""
    straight = np.abs(shape) < 1e-9
    curved: Float64Array = np.expm1(shape * times) / np.where(straight, 1.0, shape)
    return np.where(straight, times, curved)
