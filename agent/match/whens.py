"""The queries that say `when`: what the gates of their atoms tell, followed in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from agent.clock import from_s
from agent.match.gate import Transition
from agent.match.grammar import Atom, reach_ns
from agent.match.queries import Query
from agent.match.temporal import EVER, Follower, Track
from agent.wire import Evidence, QueryRef, Score

__all__ = ["KIND", "Whens"]

KIND = "when"
# What encoding and threads may take until the end of a window is heard of.
LATENCY_S = 0.5

_Key = tuple[str, str]


@dataclass
class _Heard:
    """What an atom said when it was strongest in its last event, and how far that went."""

    start_ns: int
    end_ns: int
    peak: float
    score: Score
    evidence: list[Evidence]


@dataclass(eq=False)
class _When:
    query: Query
    follower: Follower
    keys: Mapping[Atom, _Key]  # of the query that is each atom
    tracks: dict[Atom, Track]
    heard: dict[Atom, _Heard] = field(default_factory=dict)


class Whens:
    """All of them that are enabled. One thread; times in ns of the matcher's clock."""

    def __init__(
        self,
        queries: Sequence[Query],
        atoms: Mapping[str, Query],
        settle_ns: Mapping[_Key, int],
        free_ns: Mapping[str, int],
        before: Whens | None = None,
    ) -> None:
        """atoms: by Query.ref.id, those that are scored. settle_ns: by Query.key, how long after
        it begins an event of it may be told, but for LATENCY_S. free_ns: by Query.ref.id, the first
        time that no event of it has claimed, where there were any. before: what goes on unchanged
        is taken over.
        """
        self._now_ns: int = 0 if before is None else before._now_ns
        known = {} if before is None else {when.query.key: when for when in before._whens}
        self._whens: list[_When] = []
        for query in queries:
            assert query.node is not None
            keys = _keys(query, atoms)
            late = {atom: settle_ns[key] + from_s(LATENCY_S) for atom, key in keys.items()}
            old = known.get(query.key)
            if old is not None and old.keys == keys:
                for atom, track in old.tracks.items():
                    track.settle_ns = late[atom]
                self._whens.append(old)
            else:
                free = free_ns.get(query.ref.id, -EVER)
                follower = Follower(query.node, from_s(query.gate.update_s), free)
                tracks = {atom: Track(settle) for atom, settle in late.items()}
                self._whens.append(_When(query, follower, keys, tracks))
        self._names = {key for when in self._whens for key in when.keys.values()}

    def gone(self, queries: Sequence[Query], atoms: Mapping[str, Query]) -> list[_Key]:
        """Which of these do not go on as they are once there are `queries`, on `atoms`."""
        after = {query.key: _keys(query, atoms) for query in queries}
        return [w.query.key for w in self._whens if after.get(w.query.key) != w.keys]

    def names(self, key: _Key) -> bool:
        """Whether the query of `key` is an atom of one of them."""
        return key in self._names

    def hear(self, key: _Key, told: Transition, score: Score, evidence: list[Evidence]) -> None:
        """An atom's event, as it is told or as it stands."""
        for when in self._whens:
            for atom, own in when.keys.items():
                if own != key:
                    continue
                when.tracks[atom].tell(told)
                last = when.heard.get(atom)
                if last is None or last.start_ns != told.start_ns or last.peak < told.peak:
                    named = [msgspec.structs.replace(e, query=atom.name) for e in evidence]
                    ns = told.start_ns, told.end_ns
                    when.heard[atom] = _Heard(*ns, told.peak, score, named)
                else:
                    last.end_ns = told.end_ns

    def step(self, now_ns: int) -> list[tuple[Query, Transition]]:
        """What has become certain by now."""
        self._now_ns = max(self._now_ns, now_ns)
        return [
            (when.query, told)
            for when in self._whens
            for told in when.follower.step(self._now_ns, when.tracks)
        ]

    def close(self, key: _Key) -> Transition | None:
        """End what is open of one of them."""
        return next((w.follower.close() for w in self._whens if w.query.key == key), None)

    def keys(self) -> list[_Key]:
        return [when.query.key for when in self._whens]

    def refs(self) -> dict[_Key, QueryRef]:
        return {when.query.key: when.query.ref for when in self._whens}

    def says(self, key: _Key, told: Transition) -> tuple[Score, list[Evidence]]:
        """Of an event: its score, by the atom whose null is learned least, and what the atoms that
        it may rest on said when they were strongest.
        """
        when = next(when for when in self._whens if when.query.key == key)
        assert when.query.node is not None
        since_ns = told.start_ns - reach_ns(when.query.node)
        known = [when.heard[atom] for atom in when.keys if atom in when.heard]
        heard = [each for each in known if each.end_ns >= since_ns] or known
        least = min((h.score for h in heard), key=lambda score: score.quiet_hours)
        score = msgspec.structs.replace(
            least, kind=KIND, value=round(told.peak, 4), far_per_hour=None
        )
        return score, [evidence for h in heard for evidence in h.evidence]


def _keys(query: Query, atoms: Mapping[str, Query]) -> dict[Atom, _Key]:
    return {atom: atoms[query.id_of(atom)].key for atom in query.atoms}
