"""`when` against a brute force over every instant, told in any order that threads may have."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.match.gate import Transition
from agent.match.grammar import And, Atom, For, Node, Or, Then, Unless, atoms_of
from agent.match.temporal import Follower, Known, Span, Track, evaluate

LAST = 60  # instants
SETTLE, HOLD = 4, 3
NAMES = "abc"

Interval = tuple[int, int]  # first and last instant


def runs(on: set[int]) -> list[Interval]:
    """First and last of each stretch of consecutive instants."""
    starts = sorted(t for t in on if t - 1 not in on)
    ends = sorted(t for t in on if t + 1 not in on)
    return list(zip(starts, ends, strict=True))


def brute(node: Node, atoms: dict[str, set[int]]) -> set[int]:
    """The instants at which `node` is true, straight from what agent/match/grammar.py says."""
    if isinstance(node, Atom):
        return atoms[node.name]
    if isinstance(node, For):
        on = brute(node.inner, atoms)
        return {t for t in on if all(u in on for u in range(t - node.least_ns, t))}
    left, right = brute(node.left, atoms), brute(node.right, atoms)
    if isinstance(node, Or):
        return left | right
    within = node.within_ns
    if isinstance(node, And):
        return {t for t in left if any(t - w in right for w in range(within + 1))} | {
            t for t in right if any(t - w in left for w in range(within + 1))
        }
    if isinstance(node, Unless):
        return {t for t in left if all(t + w not in right for w in range(-within, within + 1))}
    return {
        t
        for start, end in runs(right)
        if any(first < start <= last + within for first, last in runs(left))
        for t in range(start, end + 1)
    }


intervals = st.lists(st.integers(1, 6), max_size=8).map(
    # Steps of time between one beginning, its end, the next beginning, and so on.
    lambda steps: [
        (10 + sum(steps[: n + 1]), 10 + sum(steps[: n + 2]) - 1)
        for n in range(0, len(steps) - 1, 2)
    ]
)
worlds = st.fixed_dictionaries(dict.fromkeys(NAMES, intervals))
within = st.integers(0, 5)
some = st.integers(1, 5)
nodes: st.SearchStrategy[Node] = st.recursive(
    st.sampled_from(NAMES).map(Atom),
    lambda inner: st.one_of(
        st.builds(Or, inner, inner),
        st.builds(And, inner, inner, within),
        st.builds(Then, inner, inner, some),
        st.builds(Unless, inner, inner, within),
        st.builds(For, inner, some),
    ),
    max_leaves=4,
)


def instants(world: dict[str, list[Interval]]) -> dict[str, set[int]]:
    return {n: {t for a, b in own for t in range(a, b + 1)} for n, own in world.items()}


@given(node=nodes, world=worlds)
@settings(max_examples=300)
def test_what_is_true_when_all_is_known(node: Node, world: dict[str, list[Interval]]) -> None:
    known = {}
    for atom in set(atoms_of(node)):
        spans = [Span(a, b + 1, 0.5) for a, b in runs(instants(world)[atom.name])]
        known[atom] = Known(spans, spans)
    got = evaluate(node, known)
    expected = [(a, b + 1) for a, b in runs(brute(node, instants(world)))]
    assert [(s.start, s.end) for s in got.sure] == expected
    assert [(s.start, s.end) for s in got.may] == expected


@dataclass(frozen=True)
class Told:
    """A transition of an atom's gate, and when it is told."""

    at: int
    atom: str
    transition: Transition


def story(world: dict[str, list[Interval]], seed: int) -> list[Told]:
    """What the gates tell of `world`: each start late by less than SETTLE, ends after HOLD, and
    atoms in any order at any one time.
    """
    rng = random.Random(seed)
    out = []
    for name, own in world.items():
        free = 0
        for start, end in runs({t for a, b in own for t in range(a, b + 1)}):
            begins = max(start + rng.randrange(SETTLE), free)
            ends = max(end + 1 + rng.randrange(HOLD), begins)
            out.append(Told(begins, name, Transition("start", start, min(begins, end), 0.5)))
            out += [
                Told(t, name, Transition("update", start, min(t, end), 0.6))
                for t in range(begins + 1, ends)
                if rng.random() < 0.7
            ]
            out.append(Told(ends, name, Transition("end", start, end, 0.6)))
            free = ends
    order = {id(told): n for n, told in enumerate(out)}
    shuffled = {name: rng.random() for name in world}
    return sorted(out, key=lambda told: (told.at, shuffled[told.atom], order[id(told)]))


def follow(node: Node, told: list[Told], seed: int) -> list[Transition]:
    rng = random.Random(seed)
    tracks = {atom: Track(SETTLE) for atom in set(atoms_of(node))}
    follower = Follower(node, 1)
    out: list[Transition] = []
    for now in range(LAST + 40):
        for each in (each for each in told if each.at == now):
            for atom, track in tracks.items():
                if atom.name == each.atom:
                    track.tell(each.transition)
            if rng.random() < 0.5:  # looked at between two of the same time, too
                out += follower.step(now, tracks)
        if rng.random() < 0.8:
            out += follower.step(now, tracks)
    return out + follower.step(LAST + 41, tracks)


def whole(told: list[Transition]) -> list[Interval]:
    """(start, end) of each event, having checked that they are start, updates and one end."""
    events, open_ = [], None
    for each in told:
        assert each.start_ns <= each.end_ns
        if each.phase == "start":
            assert open_ is None
            assert not events or each.start_ns > events[-1][1], "no two share an instant"
        else:
            assert open_ is not None
            assert each.start_ns == open_.start_ns
            assert each.end_ns >= open_.end_ns
        open_ = None if each.phase == "end" else each
        if each.phase == "end":
            events.append((each.start_ns, each.end_ns))
    assert open_ is None
    return events


@example(  # what may begin right after the end of what surely was
    node=Unless(Atom("b"), Then(Atom("b"), Atom("b"), 2), 2),
    world={"a": [], "b": [(11, 11), (13, 13)], "c": []},
    seeds=(25, 0),
)
@example(  # what goes on hangs on where it began, be that forgotten or not
    node=Then(Atom("b"), And(Atom("b"), Atom("c"), 2), 1),
    world={"a": [], "b": [(11, 11), (13, 13), (15, 16)], "c": [(11, 11), (14, 14)]},
    seeds=(0, 0),
)
@given(node=nodes, world=worlds, seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)))
@settings(max_examples=400, deadline=None)
def test_events_are_the_brute_forces_in_whatever_order_they_are_told(
    node: Node, world: dict[str, list[Interval]], seeds: tuple[int, int]
) -> None:
    expected = runs(brute(node, instants(world)))
    first, second = (whole(follow(node, story(world, seed), seed)) for seed in seeds)
    assert first == second == expected


def test_a_start_is_told_at_once_where_nothing_may_come_before_it() -> None:
    """`then`, `and` and `for` do not wait; `or` waits for the other, `unless` for what may be."""
    a, b = Atom("a"), Atom("b")
    begins = {}
    for node in (Then(a, b, 5), And(a, b), For(b, 2), Or(a, b), Unless(b, a, 3)):
        tracks = {atom: Track(SETTLE) for atom in set(atoms_of(node))}
        if a in tracks:
            tracks[a].tell(Transition("start", 10, 12, 0.9))
            if not isinstance(node, And):
                tracks[a].tell(Transition("end", 10, 12, 0.9))
        follower = Follower(node, 1)
        for now in range(18, 40):
            for atom in tracks:
                if atom == b or isinstance(node, And):
                    tracks[atom].tell(Transition("update", 10 if atom == a else 17, now, 0.8))
            told = follower.step(now, tracks)
            if told and told[-1].end_ns >= 17:
                begins[type(node)] = now
                break
    assert begins == {Then: 18, And: 18, For: 19, Or: 18 + SETTLE - 1, Unless: 18 + SETTLE + 3}


def test_what_is_long_over_is_forgotten() -> None:
    a, b = Atom("a"), Atom("b")
    tracks = {atom: Track(SETTLE) for atom in (a, b)}
    follower = Follower(Then(a, b, 5), 1)
    for n in range(200):
        tracks[a].tell(Transition("end", 20 * n, 20 * n + 3, 0.9))
        tracks[b].tell(Transition("end", 20 * n + 5, 20 * n + 6, 0.9))
        assert [t.phase for t in follower.step(20 * n + 15, tracks)] == ["start", "end"]
        assert len(tracks[a].known(20 * n + 15).sure) <= 3
