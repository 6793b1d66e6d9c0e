"""What a `when` says: other queries, and how they are to follow one another in time.

    a_dog then "a car horn" within 10 s     the second begins after the first began, and no later
                                            than that after it ended
    a and b                                 both at once
    a and b within 5 s                      the second to come, that soon after the first has gone
    a or b                                  either
    a unless c                              the first without the second
    a unless c within 5 s                   and without it that long before and after
    a for 30 s                              as soon as it has lasted so long

A name is a query's id; a text in double quotes is a query of its own that tells no events. `for`
belongs to the name or the bracket just before it. The other words may follow one another where
they are the same, from left to right; where they differ, brackets say what belongs together.
Durations are in ms, s, min or h.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from agent.clock import from_s
from agent.errors import ConfigError

__all__ = [
    "And",
    "Atom",
    "For",
    "Node",
    "Or",
    "Then",
    "Unless",
    "atoms_of",
    "parse_when",
    "reach_ns",
]

MAX_ATOMS = 32
MAX_DEPTH = 16
MAX_DURATION_S = 86_400.0  # what happened until then has to be remembered

_TOKEN = re.compile(r'\s*(?:("[^"]*")|([\w.]+)|([()]))')
_UNITS_S = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)([a-z]*)")
_WORDS = ("and", "or", "then", "unless", "for", "within")


@dataclass(frozen=True)
class Atom:
    """A query. name: its id, or the text of one that stands in quotes."""

    name: str
    quoted: bool = False


@dataclass(frozen=True)
class Or:
    left: Node
    right: Node


@dataclass(frozen=True)
class And:
    left: Node
    right: Node
    within_ns: int = 0


@dataclass(frozen=True)
class Then:
    left: Node
    right: Node
    within_ns: int


@dataclass(frozen=True)
class Unless:
    left: Node
    right: Node
    within_ns: int = 0


@dataclass(frozen=True)
class For:
    inner: Node
    least_ns: int


Node = Atom | Or | And | Then | Unless | For


def parse_when(text: str) -> Node:
    """Raises ConfigError with the column of what is wrong."""
    return _Parser(text).parse()


def atoms_of(node: Node) -> Iterator[Atom]:
    """Every atom from left to right, as often as it is there."""
    if isinstance(node, Atom):
        yield node
    elif isinstance(node, For):
        yield from atoms_of(node.inner)
    else:
        yield from atoms_of(node.left)
        yield from atoms_of(node.right)


def reach_ns(node: Node) -> int:
    """How far back what is true now may depend on what was: all durations together."""
    if isinstance(node, Atom):
        return 0
    if isinstance(node, For):
        return node.least_ns + reach_ns(node.inner)
    own = 0 if isinstance(node, Or) else node.within_ns
    return own + reach_ns(node.left) + reach_ns(node.right)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, int]] = []
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                start = place + len(text[place:]) - len(text[place:].lstrip())
                problem = "a quote that is not closed" if text[start] == '"' else f"{text[start]!r}"
                raise _refusal(start, problem, 'names, texts in ", brackets and words')
            self._tokens.append((found[0].strip(), found.end() - len(found[0].strip())))
            place = found.end()
        self._end = len(text)
        self._next = 0
        self._atoms = 0

    def parse(self) -> Node:
        node = self._chain(0)
        if self._peek():
            raise self._wrong("and, or, then, unless, for or the end")
        return node

    def _chain(self, depth: int) -> Node:
        node, first = self._operand(depth), ""
        while (word := self._peek()) in ("and", "or", "then", "unless"):
            if first and word != first:
                raise self._wrong(f"{first!r} again, or brackets that say what belongs together")
            first = word
            self._take()
            right = self._operand(depth)
            if word == "or":
                node = Or(node, right)
            elif word == "then":
                node = Then(node, right, self._within(needed=True))
            elif word == "and":
                node = And(node, right, self._within(needed=False))
            else:
                node = Unless(node, right, self._within(needed=False))
        return node

    def _operand(self, depth: int) -> Node:
        name = self._peek()
        wanted = "a query's id, a text in \" or '('"
        if not name or name == ")" or name in _WORDS:
            raise self._wrong(wanted)
        if name == "(":
            if depth == MAX_DEPTH:
                raise self._wrong(f"at most {MAX_DEPTH} brackets in one another")
            self._take()
            node = self._chain(depth + 1)
            if self._peek() != ")":
                raise self._wrong("')', and, or, then, unless or for")
            self._take()
        else:
            self._atoms += 1
            if self._atoms > MAX_ATOMS:
                raise self._wrong(f"at most {MAX_ATOMS} queries")
            quoted = name.startswith('"')
            if quoted and not name[1:-1].strip():
                raise self._wrong("a text that is not empty")
            if not quoted and not re.fullmatch(r"[a-z0-9_]+", name):
                raise self._wrong(wanted)
            node = Atom(name.strip('"'), quoted)
            self._take()
        while self._peek() == "for":
            self._take()
            node = For(node, self._duration())
        return node

    def _within(self, needed: bool) -> int:
        if self._peek() != "within":
            if needed:
                raise self._wrong("'within' and how long, for example within 10 s")
            return 0
        self._take()
        return self._duration()

    def _duration(self) -> int:
        found = _DURATION.fullmatch(self._peek())
        wanted = "how long, for example 10 s (ms, s, min or h)"
        if found is None:
            raise self._wrong(wanted)
        number, unit = found.groups()
        if unit:
            if unit not in _UNITS_S:
                raise self._wrong(wanted)
        else:
            self._take()
            unit = self._peek()
            if unit not in _UNITS_S:
                raise self._wrong("ms, s, min or h")
        seconds = float(number) * _UNITS_S[unit]
        if not 0 < seconds <= MAX_DURATION_S:
            raise self._wrong(f"above 0 and at most {MAX_DURATION_S / 3600:g} h")
        self._take()
        return from_s(seconds)

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self) -> None:
        self._next += 1

    def _wrong(self, expected: str) -> ConfigError:
        token, place = (
            self._tokens[self._next] if self._next < len(self._tokens) else ("", self._end)
        )
        return _refusal(place, repr(token) if token else "the end", expected)


def _refusal(place: int, got: str, expected: str) -> ConfigError:
    shown = got if len(got) <= 60 else f"{got[:57]}..."
    return ConfigError(f"when: column {place + 1}: got {shown}, expected {expected}")
