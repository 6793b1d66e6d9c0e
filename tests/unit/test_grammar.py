"""What a `when` may say, and where what it may not is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from agent.errors import ConfigError
from agent.match.grammar import (
    And,
    Atom,
    For,
    Node,
    Or,
    Then,
    Unless,
    atoms_of,
    parse_when,
    reach_ns,
)

A, B, C = Atom("a"), Atom("b"), Atom("c")
S = NS_PER_S


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a", A),
        ('"a dog, barking"', Atom("a dog, barking", quoted=True)),
        ("a then b within 10 s", Then(A, B, 10 * S)),
        ("a and b", And(A, B)),
        ("a and b within 1.5s", And(A, B, 1_500_000_000)),
        ("a or b or c", Or(Or(A, B), C)),
        ("a unless c within 250 ms", Unless(A, C, S // 4)),
        ("a for 2 min", For(A, 120 * S)),
        ("(a or b) for 1 h", For(Or(A, B), 3600 * S)),
        ("a for 3 s then b within 4 s", Then(For(A, 3 * S), B, 4 * S)),
        ("a then b within 1 s then c within 2 s", Then(Then(A, B, S), C, 2 * S)),
        ("a and (b unless c)", And(A, Unless(B, C))),
        (' ( "x"and b )', And(Atom("x", True), B)),
        ("a then 10 within 10 s", Then(A, Atom("10"), 10 * S)),
    ],
)
def test_what_it_means(text: str, node: Node) -> None:
    assert parse_when(text) == node


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "column 1: got the end, expected a query's id"),
        ("a b", "column 3: got 'b', expected and, or, then"),
        ("a then b", "column 9: got the end, expected 'within'"),
        ("a then within 3 s", "column 8: got 'within', expected a query's id"),
        ("a and b or c", "column 9: got 'or', expected 'and' again, or brackets"),
        ("a or b within 3 s", "column 8: got 'within', expected and, or, then"),
        ("a for 30", "column 9: got the end, expected ms, s, min or h"),
        ("a for 30 kg", "column 10: got 'kg', expected ms, s, min or h"),
        ("a for 30kg", "column 7: got '30kg', expected how long"),
        ("a for 0 s", "column 9: got 's', expected above 0"),
        ("a for 25 h", "column 10: got 'h', expected above 0 and at most 24 h"),
        ("a for long", "column 7: got 'long', expected how long"),
        ("(a", "column 3: got the end, expected ')'"),
        ("a)", "column 2: got ')', expected and, or"),
        ('a and "b', "column 7: got a quote that is not closed"),
        ('a and ""', "column 7: got '\"\"', expected a text that is not empty"),
        ("a & b", "column 3: got '&', expected names"),
        ("A and b", "column 1: got 'A', expected a query's id"),
        ("(" * 99 + "a", "at most 16 brackets"),
        (" or ".join(["a"] * 40), "at most 32 queries"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_when(text)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_how_far_back_it_reaches() -> None:
    node = parse_when("(a then b within 10 s) for 5 s")
    assert reach_ns(node) == 15 * S
    assert list(atoms_of(node)) == [A, B]


WORDS = ["a", "b", '"x y"', "and", "or", "then", "unless", "for", "within", "3 s", "(", ")", "%"]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=60))
def test_any_text_is_a_meaning_or_one_line(text: str) -> None:
    try:
        node = parse_when(text)
    except ConfigError as exc:
        said = str(exc)
    else:
        said = "" if list(atoms_of(node)) else "nothing"
    assert "\n" not in said
    assert not said or said.startswith("when: column ")
