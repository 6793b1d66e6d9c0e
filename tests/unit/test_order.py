"""Which thread is first is nobody's choice: streams that are late, each by as much as it likes."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.clock import NS_PER_S
from agent.config import QueryConfig
from agent.errors import ConfigError
from agent.wire import Event
from tests.fakes.space import seen
from tests.unit.test_matcher import LOUD, QUIET, Rig, text

HOP_S = 0.5
STREAMS = ("mic", "cam")
levels = st.sampled_from([0.0, QUIET, 0.3, 0.45, 0.6, LOUD])
# Of each window: what the microphone hears of glass, and what the camera sees of it and of a dog.
dogs = st.sampled_from([0.0, QUIET, 0.35, 0.43])  # a vector has a length of one
windows = st.lists(st.tuples(levels, levels, dogs), min_size=4, max_size=24)
gates = st.sampled_from(
    [
        {"hold_s": 0.3},
        {"hold_s": 1.0, "cool_down_s": 2.0},
        {"min_duration_s": 0.6},
        {"max_duration_s": 1.7, "update_s": 0.1},
    ]
)


def play(
    heard: list[tuple[float, float, float]],
    late_s: float,
    seed: int,
    rig: Rig,
    ask: Callable[[int, Rig], None] = lambda step, rig: None,
) -> list[Event]:
    """Each stream's vectors come in order, up to `late_s` after their windows, and ticks between
    them; then nothing more until all is over.
    """
    rng = random.Random(seed)
    steps: list[tuple[float, str, int]] = []
    for name in STREAMS:
        at_s = 0.0
        for n in range(len(heard)):
            at_s = max(at_s + 1e-6, (n + 2) * HOP_S + rng.uniform(0, late_s))
            steps.append((at_s, name, n))
    over_s = (len(heard) + 2) * HOP_S
    steps += [(tick * 0.1 + rng.uniform(0, 0.1), "", 0) for tick in range(round(over_s * 10) + 80)]
    events = []
    for step, (at_s, name, n) in enumerate(sorted(steps)):
        ask(step, rig)
        rig.clock.advance_to_ns(round(at_s * NS_PER_S))
        if not name:
            events += rig.matcher.tick(round(at_s * NS_PER_S))
            continue
        mic, cam, dog = heard[n]
        cosines = {"glass": mic} if name == "mic" else {"glass": cam, "dog": dog}
        end_ns = round((n + 2) * HOP_S * NS_PER_S)
        events += rig.matcher.observe(seen(name, end_ns, cosines))
    return events + rig.matcher.close()


def stories(events: list[Event]) -> dict[str, list[Any]]:
    """Of each query its events as (id, start, end, reason), having checked that they are whole."""
    told: dict[str, list[Any]] = {}
    open_: dict[str, Event] = {}
    for event in events:
        query, own = event.query.id, told.setdefault(event.query.id, [])
        before = open_.pop(query, None)
        assert (event.phase == "start") == (before is None), "a start, and only one"
        assert event.start_time.ns <= event.end_time.ns
        if before is not None:
            assert (event.id, event.revision) == (before.id, before.revision + 1)
            assert event.start_time == before.start_time
            assert event.end_time.ns >= before.end_time.ns
        elif own:
            assert event.start_time.ns > own[-1][2], "no two of a query share a nanosecond"
        if event.phase == "end":
            own.append((event.id, event.start_time.ns, event.end_time.ns, event.reason))
        else:
            open_[query] = event
    assert open_ == {}, "each start has its end"
    ids = [story[0] for own in told.values() for story in own]
    assert len(set(ids)) == len(ids)
    return told


def alone(*names: str) -> list[QueryConfig]:
    """A query for each of the streams, and what follows of both."""
    own = [text("glass", id=f"by_{name}", streams=[name]) for name in names]
    return [
        *own,
        text("dog", streams=["cam"]),
        QueryConfig(id="both", when="by_mic and by_cam within 1 s"),
    ]


@given(
    heard=windows,
    gate=gates,
    seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)),
    late_s=st.sampled_from([0.02, 0.4]),
    rate=st.sampled_from([None, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_what_one_stream_answers_hangs_on_no_other(
    heard: list[Any], gate: Any, seeds: tuple[int, int], late_s: float, rate: float | None
) -> None:
    first, second = (
        stories(
            play(
                heard,
                late_s,
                seed,
                Rig(*alone(*STREAMS), gate=gate, max_false_alarms_per_hour=rate),
            )
        )
        for seed in seeds
    )
    assert first == second


@given(
    heard=windows,
    gate=gates,
    seed=st.integers(0, 999),
    late_s=st.sampled_from([0.02, 0.7, 3.0]),
    rate=st.sampled_from([None, 1.0, 1e4]),
)
@settings(max_examples=60, deadline=None)
def test_what_several_answer_is_whole_in_any_order(
    heard: list[Any], gate: Any, seed: int, late_s: float, rate: float | None
) -> None:
    queries = (text("glass"), text("dog"), QueryConfig(id="it", when='glass then "dog" within 2 s'))
    stories(play(heard, late_s, seed, Rig(*queries, gate=gate, max_false_alarms_per_hour=rate)))


changes = st.dictionaries(
    st.integers(0, 80),
    st.tuples(
        st.sampled_from(["put", "remove", "on", "off"]), st.sampled_from(["glass", "dog", "it"])
    ),
    max_size=12,
)


@given(heard=windows, gate=gates, seed=st.integers(0, 999), asked=changes)
@settings(max_examples=100, deadline=None)
def test_events_are_whole_whatever_is_asked_meanwhile(
    heard: list[Any], gate: Any, seed: int, asked: dict[int, tuple[str, str]]
) -> None:
    queries = {
        "glass": text("glass", id="glass"),
        "dog": text("dog", id="dog", streams=["cam"]),
        "it": QueryConfig(id="it", when='glass and "dog" within 2 s'),
    }

    def ask(step: int, rig: Rig) -> None:
        op, name = asked.get(step, ("", ""))
        # Refused where it is not there, or is named by the other.
        with suppress(ConfigError):
            if op == "put":
                rig.queries.put(replace(queries[name], label=f"{name} {step}"))
            elif op == "remove":
                rig.queries.remove(name)
            elif op:
                rig.queries.enable(name, op == "on")

    stories(play(heard, 0.4, seed, Rig(*queries.values(), gate=gate), ask))
