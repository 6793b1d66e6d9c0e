"""`when` in the matcher: embeddings in, events of several queries in time out."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import GateConfig, QueryConfig
from agent.errors import ConfigError
from agent.match.queries import QuerySet
from agent.wire import Event
from tests.fakes.space import embed_query
from tests.unit.test_matcher import LOUD, QUIET, Rig, brief, text

GLASS, DOG = text("glass", senses=["audio"]), text("dog")


def when(what: str, **fields: Any) -> QueryConfig:
    return QueryConfig(id="it", when=what, **fields)


def play(rig: Rig, seconds: dict[float, dict[str, float]], until: float = 20.0) -> list[Event]:
    """The microphone every half second, as `seconds` says or quiet, and ticks; then the end."""
    events = []
    for n in range(1, round(until * 10)):
        if n % 5 == 0:
            heard = seconds.get(n / 10, {})
            events += rig.at(n / 10, **{"glass": QUIET, "dog": QUIET, **heard})
        events += rig.tick(n / 10 + 0.01)
    return [e for e in events + rig.matcher.close() if e.query.id == "it"]


def during(start: float, end: float, **cosines: float) -> dict[float, dict[str, float]]:
    return {n / 2: cosines for n in range(round(start * 2), round(end * 2) + 1)}


def test_one_after_the_other_with_what_each_of_them_said() -> None:
    rig = Rig(GLASS, DOG, when("glass then dog within 5 s"))
    script = during(3, 4, glass=LOUD) | during(7, 8, dog=0.8)
    start, *_, end = play(rig, script)
    assert brief([start, end])[0] == ("it", "start", 0, 6.5, 7.0)
    assert brief([end])[0][3:] == (6.5, 8.0)
    assert (start.phase, end.phase, end.reason) == ("start", "end", "quiet")
    said = {(e.query, e.stream): e.cosine for e in start.evidence}
    assert said[("glass", "mic")] == 0.9, "of when it was on, not of now"
    assert said[("dog", "mic")] == 0.8
    assert start.score.kind == "when"
    assert start.score.value > 0.7
    assert play(Rig(GLASS, DOG, when("dog then glass within 5 s")), script) == []
    assert play(Rig(GLASS, DOG, when("glass then dog within 1 s")), script) == []


@pytest.mark.parametrize(
    ("what", "spans"),
    [
        ("glass or dog", [(2.5, 5.0), (9.5, 10.0)]),
        ("glass and dog", [(3.5, 4.0)]),
        ("glass for 1.4 s", [(3.9, 4.0)]),
        ("dog unless glass", [(4.0, 5.0), (9.5, 10.0)]),
        ("dog unless glass within 2 s", [(9.5, 10.0)]),
        ('"dog" and "glass"', [(3.5, 4.0)]),
    ],
)
def test_what_each_word_finds(what: str, spans: list[tuple[float, float]]) -> None:
    rig = Rig(text("glass", gate=GATE), text("dog", gate=GATE), when(what, gate=GATE))
    script = during(3, 3.5, glass=0.7, dog=QUIET) | during(4, 4, glass=0.7, dog=0.7)
    script |= during(4.5, 5, dog=0.7) | during(10, 10, dog=0.7)
    ends = [e for e in play(rig, script) if e.phase == "end"]
    got = [(e.start_time.ns / 1e9, e.end_time.ns / 1e9) for e in ends]
    assert got == [pytest.approx(span, abs=1e-6) for span in spans]


GATE = GateConfig(enter=0.7, exit=0.6, hold_s=0.4, cool_down_s=0.0)


def test_a_quoted_text_tells_nothing_of_itself_and_neither_does_one_that_is_off() -> None:
    rig = Rig(text("glass", enabled=False), when('glass or "dog"'))
    events = rig.at(1.0, glass=LOUD) + rig.at(1.5, dog=LOUD)
    for n in range(20, 60):
        events += rig.tick(n / 10)
    assert {e.query.id for e in events} == {"it"}
    assert [query.ref.id for query in rig.queries.all()] == ["glass", "it"]
    rig.queries.enable("it", False)
    assert rig.queries.scored() == []


def test_switching_a_named_query_off_ends_its_event_and_not_that_of_the_when() -> None:
    rig = Rig(text("glass"), when("glass for 1 s"), gate={"hold_s": 5.0})
    events = [e for n in range(2, 8) for e in rig.at(n / 2, glass=LOUD)]
    assert {e.query.id for e in events if e.phase == "start"} == {"glass", "it"}
    rig.queries.enable("glass", False)
    ended = rig.at(4.0, glass=LOUD)
    assert [(e.query.id, e.phase, e.reason) for e in ended if e.phase == "end"] == [
        ("glass", "end", "query_changed")
    ]
    rig.queries.enable("glass", True)
    later = rig.at(4.5, glass=LOUD)
    assert not [e for e in later if e.query.id == "glass"], "no event without its start"
    assert {(e.query.id, e.phase) for e in rig.matcher.close()} == {("it", "end")}


def test_a_changed_atom_begins_the_when_anew() -> None:
    rig = Rig(text("glass", id="a"), when("a for 1 s"))
    events = [e for n in range(2, 8) for e in rig.at(n / 2, glass=LOUD)]
    assert any(e.query.id == "it" for e in events)
    rig.queries.put(text("dog", id="a"))
    ended = [e for e in rig.at(4.0, glass=LOUD) if e.query.id == "it"]
    assert [(e.phase, e.reason) for e in ended] == [("end", "query_changed")]


def test_what_a_when_cannot_name() -> None:
    queries = QuerySet(embed_query, GateConfig())
    queries.put(text("glass"))
    for what, said in (
        ("cat", "query it: when: got 'cat', expected a query that is no `when`: glass; or a text"),
        ("it", "got 'it'"),
        ('"xyzzy"', "no word of 'xyzzy' is known"),
        ("glass then", "query it: when: column 11: got the end"),
    ):
        with pytest.raises(ConfigError, match=said):
            queries.put(when(what))
    assert len(queries) == 1
    put = queries.put(when("glass for 3 s"))
    assert queries.put(when("glass for 3 s")) is put
    assert queries.put(when("glass for 4 s")).ref.rev != put.ref.rev
    with pytest.raises(ConfigError, match="got 'glass', which `when` of it names"):
        queries.remove("glass")
    with pytest.raises(ConfigError, match="expected one that is no `when` itself"):
        queries.put(QueryConfig(id="glass", when='"dog"'))
    queries.remove("it")
    queries.remove("glass")


levels = st.sampled_from([0.0, QUIET, 0.3, 0.45, 0.6, LOUD])
scripts = st.lists(st.tuples(levels, levels), min_size=4, max_size=40)
whats = st.sampled_from(
    [
        "glass then dog within 2 s",
        "glass and dog within 1 s",
        "(glass or dog) for 1 s",
        "dog unless glass within 1 s",
        '(glass unless "fall") then (dog or glass) within 3 s',
    ]
)


@given(script=scripts, what=whats, seed=st.integers(0, 99))
def test_two_streams_in_either_order_give_the_same_events(
    script: list[tuple[float, float]], what: str, seed: int
) -> None:
    """Each stream's own vectors come in order; which of two comes first is the threads' affair."""
    rng = random.Random(seed)
    told = []
    for swap in (lambda: False, lambda: rng.random() < 0.5):
        queries = (text("glass", streams=["mic"]), text("dog", streams=["cam"]), when(what))
        rig = Rig(*queries, gate={"hold_s": 0.3})
        events: list[Event] = []
        for n, (glass, dog) in enumerate(script):
            pair = [("mic", {"glass": glass}), ("cam", {"dog": dog})]
            if swap():
                pair.reverse()
            for name, cosines in pair:
                events += rig.at(0.5 * n + 1.0, name, **cosines)
            events += rig.tick(0.5 * n + 1.3)
        for n in range(60):
            events += rig.tick(0.5 * len(script) + 1.3 + n / 10)
        events += rig.matcher.close()
        ends = [e for e in events if e.query.id == "it" and e.phase == "end"]
        told.append([(e.id, e.start_time.ns, e.end_time.ns) for e in ends])
        open_ = None
        for event in (e for e in events if e.query.id == "it"):
            assert (event.phase == "start") == (open_ is None)
            open_ = None if event.phase == "end" else event
        assert open_ is None
    assert told[0] == told[1]
