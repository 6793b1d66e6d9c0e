"""Which events appear, vanish and move between two replays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tools.replay_diff import Told, changes


def told(query: str, from_s: float, to_s: float) -> Told:
    return Told(query, from_s, to_s, 0.8)


def test_one_of_each() -> None:
    before = [told("dog", 1, 2), told("dog", 10, 12), told("cat", 20, 21)]
    after = [told("dog", 10.5, 12), told("cat", 20, 21), told("cat", 1, 2)]
    found = changes(before, after)
    assert [(change.what, change.at_s) for change in found] == [
        ("vanishes", 1),
        ("appears", 1),
        ("moves", 10),
        ("stays", 20),
    ]
    assert found[2].as_dict() == {
        "what": "moves",
        "query": "dog",
        "before": {"from_s": 10, "to_s": 12, "value": 0.8},
        "after": {"from_s": 10.5, "to_s": 12, "value": 0.8},
    }


def test_one_that_falls_in_two_moves_and_one_appears() -> None:
    found = changes([told("dog", 0, 10)], [told("dog", 0, 3), told("dog", 6, 10)])
    assert [change.what for change in found] == ["moves", "appears"]


spans = st.builds(
    lambda query, from_s, length_s: told(query, from_s, from_s + length_s),
    st.sampled_from(["dog", "cat"]),
    st.integers(0, 50).map(float),
    st.integers(0, 9).map(float),
)


@given(st.lists(spans, max_size=12), st.lists(spans, max_size=12))
def test_every_event_is_told_once_on_its_side(before: list[Told], after: list[Told]) -> None:
    found = changes(before, after)
    assert sorted(map(repr, before)) == sorted(repr(c.before) for c in found if c.before)
    assert sorted(map(repr, after)) == sorted(repr(c.after) for c in found if c.after)
    assert [change.at_s for change in found] == sorted(change.at_s for change in found)


@given(st.lists(spans, max_size=12))
def test_what_is_the_same_stays(events: list[Told]) -> None:
    apart = [event for i, event in enumerate(events) if event not in events[:i]]
    assert {change.what for change in changes(apart[:1], apart[:1])} <= {"stays"}
