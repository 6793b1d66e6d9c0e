"""Whatever a client sends, the agent goes on: frames through the real control path to a Core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.control import MAX_MESSAGE, OPS
from agent.publish.control import Control
from agent.wire import Reply
from tests.e2e.commands import ROOT
from tests.unit.test_query_teach import Rig

DEMO = ROOT / "configs" / "demo"
WORDS = ["a", "b", '"a dog"', "and", "or", "then", "unless", "for", "within", "3 s", "(", ")"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["a", "b", "a dog", "audio", "microphone", "\0", "/", "~", "..", ""])
    | st.sampled_from([str(DEMO / "home.jpg"), str(DEMO / "demo.yaml"), str(DEMO), "nowhere.mcap"])
    | st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["text", "audio", "image", "weight", "file"]), inner)
    ),
    max_leaves=6,
)
fields = st.dictionaries(
    st.sampled_from(
        [
            *("id", "label", "text", "audio", "image", "depth", "imu", "file", "modality", "log"),
            *("vector", "taught", "sum", "when", "not", "templates", "streams", "senses", "path"),
            *("enabled", "gate", "max_false_alarms_per_hour", "query", "query_id", "examples"),
        ]
    ),
    values,
    max_size=4,
)
# Most of what is drawn at random says two things at once; these say one, with one thing wrong.
some = st.one_of(
    st.builds(lambda v, more: {"text": "a dog", "id": "a"} | more | {"not": v}, values, fields),
    st.builds(lambda v: {"sum": [{"text": "a dog"}, {"text": "rain", "weight": v}]}, values),
    st.builds(lambda v: {"id": "w", "when": v}, values),
    st.builds(lambda a, v: {a: v}, st.sampled_from(["audio", "image", "depth", "vector"]), values),
    st.builds(lambda v: {"log": {"file": v, "stream": "mic", "from_s": 0, "to_s": 1}}, values),
    st.builds(lambda v: {"text": "a dog", "id": "b", "gate": {"enter": v}}, values),
    st.builds(lambda v: {"query_id": "t", "examples": [v, v]}, values),
    st.builds(lambda v: {"text": "a dog", "templates": {"audio": v}}, values),
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.core.close()


@given(
    op=st.sampled_from([op for op in OPS if not op.startswith("record")]),
    asked=st.one_of(fields, some, st.builds(lambda q: {"query": q}, some)),
)
@example(op="query.put", asked={"audio": "\0"})
@example(op="query.teach", asked={"query_id": "t", "examples": ["\0.wav"]})
@example(op="query.put", asked={"sum": [{"text": "a dog"}, {"text": "a dog", "weight": -1}]})
@example(op="query.put", asked={"sum": [{"text": "a dog", "weight": 1e308}, {"text": "rain"}]})
@example(op="query.put", asked={"text": ["a dog"] * 2000})
@example(op="query.put", asked={"when": "(" * 5000})
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_anything_is_answered_and_the_agent_goes_on(
    rig: Rig, op: str, asked: dict[str, Any]
) -> None:
    passed: list[Any] = []
    control = Control(OPS, lambda request, reply: passed.append((request, reply)), lambda: None)
    body = json.dumps({**asked, "op": op, "id": "1"}).encode()
    answer = control.receive([b"client", body])
    for request, reply in passed:
        reply(rig.operations.handle(request))
        (answer,) = control.replies()
    assert answer is not None
    told = msgspec.json.decode(answer[-1], type=Reply)
    if told.error is not None:
        assert "\n" not in told.error.message
        assert len(told.error.message) <= MAX_MESSAGE
    rig.hear(False)
    assert rig.core.matcher.scores(rig.end_ns) is not None
