"""When what is planted happens, and in what order."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tools.planting import LEVELS_DB, Deck, Planted, spread


@given(st.lists(st.sampled_from(["a", "b", ""]), max_size=30), st.integers(0, 99))
def test_what_is_planted_never_overlaps_and_has_every_level(kinds: list[str], seed: int) -> None:
    things = [Planted(kind, str(i), np.zeros(1), 3.0) for i, kind in enumerate(kinds)]
    plants = spread(things, 200.0, np.random.default_rng(seed))
    assert len(plants) == len(things)
    for one, following in pairwise(plants):
        assert following.from_s >= one.to_s + 1.0 - 1e-9
    assert all(plant.from_s >= 0 and plant.to_s <= 200.0 for plant in plants)
    for kind in {"a", "b"} & set(kinds):
        levels = [plant.db for plant in plants if plant.what.kind == kind]
        assert {levels.count(db) for db in LEVELS_DB} <= {
            len(levels) // 3,
            -(-len(levels) // 3),
        }


def test_what_does_not_fit_is_left_out() -> None:
    things = [Planted("a", str(i), np.zeros(1), 30.0) for i in range(10)]
    plants = spread(things, 100.0, np.random.default_rng(0))
    assert 0 < len(plants) < 4
    assert plants[-1].to_s <= 100.0


@given(
    st.lists(st.integers(), min_size=1, max_size=9, unique=True),
    st.lists(st.integers(0, 12), max_size=5),
    st.integers(0, 99),
)
def test_a_deck_gives_each_as_often_as_the_others(
    items: list[int], takes: list[int], seed: int
) -> None:
    deck = Deck(items, np.random.default_rng(seed))
    counts = Counter(dict.fromkeys(items, 0))
    for count in takes:
        taken = deck.take(count)
        assert len(taken) == count
        counts.update(taken)
    assert set(counts) == set(items)
    assert max(counts.values()) - min(counts.values()) <= 1
