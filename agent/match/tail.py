"""How often what is ordinary scores as high: a generalised Pareto tail over peaks of z.

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

__all__ = ["EXCESS", "OVER_Z", "SHARE", "Rows", "Tail", "bank_tail"]

Float64Array = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.intp]

OVER_Z = 1.5  # peaks above this are kept: some 7 % of windows of normal noise are
CLUSTER_S = 2.0  # what is this close together is one peak, as it is one event to a gate
KEPT = 512  # peaks of a query and stream; in noise those of the last three hours or so
MEMORY_H = 4.0  # of the rate of clusters
PRIOR_H = 0.25  # hours of the stream's own that weigh as much as the prior's rate
PRIOR_PEAKS = 20.0  # and peaks, as much as its mean excess
PRIOR_SHAPE = 50.0  # and peaks, as much as SHAPE
LEAST_SHAPE, MOST_SHAPE = -0.2, 0.4
SHAPE = 0.1  # of the tail, before any is seen: rather too heavy than too light
# A rate is convex in the errors of scale and shape: without it simulated streams gave 1.2 to 1.6
# of the wanted rate, be their tails light or heavy.
MARGIN = 1.35
EXCESS = 0.5  # mean excess of peaks of correlated normal noise over OVER_Z
SHARE = 0.067  # of windows of normal noise over OVER_Z
BANK_Z = 4.0  # what a bank has above it is taken for what a query asks for
RARE = 0.1  # of the wanted rate: what is so rare is taken for what was asked for
OFTEN = 1.5  # times the wanted rate: so many alarms are taken in, at most
CREDIT = 1.5  # of them at once, at most
LEAST_CONFIDENCE = 0.02  # before much is seen more is taken in, so much more at most
GOLDEN = 0.6180339887498949  # multiples of it fill 0..1 evenly (Weyl)


class Tail:
    """Of `n` queries on one stream with a window every `hop_s`. Arrays are (n,).

    The exceedances of z over OVER_Z are declustered by runs (Coles 2001, 5.3.2; C. A. T. Ferro and
    J. Segers, JRSS B 65(2), 2003, on why: overlapping windows say one thing several times): a
    cluster ends after CLUSTER_S of quiet windows and leaves its peak. The excesses of the last
    KEPT peaks give a generalised Pareto distribution by probability-weighted moments (J. R. M.
    Hosking and J. R. Wallis, Technometrics 29(3), 1987). Its shape is shrunk by counts towards
    SHAPE, and not towards that of the stream's other queries, for to ask one thing more is to
    change nothing of another; its mean excess towards the prior's; and the rate of clusters, as a
    Poisson's with a conjugate Gamma prior: (clusters + prior rate * PRIOR_H) / (hours + PRIOR_H).

    What opened an event may be a false alarm or what was asked for. Leaving all of them out would
    cut the tail off, upon which the threshold would sink, alarm by alarm; taking all in would make
    what was asked for ordinary. So one is taken in where the tail makes it likely, at RARE times
    the wanted rate or more often, and OFTEN times the wanted rate an hour at most. Beyond that the
    model is taken at its word: of as many as it expects, and of the sizes that it expects.
    """

    LEARNED = (
        "hours", "clusters", "peak", "gap", "alarm", "credit", "beyond",
        "excesses", "count", "raw", "mean", "prior_rate", "prior_excess",
    )  # fmt: skip

    def __init__(self, hop_s: float, share: Float64Array, excess: Float64Array) -> None:
        """share: prior share of windows over OVER_Z; excess: prior mean excess, in z."""
        n = len(share)
        self._hour = hop_s / 3600
        self._run = max(2, math.ceil(CLUSTER_S / hop_s))
        self.prior_rate = share / self._run / self._hour
        self.prior_excess = excess
        self.hours = np.zeros(n)
        self.clusters = np.zeros(n)
        self.peak = np.full(n, -np.inf)
        self.gap = np.zeros(n, np.int64)
        self.alarm = np.zeros(n, bool)
        self.credit = np.full(n, CREDIT)
        self.beyond = np.zeros(n)
        self.excesses = np.zeros((n, KEPT), np.float32)
        self.count = np.zeros(n, np.int64)
        self.raw = np.zeros(n)  # shape of its own peaks alone
        self.mean = np.zeros(n)
        self.shape = np.zeros(n)
        self.scale = np.zeros(n)
        self._shrink(np.arange(n))

    @property
    def rate(self) -> Float64Array:
        """Clusters an hour over OVER_Z, with a margin."""
        own = self.clusters + self.prior_rate * PRIOR_H
        rate: Float64Array = MARGIN * own / (self.hours + PRIOR_H)
        return rate

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

        Below OVER_Z the tail is continued as an exponential one.
        """
        y = (z - OVER_Z) / self.scale
        inside = np.maximum(1 + self.shape * np.maximum(y, 0.0), 1e-12)
        straight = np.abs(self.shape) < 1e-9
        curved = np.where(straight, y, np.log(inside) / np.where(straight, 1.0, self.shape))
        exponent = np.where(y > 0, curved, y)
        rate: Float64Array = self.rate * np.exp(-np.clip(exponent, -50.0, 200.0))
        return np.minimum(rate, 1 / self._hour)

    def level(self, per_hour: Float64Array, rows: Any = slice(None)) -> Float64Array:
        """z of a threshold that gives `per_hour` false alarms, > 0: the inverse of `per_hour`.

        Of `rows` alone, where they are given; `per_hour` is then of them.
        """
        times = np.log(self.rate[rows] / per_hour)
        curved = np.where(times > 0, _curved(times, self.shape[rows]), times)
        level: Float64Array = OVER_Z + self.scale[rows] * curved
        return level

    def learn(self, z: Float64Array, quiet: NDArray[np.bool_], wanted: Float64Array) -> None:
        """One window. quiet: no event of the query is open; wanted: false alarms an hour, > 0."""
        keep = 1 - self._hour / MEMORY_H
        self.hours = np.where(quiet, self.hours * keep + self._hour, self.hours)
        self.clusters = np.where(quiet, self.clusters * keep, self.clusters)
        hour = wanted * self._hour * quiet
        often = OFTEN * hour / np.maximum(self.confidence, LEAST_CONFIDENCE)
        self.credit = np.minimum(self.credit + often, CREDIT)
        self.beyond = np.minimum(self.beyond + RARE * hour, 1.0 + RARE)
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

    def _take(self, ended: NDArray[np.intp], wanted: Float64Array) -> None:
        """The peaks of clusters that are over."""
        peaks, alarm = self.peak[ended], self.alarm[ended]
        self.peak[ended], self.alarm[ended] = -np.inf, False
        sure = np.maximum(self.confidence[ended], LEAST_CONFIDENCE)
        limit = self.level(RARE * wanted * sure, ended)
        rare = alarm & (peaks > limit)
        plain = alarm & ~rare
        taken = np.where(rare, self.beyond[ended] >= 1, ~alarm | (self.credit[ended] >= 1))
        self.beyond[ended] -= rare & taken
        self.credit[ended] -= plain & taken
        rows = ended[taken]
        if not len(rows):
            return
        # As the model has the peaks over `limit`: their excess is generalised Pareto again, of the
        # same shape and a scale that grows with the level (Coles 2001, 4.2).
        part = self.count[rows] * GOLDEN % 1 * 0.98 + 0.01
        level = np.maximum(limit[taken] - OVER_Z, 0.0)
        shape = self.shape[rows]
        scale = np.maximum(self.scale[rows] + shape * level, 1e-3)
        above = _curved(-np.log1p(-part), shape)
        excess = np.where(rare[taken], level + scale * above, peaks[taken] - OVER_Z)
        self.excesses[rows, self.count[rows] % KEPT] = excess
        self.count[rows] += 1
        self.clusters[rows] += 1
        self._fit(rows)

    def _fit(self, rows: NDArray[np.intp]) -> None:
        """Probability-weighted moments, with the plotting positions (i - 0.35) / m of Hosking and
        Wallis 1987.
        """
        kept = np.minimum(self.count[rows], KEPT)[:, np.newaxis]
        place = np.arange(KEPT)
        used = place < kept
        excesses = np.sort(np.where(used, self.excesses[rows], np.inf), axis=1)
        excesses = np.where(used, excesses, 0.0).astype(np.float64)
        mean = excesses.sum(axis=1) / kept[:, 0]
        lower = (excesses * (1 - (place + 0.65) / kept)).sum(axis=1) / kept[:, 0]
        # One or two peaks have no shape, and any number of equal ones has none that is bounded.
        raw = 2 - mean / np.maximum(mean - 2 * lower, 1e-6)
        self.raw[rows] = np.clip(raw, -1.0, 1.0)
        self.mean[rows] = mean
        self._shrink(rows)

    def _shrink(self, rows: NDArray[np.intp]) -> None:
        own = np.minimum(self.count[rows], KEPT)
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
