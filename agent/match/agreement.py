"""Whether each stream still answers what streams of other senses find, as it used to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agent.clock import from_s
from agent.match.tail import Rows
from agent.types import StreamInfo

__all__ = ["Agreement", "BoolArray", "Float64Array", "Key"]

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Key = tuple[str, str]
_Times = tuple[float, float]  # answered, of so many

FINDS_PER_HOUR = 1.0  # a stream has found something where as high comes no oftener by chance
ANSWERS_Z = 1.5  # another has answered where it is over this
WITHIN_S = 3.0  # of it, before or after
CHANCE = 0.15  # of such an answer to nothing, at first
LEAST_CHANCE, MOST_CHANCE = 0.01, 0.5
PRIOR_SPANS = 10.0  # of 2 WITHIN_S that weigh as much as that
PRIOR_TIMES = 10.0  # that weigh as much as that all are answered by chance, and one as all are
MEMORY = 100.0  # of times, and ten times as many spans
MOST_SURE = 0.95  # that anything is answered
TELL = math.log(1000.0)  # the evidence: one that works comes to it once in 1000 times or so


@dataclass
class _Stream:
    info: StreamInfo
    may: BoolArray = field(default_factory=lambda: np.zeros(0, bool))
    answers: deque[tuple[int, BoolArray]] = field(default_factory=deque)
    chance: float = CHANCE
    spans: float = PRIOR_SPANS
    span_ns: int = 0  # when the present one began
    hit: BoolArray = field(default_factory=lambda: np.zeros(0, bool))
    found_ns: int | None = None  # when what it has found, and is waited for, began
    found: BoolArray = field(default_factory=lambda: np.zeros(0, bool))
    high_ns: int | None = None  # when any was last as high


@dataclass
class _Pair:
    """What one stream has answered of another's. times: by query, and of all.

    evidence: that it has stopped. The rest is since that was last none.
    """

    times: dict[Key, _Times] = field(default_factory=dict)
    all_times: _Times = (0.0, 0.0)
    evidence: float = 0.0
    told: bool = False
    answered: int = 0
    asked: int = 0
    expected: float = 0.0


class Agreement:
    """Of the queries asked, told the z of each new embedding.

    Where one stream alone is so high that it comes FINDS_PER_HOUR at most by chance, each stream of
    another sense that may answer the query either answers within WITHIN_S or not. How often it
    does, p, is learned by query, from a Beta prior whose mean is how often it does for any query,
    and that from one whose mean is p0, how often it is as high at any time. Evidence that it has
    stopped is a cumulative sum of ln(P(this | p0) / P(this | p)), held above 0 (E. S. Page,
    Continuous inspection schemes, Biometrika 41, 1954): it is told at TELL, which a stream that
    works as before reaches once in e^TELL times or more, and no longer at half of it. Where senses
    never agreed p is p0, and nothing is said.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._keys: Sequence[Key] = ()

    def add_stream(self, info: StreamInfo) -> None:
        self._streams.setdefault(info.name, _Stream(info))

    def ask(self, keys: Sequence[Key]) -> None:
        """The queries, row by row, from now on; what was learned of those that stay is kept."""
        self._keys, known = keys, set(keys)
        for pair in self._pairs.values():
            pair.times = {key: each for key, each in pair.times.items() if key in known}
        for stream in self._streams.values():
            stream.answers.clear()
            stream.found_ns = None
            stream.may = stream.hit = np.zeros(len(keys), bool)

    def observe(
        self, name: str, end_ns: int, z: Float64Array, per_hour: Float64Array, may: BoolArray
    ) -> None:
        """The newest of stream `name`; z, per_hour (false alarms as high), may: (rows,)."""
        stream, within_ns = self._streams[name], from_s(WITHIN_S)
        for other in self._streams.values():
            # The others' windows of that time may come later.
            if other.found_ns is not None and end_ns >= other.found_ns + 2 * within_ns:
                self._settle(other)
        answers = (z > ANSWERS_Z) & may
        self._learn_chance(stream, end_ns, answers)
        stream.may = may
        stream.answers.append((end_ns, answers))
        while end_ns - stream.answers[0][0] > 4 * within_ns:
            stream.answers.popleft()
        high = (per_hour <= FINDS_PER_HOUR) & may
        if not high.any():
            return
        if stream.high_ns is None or end_ns - stream.high_ns > 2 * within_ns:
            stream.found_ns, stream.found = end_ns, high
        elif stream.found_ns is not None and end_ns - stream.found_ns <= within_ns:
            stream.found |= high
        stream.high_ns = end_ns

    def doubts(self) -> dict[str, str]:
        """By stream, one sentence of those that have stopped to answer."""
        told = sorted(
            (pair.evidence, other, finder)
            for (finder, other), pair in self._pairs.items()
            if pair.told
        )
        sentences = {}
        for _, other, finder in told:  # the strongest last
            pair = self._pairs[finder, other]
            sentences[other] = (
                f"answered {pair.answered} of the last {pair.asked} times that {finder} found "
                f"something, {pair.expected:.0f} were to be expected: is it covered, turned away "
                "or dead?"
            )
        return sentences

    def _learn_chance(self, stream: _Stream, end_ns: int, answers: BoolArray) -> None:
        if end_ns - stream.span_ns >= 2 * from_s(WITHIN_S):
            if stream.may.any():
                stream.spans = min(stream.spans + 1, 10 * MEMORY)
                share = float(stream.hit[stream.may].mean())
                stream.chance += (share - stream.chance) / stream.spans
            stream.span_ns, stream.hit = end_ns, np.zeros(len(answers), bool)
        stream.hit = stream.hit | answers

    def _settle(self, finder: _Stream) -> None:
        """What it found some time ago has been answered, or it has not."""
        found_ns, finder.found_ns = finder.found_ns, None
        assert found_ns is not None
        for name, other in self._streams.items():
            if other.info.modality == finder.info.modality:
                continue
            near = [
                answers
                for end_ns, answers in other.answers
                if abs(end_ns - found_ns) <= from_s(WITHIN_S)
            ]
            rows = np.flatnonzero(finder.found & other.may)
            if near and len(rows):
                pair = self._pairs.setdefault((finder.info.name, name), _Pair())
                self._count(pair, rows, np.any(near, axis=0), other.chance)

    def _count(self, pair: _Pair, rows: Rows, answered: BoolArray, chance: float) -> None:
        chance = min(max(chance, LEAST_CHANCE), MOST_CHANCE)
        sure = [self._sure(pair, self._keys[row], chance) for row in rows.tolist()]
        best = int(np.argmax(sure))
        # One moment is one time, however many queries it answers: that which tells most.
        p, yes = sure[best], bool(answered[rows[best]])
        pair.asked += 1
        pair.answered += yes
        pair.expected += p
        pair.evidence += math.log(chance / p) if yes else math.log((1 - chance) / (1 - p))
        pair.evidence = min(pair.evidence, TELL)
        pair.told = pair.evidence >= TELL or (pair.told and pair.evidence > TELL / 2)
        if pair.evidence <= 0:
            pair.evidence, pair.asked, pair.answered, pair.expected = 0.0, 0, 0, 0.0
        if pair.told:
            return
        for row in rows.tolist():
            key, yes = self._keys[row], bool(answered[row])
            pair.times[key] = _one_more(pair.times.get(key, (0.0, 0.0)), yes)
            pair.all_times = _one_more(pair.all_times, yes)

    def _sure(self, pair: _Pair, key: Key, chance: float) -> float:
        """How likely an answer is; no less than by chance."""
        p = chance
        for got, times in (pair.all_times, pair.times.get(key, (0.0, 0.0))):
            p = (got + PRIOR_TIMES * p) / (times + PRIOR_TIMES)
        return min(max(p, chance), MOST_SURE)


def _one_more(times: _Times, answered: bool) -> _Times:
    got, count = times
    keep = min(1.0, (MEMORY - 1) / count) if count else 1.0
    return got * keep + answered, count * keep + 1
