"""Wire: times without loss, and schemas that take what we send."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Event, Reply, RequestError, Time, encode, json_schemas
from tests.fakes import wire_messages


@given(st.integers(-(2**62), 2**62))
def test_a_time_loses_nothing(t_ns: int) -> None:
    time = Time.of(t_ns)
    assert time.ns == t_ns
    assert 0 <= time.nsec < 10**9
    assert msgspec.json.decode(encode(time), type=Time) == time


def check(name: str, message: Any) -> None:
    schemas = json_schemas()
    schema = {**schemas["messages"][name], "$defs": schemas["$defs"], "$schema": schemas["$schema"]}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(message)


def event() -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(encode(wire_messages.event()))
    return decoded


def test_an_event_fits_its_schema() -> None:
    check("Event", event())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("phase",), "begin"),
        (("start_time", "sec"), "1"),
        (("score", "value"), None),
        (("evidence", 0, "status"), "lost"),
        (("drops", "mic"), 1.5),
    ],
)
def test_a_wrong_event_does_not(place: tuple[str | int, ...], value: Any) -> None:
    wrong: Any = copy.deepcopy(event())
    wrong["drops"]["mic"] = 1
    here = wrong
    for step in place[:-1]:
        here = here[step]
    here[place[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        check("Event", wrong)


def test_a_missing_field_is_missed() -> None:
    wrong = event()
    del wrong["query"]
    with pytest.raises(jsonschema.ValidationError, match="'query' is a required property"):
        check("Event", wrong)


def test_replies_fit_their_schema() -> None:
    for reply in (
        Reply(id="1", ok=True, result={"rev": "abc"}),
        Reply(id="2", ok=False, error=RequestError(code="ConfigError", message="no")),
    ):
        check("Reply", json.loads(encode(reply)))


def test_an_event_round_trips_and_ignores_what_a_later_version_adds() -> None:
    sent = wire_messages.event()
    assert msgspec.json.decode(encode(sent), type=Event) == sent
    newer = {**event(), "mood": "good"}
    assert msgspec.json.decode(json.dumps(newer).encode(), type=Event) == sent
