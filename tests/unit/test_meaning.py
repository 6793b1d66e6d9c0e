"""What a query of several parts is: sums by weight, contrasts, and each part in its own view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import PartConfig, QueryConfig, Taught
from agent.errors import ConfigError
from agent.match.meaning import CONTRAST, Meaning, Part, Together, terms_of
from agent.ordinary import nearness, ordinary
from agent.types import Array, Embedding

DIM, FLOOR = 16, 0.001
RNG = np.random.default_rng(7)


def unit(vector: Array) -> Array:
    return (vector / np.linalg.norm(vector, axis=-1, keepdims=True)).astype(np.float32)


class Space:
    """What terms_of needs; its ordinary sounds spread more along the first axis."""

    identity, dim = "made@1", DIM

    def __init__(self, views: int = 1) -> None:
        spread = np.ones(DIM)
        spread[0] = 6.0
        self.bank = unit(RNG.normal(size=(80, views, DIM)) * spread)

    def background(self, modality: str) -> Array:
        return self.bank

    def prior(self, vector: Array, modality: str) -> tuple[float, float]:
        return ordinary(nearness(self.bank @ vector), self.dim)


def part(vector: Array, weight: float = 1.0, **fields: Any) -> Part:
    return Part(Embedding("made@1", unit(vector), "text"), weight, **fields)


def answer(meaning: Meaning, space: Space, rows: Array) -> float:
    terms = terms_of(meaning, space, "audio", FLOOR)  # type: ignore[arg-type]  # the part of a Space that it uses
    return float(Together([terms], DIM).answer(rows)[0][0])


vectors = st.lists(st.integers(0, 2**31), min_size=1, max_size=4).map(
    lambda seeds: np.stack([np.random.default_rng(s).normal(size=DIM) for s in seeds])
)


@given(vectors=vectors, seed=st.integers(0, 99))
def test_one_part_is_its_cosine(vectors: Array, seed: int) -> None:
    row = unit(np.random.default_rng(seed).normal(size=(1, DIM)))
    one = unit(vectors[0])
    got = answer(Meaning((part(one),)), Space(), row)
    assert got == pytest.approx(float(one.astype(float) @ row[0].astype(float)), abs=1e-6)


@given(vectors=vectors, seed=st.integers(0, 99), weight=st.floats(0.1, 5.0))
def test_a_sum_is_the_cosine_with_one_direction_where_there_are_no_views(
    vectors: Array, seed: int, weight: float
) -> None:
    """Each part by its weight over what is its ordinary spread."""
    space = Space()
    parts = tuple(part(v, weight if n else 1.0) for n, v in enumerate(vectors))
    total = sum(
        p.weight / max(space.prior(p.vector("audio"), "audio")[1], FLOOR) * p.vector("audio")
        for p in parts
    )
    row = unit(np.random.default_rng(seed).normal(size=(1, DIM)))
    got = answer(Meaning(parts), space, row)
    assert got == pytest.approx(float(total @ row[0] / np.linalg.norm(total)), abs=1e-5)


def test_equal_weights_are_an_equal_say() -> None:
    """One of the two has six times the spread on what is ordinary, and would drown the other."""
    space = Space()
    loud, quiet = np.eye(DIM, dtype=np.float32)[:2]
    meaning = Meaning((part(loud), part(quiet)))
    deviations = [space.prior(v, "audio")[1] for v in (loud, quiet)]
    assert deviations[0] > 3 * deviations[1]
    away = unit(np.ones(DIM))[np.newaxis]
    steps = []
    for axis, deviation in enumerate(deviations):
        moved = away.copy()
        moved[0, axis] += deviation
        steps.append(answer(meaning, space, moved) - answer(meaning, space, away))
    assert steps[0] == pytest.approx(steps[1], rel=1e-4)


def test_each_part_has_a_view_of_its_own() -> None:
    space = Space(views=3)
    one, other = np.eye(DIM, dtype=np.float32)[1:3]
    rows = np.stack([unit(np.ones(DIM)), one, other])
    both = Meaning((part(one), part(other)))
    whole_only = np.stack([rows[0]] * 3)
    first_only = np.stack([rows[0], one, one])
    assert answer(both, space, rows) > answer(both, space, first_only)
    assert answer(both, space, first_only) > answer(both, space, whole_only)


def test_the_part_that_weighs_most_says_where() -> None:
    space = Space(views=3)
    one, other = np.eye(DIM, dtype=np.float32)[1:3]
    rows = np.stack([unit(np.ones(DIM)), one, other])
    for weights, where in (((1.0, 3.0), 2), ((3.0, 1.0), 1), ((3.0, -9.0), 1)):
        parts = tuple(part(v, w) for v, w in zip((one, other), weights, strict=True))
        together = Together([terms_of(Meaning(parts), space, "image", FLOOR)], DIM)  # type: ignore[arg-type]  # as above
        assert together.answer(rows)[1].tolist() == [where]


def test_a_minus_part_takes_away() -> None:
    space = Space()
    dog, indoors = np.eye(DIM, dtype=np.float32)[1:3]
    outside, inside = unit(dog + 0.1)[np.newaxis], unit(dog + indoors)[np.newaxis]
    plain = Meaning((part(dog),))
    less = Meaning((part(dog), part(indoors, -0.5)))
    gained = answer(plain, space, outside) - answer(plain, space, inside)
    assert answer(less, space, outside) - answer(less, space, inside) > gained


def test_what_it_is_not_is_the_best_of_them() -> None:
    """Half of the best contrast's deviations come off, however many others there are."""
    space = Space()
    dog, cat, rain = np.eye(DIM, dtype=np.float32)[1:4]
    row = unit(dog + cat)[np.newaxis]
    alone = answer(Meaning((part(dog),)), space, row)
    one = answer(Meaning((part(dog),), (part(cat),)), space, row)
    two = answer(Meaning((part(dog),), (part(rain), part(cat))), space, row)
    assert one == two
    (_, own), (mean, deviation) = (space.prior(v, "audio") for v in (dog, cat))
    high = (float(row[0] @ cat) - mean) / deviation
    assert one == pytest.approx(alone - CONTRAST * own * high, abs=1e-6)


@given(seed=st.integers(0, 99))
def test_many_answered_at_once_are_each_as_alone(seed: int) -> None:
    rng, space = np.random.default_rng(seed), Space(views=2)
    meanings = []
    for _ in range(int(rng.integers(1, 6))):
        shape = rng.integers(1, 4), rng.integers(0, 3)
        made = [tuple(part(v) for v in rng.normal(size=(n, DIM))) for n in shape]
        meanings.append(Meaning(*made))
    rows = unit(rng.normal(size=(3, DIM)))
    terms = [terms_of(m, space, "audio", FLOOR) for m in meanings]  # type: ignore[arg-type]  # as above
    got = Together(terms, DIM).answer(rows)[0]
    assert got.tolist() == pytest.approx([answer(m, space, rows) for m in meanings], abs=1e-12)
    assert Together([], DIM).answer(rows)[0].shape == (0,)


def test_what_is_ordinary_for_the_whole_is_that_of_the_bank() -> None:
    space = Space(views=3)
    meaning = Meaning((part(RNG.normal(size=DIM)), part(RNG.normal(size=DIM), -0.4)), ())
    each = [answer(meaning, space, rows) for rows in space.bank]
    terms = terms_of(meaning, space, "audio", FLOOR)  # type: ignore[arg-type]  # as above
    assert terms.ordinary == pytest.approx(ordinary(np.array(each), DIM), abs=1e-9)


def test_a_probe_is_counted_by_what_was_measured_with_it() -> None:
    """The bank knows nothing of a vector that was fitted to be far from it."""
    space = Space()
    probe = RNG.normal(size=DIM)
    vector = unit(probe).astype("<f4").tobytes()
    taught = Taught(
        space="made@1", modality="audio", vector=vector, method="ridge", ordinary=(0.4, 0.03)
    )
    other = part(RNG.normal(size=DIM))
    measured = terms_of(Meaning((part(probe, taught=taught), other)), space, "audio", FLOOR)  # type: ignore[arg-type]  # as above
    plain = terms_of(Meaning((part(probe), other)), space, "audio", FLOOR)  # type: ignore[arg-type]  # as above
    assert measured.ordinary[0] > plain.ordinary[0] + 0.1


def test_parts_that_cancel_out_are_refused() -> None:
    same = RNG.normal(size=DIM)
    with pytest.raises(ConfigError, match="sum: the parts cancel out on audio"):
        answer(Meaning((part(same), part(same, -1.0))), Space(), np.eye(1, DIM))


def test_a_template_is_for_its_sense_alone() -> None:
    spoken = Embedding("made@1", unit(np.eye(DIM)[3]), "text")
    own = part(np.eye(DIM)[2], by_sense={"audio": spoken})
    assert own.vector("audio")[3] == 1.0
    assert own.vector("image")[2] == 1.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"text": "a", "audio": "b"}, "exactly one of text,"),
        ({}, "got none"),
        ({"text": []}, "text is empty"),
        ({"text": ["a", " "]}, "text is empty"),
        ({"file": "a.csv"}, "file and modality go together"),
        ({"sum": []}, "no part whose weight is above 0"),
        ({"sum": [PartConfig(text="a", weight=-1)]}, "no part whose weight is above 0"),
        ({"when": "a and b", "against": ["c"]}, "when and not do not go together"),
        ({"text": "a", "against": [""]}, "not has an empty phrase"),
        ({"text": "a", "templates": {"audio": ["the sound"]}}, "templates.audio is"),
    ],
)
def test_forms_that_say_nothing_or_two_things(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        QueryConfig(**fields)
