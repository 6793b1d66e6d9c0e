"""When what is planted in a log happens, and what every maker of planted streams needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVELS_DB", "Deck", "Float32Array", "Plant", "Planted", "Rng", "spread"]

Float32Array = NDArray[np.float32]
Rng = np.random.Generator
T = TypeVar("T")

LEVELS_DB = (6.0, 0.0, -6.0)  # of an event over what it is planted in


@dataclass(frozen=True)
class Planted:
    """A recording ready to be planted. kind: "" where nobody asks for it. data: float32 (n,) of
    sound, float32 (n, 6) of motion, uint8 (h, w, 3) of a picture. duration_s: how long it lasts.
    """

    kind: str
    recording: str
    data: NDArray[np.generic]
    duration_s: float


@dataclass(frozen=True)
class Plant:
    """One that happens, from `from_s` on, at `db` over its bed."""

    what: Planted
    from_s: float
    db: float

    @property
    def to_s(self) -> float:
        return self.from_s + self.what.duration_s


class Deck(Generic[T]):
    """Things in a random order, over and over: each comes as often as the others."""

    def __init__(self, items: Iterable[T], rng: Rng) -> None:
        own = list(items)
        self._turn: Iterator[T] = cycle([own[i] for i in rng.permutation(len(own))])

    def take(self, count: int) -> list[T]:
        return [next(self._turn) for _ in range(count)]


def spread(planted: Sequence[Planted], seconds: float, rng: Rng, gap_s: float = 1.0) -> list[Plant]:
    """All of them in a random order, `gap_s` apart at least, each louder or softer by turns.

    The last ones are left out where they do not fit. Pauses are as between events of a Poisson
    process: the spacings of uniform points.
    """
    turns = {kind: i for i, kind in enumerate(sorted({p.kind for p in planted}))}
    chosen: list[tuple[Planted, float]] = []
    left = seconds - gap_s
    for i in rng.permutation(len(planted)):
        what = planted[i]
        if what.duration_s + gap_s > left:
            break
        left -= what.duration_s + gap_s
        chosen.append((what, LEVELS_DB[turns[what.kind] % len(LEVELS_DB)]))
        turns[what.kind] += 1
    pauses = np.diff(np.sort(rng.uniform(0, left, len(chosen))), prepend=0.0)
    plants, at = [], 0.0
    for (what, db), pause in zip(chosen, pauses, strict=True):
        at += gap_s + float(pause)
        plants.append(Plant(what, at, db))
        at += what.duration_s
    return plants
