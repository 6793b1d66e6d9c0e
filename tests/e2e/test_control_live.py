"""Whatever is sent to a running agent's sockets, it answers, records and goes on telling events."""

from __future__ import annotations

import copy
import json
import os
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.app import Agent
from agent.clock import SystemClock
from agent.config_file import build_config
from agent.contracts import MAX_FILE_BYTES
from agent.control import MAX_MESSAGE, OPS
from agent.publish.client import Subscriber
from agent.supervise import ThreadGroup
from agent.wire import Event, Reply
from tests.e2e.commands import ROOT
from tests.fakes.running_bus import LOOPBACK

DEMO = ROOT / "configs" / "demo"
PATIENCE_S = 30.0
EVENTS = "sensebind/v1/fuzzed/event/always/"
CONFIG = {
    "agent": "fuzzed",
    "space": {"towers": {"audio": {"hop_s": 0.2}}},
    "drivers": {
        "senses": {
            "kind": "synthetic",
            "streams": {"microphone": {"modality": "audio", "rate_hz": 16000}},
        }
    },
    "bus": {"events": LOOPBACK, "control": LOOPBACK, "score_hz": 5},
    "queries": [
        {"id": "always", "text": "a room", "gate": {"enter": 0.0, "exit": 0.0, "update_s": 0.001}}
    ],
}

# One good request of each kind; `files` gives the pipe and the folder that some of them name.
GATE = {"enter": 0.7, "exit": 0.4, "hold_s": 1.0, "cool_down_s": 2.0, "min_duration_s": 0.0}
MARK = {"stream": "microphone", "seconds": 2.0, "ago_s": 0.5}
GOOD: list[dict[str, Any]] = [
    {"op": "query.put", "query": {"id": "a", "text": "a dog", "gate": GATE}},
    {"op": "query.put", "query": {"id": "b", "audio": str(DEMO / "river.flac"), "not": ["rain"]}},
    {"op": "query.put", "text": "a car", "max_false_alarms_per_hour": 1.0},
    {"op": "query.put", "query": {"id": "w", "when": '"a car" then "a dog" within 10 s'}},
    {"op": "query.put", "query": {"sum": [{"text": "rain"}, {"text": "a dog", "weight": -0.5}]}},
    {
        "op": "query.put",
        "query": {
            "id": "cut",
            "log": {
                "file": str(DEMO / "demo.mcap"),
                "stream": "microphone",
                "from_s": 2.0,
                "to_s": 3.0,
            },
        },
    },
    {"op": "query.put", "query": {"text": ["rain"], "templates": {"audio": ["the sound of {}"]}}},
    {"op": "query.put", "query": {"id": "v", "vector": "nowhere.npz"}, "more": [1, {"x": 2}]},
    {"op": "query.teach", "query_id": "t", "examples": [MARK], "negatives": [MARK]},
    {"op": "query.teach", "query_id": "t", "examples": [str(DEMO / "river.flac")]},
    {"op": "query.enable", "query_id": "a", "enabled": False, "more": {"x": [0]}},
    {"op": "query.remove", "query_id": "a"},
    {"op": "query.get", "query_id": "a"},
    {"op": "query.list"},
    {"op": "status"},
    {"op": "config.get"},
    {"op": "record.start", "path": "more.mcap"},
    {"op": "record.stop"},
]

numbers = st.sampled_from([0, -1, 1, 1e308, -1e308, 1e-320, 10**30]) | st.floats(
    allow_nan=False, allow_infinity=False
)
texts = st.sampled_from(
    [
        *("", " ", "\0", "a\n", "a", "always", "é" * 3000, "x" * 100_000, "{}", '"', "(((", "\\u"),
        *("10 s", "5 parsecs", "3 h", "a then b within 10 days", "a for 1e9 s", "tcp://x:y@z"),
        *("pipe.wav", "/dev/zero", "/", "..", ".", "nowhere.flac", str(DEMO / "home.jpg")),
        *("microphone", "audio", "imu", "smell", str(DEMO / "demo.yaml")),
    ]
)
shapes: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, [], {}, [None], {"": None}, ["a dog"] * 3000, [{"text": "a"}] * 100]
)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


nasty = numbers | texts | shapes.map(copy.deepcopy) | st.sampled_from([1, 60, 500]).map(nested)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything below `value`, but for the very deep: the keys that lead there."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list) and len(here) < 5:
        keys = list(range(len(value)))
    return [p for key in keys for p in ((*here, key), *places(value[key], (*here, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good request of which up to three values are others, gone, or under another name."""
    request = copy.deepcopy(draw(st.sampled_from(GOOD)))
    op = request.pop("op")
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        if not (known := places(request)):
            break
        *above, key = draw(st.sampled_from(known))
        parent = request
        for step in above:
            parent = parent[step]
        how = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
        old = parent.pop(key)
        if how == "replace" and isinstance(parent, list):
            parent.insert(key, draw(nasty))
        elif how == "replace":
            parent[key] = draw(nasty)
        elif how == "rename" and isinstance(parent, dict):
            parent[draw(texts)] = old
    return request | {"op": op, "id": str(draw(st.uuids()))}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
asked = st.fixed_dictionaries(
    {"id": st.uuids().map(str), "op": st.sampled_from(OPS)}, optional={"query": json_values}
)


def said(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A request with some of its bytes changed, or cut off."""
    body = bytearray(said(draw(mutated())))
    at = draw(st.integers(0, max(0, len(body) - 1)))
    body[at : at + 1] = draw(st.binary(max_size=3))
    return bytes(body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """Frames, of a REQ or a DEALER; most of them a request that is nearly right."""
    kind = draw(st.integers(0, 15))
    if kind > 3:
        frames = [said(draw(mutated()))]
    elif kind > 1:
        # With what is no JSON: NaN, Infinity, numbers of 400 digits.
        frames = [said(draw(asked | json_values | st.just([10**400])))]
    elif kind:
        frames = [draw(damaged() | st.binary(max_size=300))]
    else:
        frames = draw(st.lists(damaged(), min_size=2, max_size=3))
    return [b"", *frames] if draw(st.booleans()) else frames


class Running:
    """The agent in a thread of this process, recording; asked and heard over TCP."""

    def __init__(self, group: ThreadGroup) -> None:
        self.clock = SystemClock()
        self.agent = Agent(build_config(CONFIG), self.clock)
        self.agent.open()
        self.group = group
        group.start("agent", lambda _: self.agent.run())
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.control = self._connected(zmq.DEALER, "bus.control")
        self.upstream = self._connected(zmq.XSUB, "bus.events")
        self.events = Subscriber(self.agent.endpoints["bus.events"], [EVENTS])

    def _connected(self, kind: int, name: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.connect(self.agent.endpoints[name])
        return socket

    def answers(self, op: str, **args: Any) -> list[Reply]:
        """What comes until the answer to a request of `op` that is sent now, with that one."""
        number = uuid.uuid4().hex
        self.control.send(said({"op": op, "id": number, **args}))
        replies: list[Reply] = []
        while not replies or replies[-1].id != number:
            assert self.control.poll(round(PATIENCE_S * 1000)), "the agent does not answer"
            replies.append(msgspec.json.decode(self.control.recv_multipart()[-1], type=Reply))
        return replies

    def next_event(self) -> Event:
        """The first one told of what was heard from now on."""
        now_ns = self.clock.now_ns()
        for _, message in self.events.messages(PATIENCE_S):
            if isinstance(message, Event) and message.end_time.ns >= now_ns:
                return message
        raise AssertionError("the agent tells no more events")

    def close(self) -> None:
        self.agent.stop.set()
        self.events.close()
        self.context.destroy(0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("fuzzed")
    os.mkfifo(folder / "pipe.wav")
    with (folder / "large").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.MonkeyPatch.context() as patch, ThreadGroup(PATIENCE_S) as group:
        patch.chdir(folder)  # where relative paths of requests lead
        running = Running(group)
        try:
            assert running.answers("record.start", path="first.mcap")[-1].ok
            yield running
        finally:
            running.close()
    assert (folder / "first.mcap").stat().st_size


HUGE = 1e308


def put(**query: Any) -> dict[str, Any]:
    return {"op": "query.put", "query": {"id": "it", **query}}


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (put(text="a dog", gate={"hold_s": HUGE}), "gate.hold_s: got 1e+308, expected float <= "),
        (put(text="a dog", max_false_alarms_per_hour=HUGE), "expected float <= 1000000000.0"),
        (put(text="a dog", id="it\n"), "query id: 'it\\n' must be lower-case"),
        (put(text="a dog", id="a" * 900_000), "has 900000 characters, expected at most 2000"),
        (put(text=["a dog"] * 90_000), "has 90000 texts to embed"),
        (put(text=["a"] * 300, templates={"audio": ["{}"] * 300}), "has 90300 texts to embed"),
        (put(text="a dog", **{"not": ["a"] * 20_000}), "have 20001 parts, expected at most 64"),
        (put(sum=[{"text": "a"}] * 20_000), "have 20000 parts, expected at most 64"),
        (put(audio="pipe.wav"), "pipe.wav: empty file, expected audio"),
        (put(image="/dev/zero"), "/dev/zero: empty file, expected image"),
        (put(image="large"), "large: 268435457 bytes, expected at most 268435456"),
        (put(vector="pipe.wav"), "pipe.wav: not a file, expected an .npz"),
        (put(log={"file": "pipe.wav", "stream": "a", "from_s": 0, "to_s": 1}), "not a file"),
        (put(log={"file": "x", "stream": "a", "from_s": HUGE, "to_s": HUGE}), "float <= 1"),
        (put(log={"file": "x", "stream": "a", "from_s": 0, "to_s": 601}), "more than 600 s after"),
        (
            {"op": "query.teach", "query_id": "t", "examples": [MARK | {"seconds": HUGE}]},
            "examples[0].seconds: got 1e+308, expected float <= ",
        ),
        (
            {"op": "query.teach", "query_id": "t", "examples": [MARK], "negatives": [MARK] * 9999},
            "negatives: got 9999, expected 0 to 64",
        ),
        (put(text="a dog", **{"a\n": 1}), "query: 'a\\n': unknown field"),
        (put(text="a dog", **{"x" * 9000: 1}), "xxx..."),
    ],
)
def test_what_would_stop_it_or_keep_it_busy_is_refused(
    running: Running, asked: dict[str, Any], refused: str
) -> None:
    """Before, each of these ended the agent, had it wait for ever, or made it deaf for seconds."""
    (reply,) = running.answers(**asked)
    assert reply.error is not None
    assert refused in reply.error.message
    assert len(reply.error.message) <= MAX_MESSAGE
    assert running.next_event().query.id == "always"


@given(
    sent=st.lists(st.tuples(messages(), st.integers(1, 2)), min_size=5, max_size=20),
    subscribed=st.lists(st.binary(max_size=40), max_size=3),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_it_answers_and_goes_on(
    running: Running, sent: list[tuple[list[bytes], int]], subscribed: list[bytes]
) -> None:
    for frame in subscribed:
        running.upstream.send(frame)
    for frames, times in sent:
        for _ in range(times):
            running.control.send_multipart(frames)
    replies = running.answers("status")
    assert not running.group.failed
    assert len(replies) <= sum(times for _, times in sent) + 1
    assert replies[-1].ok
    for reply in replies:
        if reply.error is not None:
            assert "\n" not in reply.error.message
            assert len(reply.error.message) <= MAX_MESSAGE
    assert {q["id"] for q in running.answers("query.list")[-1].result} >= {"always"}
    assert running.next_event().query.id == "always"
