"""The control operation query.teach on a real Core: marks and files in, a query in force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from agent.clock import NS_PER_S, ManualClock
from agent.config_file import build_config
from agent.control import Operations
from agent.core import Core
from agent.types import Embedding
from agent.wire import Reply, Request
from tests.e2e.commands import ROOT
from tests.fakes.streams import stream

HOP_NS = NS_PER_S // 2


class Rig:
    """An agent's core and its control operations; its microphone is what a test says it is."""

    def __init__(self) -> None:
        self.core = Core(build_config({"bus": {"enabled": False}}), ManualClock(), "boot")
        self.logged: list[Request] = []
        self.operations = Operations(self.core, dict, lambda path: {}, dict, self.logged.append)
        for info in (stream("microphone", "audio"), stream("camera", "image")):
            self.core.matcher.add_stream(info, HOP_NS)
        self.rng = np.random.default_rng(0)
        self.sound = self.core.space.background("audio")[:, 0].mean(axis=0) + self._noise(0.5)
        self.end_ns = 0

    def _noise(self, size: float) -> Any:
        return size * self.rng.normal(size=256) / 16

    def hear(self, heard: bool, count: int = 1, name: str = "microphone") -> list[Any]:
        """`count` windows of 1 s, each with the sound or with something ordinary."""
        events = []
        for _ in range(count):
            self.end_ns += HOP_NS
            bank = self.core.space.background("audio")[:, 0]
            vector = self.sound if heard else bank[self.rng.integers(len(bank))]
            vector = vector + self._noise(0.1)
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            modality = "audio" if name == "microphone" else "image"
            span = (self.end_ns - NS_PER_S, self.end_ns)
            self.core.clock.advance_to_ns(self.end_ns)
            events += self.core.observe(
                Embedding(self.core.space.identity, vector, modality, name, *span)
            )
        return events

    def ask(self, op: str, **args: Any) -> Reply:
        return self.operations.handle(Request(op=op, id="1", args=args))


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.core.close()


MARK = {"stream": "microphone", "seconds": 2}


def test_what_was_marked_is_found_in_the_next_window(rig: Rig) -> None:
    rig.hear(False, 8)
    rig.hear(True, 4)
    reply = rig.ask("query.teach", query_id="it", label="that sound", examples=[MARK])
    assert reply.ok, reply.error
    assert (reply.result["method"], reply.result["left_out"]) == ("prototype", [])
    assert reply.result["mean_z"] is None
    assert reply.result["background"] == len(rig.core.space.background("audio"))
    (event,) = rig.hear(True)
    assert (event.phase, event.query.id, event.query.label) == ("start", "it", "that sound")
    assert event.query.rev == reply.result["rev"]
    assert [e.stream for e in event.evidence] == ["microphone"]


def test_several_marks_have_a_left_out_score(rig: Rig) -> None:
    for _ in range(3):
        rig.hear(False, 6)
        rig.hear(True, 4)
    marks = [MARK | {"ago_s": ago_s} for ago_s in (0, 5, 10)]
    other = MARK | {"ago_s": 2.5}
    reply = rig.ask("query.teach", query_id="it", examples=marks, negatives=[other])
    assert reply.ok, reply.error
    assert reply.result["found"] == len(reply.result["left_out"]) == 3
    assert all(told["rank"] == 1 for told in reply.result["left_out"])
    assert reply.result["negatives"][0]["z"] < min(t["z"] for t in reply.result["left_out"])
    assert not rig.hear(False, 8)
    assert rig.hear(True)


def test_the_log_has_what_was_learned_and_another_agent_does_it_again(rig: Rig) -> None:
    rig.hear(True, 4)
    taught = rig.ask("query.teach", query_id="it", examples=[MARK])
    assert taught.ok, taught.error
    (request,) = rig.logged
    assert request.op == "query.put"
    again = Rig()
    try:
        request = msgspec.json.decode(msgspec.json.encode(request), type=Request)
        put = again.operations.handle(request)
        assert put.ok, put.error
        assert put.result["rev"] == taught.result["rev"]
        for core in (rig.core, again.core):
            assert core.queries.get("it").config == rig.core.queries.get("it").config
        assert again.hear(True)
    finally:
        again.core.close()


def test_the_reply_is_json_and_can_be_put(rig: Rig) -> None:
    rig.hear(True, 4)
    reply = msgspec.json.decode(
        msgspec.json.encode(rig.ask("query.teach", query_id="it", examples=[MARK])), type=Reply
    )
    put = rig.ask("query.put", query={"id": "copy", "taught": reply.result["taught"]})
    assert put.ok, put.error


def test_files_of_two_senses_and_what_else_is_refused_changes_nothing(
    rig: Rig, tmp_path: Path
) -> None:
    demo = ROOT / "configs" / "demo"
    river, home = str(demo / "river.flac"), str(demo / "home.jpg")
    rig.hear(True, 4)
    version = rig.core.queries.version
    (tmp_path / "x.png").write_bytes(b"x")
    for args, message in (
        ({"examples": [river, home]}, "examples: are of audio and image, expected one sense"),
        ({"examples": []}, "examples: got 0, expected 1 to 8"),
        ({"examples": [river] * 9}, "examples: got 9, expected 1 to 8"),
        ({"examples": [str(tmp_path / "x.png")]}, "of which sense? expected modality beside it"),
        ({"examples": ["nowhere.wav"]}, "nowhere.wav: cannot be read (No such file"),
        ({"examples": [home], "modality": "audio"}, "home.jpg: cannot be read"),
        ({"examples": [MARK | {"stream": "radar"}]}, "got 'radar'"),
        ({"examples": [MARK | {"seconds": 0.2}]}, "no whole window in the 0.2 s"),
        ({"examples": [MARK | {"seconds": -1}]}, "query.teach: examples[0].seconds: got -1"),
        ({"examples": [MARK], "method": "magic"}, "query.teach: method: got 'magic'"),
        ({"examples": [MARK], "senses": ["smell"]}, "senses: got 'smell'"),
        ({"examples": [MARK], "query_id": "No Good"}, "query.teach: query_id: got 'No Good'"),
        ({"examples": [MARK], "colour": "red"}, "colour"),
    ):
        reply = rig.ask("query.teach", **({"query_id": "it"} | args))
        assert reply.error is not None, args
        assert message in reply.error.message, (message, reply.error.message)
        assert "\n" not in reply.error.message
    assert rig.core.queries.version == version
    assert rig.logged == []


def test_files_are_taught_with_how_to_do_it_again(rig: Rig) -> None:
    river = str(ROOT / "configs" / "demo" / "river.flac")
    reply = rig.ask("query.teach", query_id="river", examples=[river, river], method="prototype")
    assert reply.ok, reply.error
    assert [told["rank"] for told in reply.result["left_out"]] == [1, 1]
    assert reply.result["taught"]["source"].startswith(f"--example {river} --example {river} --id")


def test_a_vector_of_another_space_is_refused(rig: Rig) -> None:
    rig.hear(True, 4)
    taught = rig.ask("query.teach", query_id="it", examples=[MARK]).result["taught"]
    reply = rig.ask("query.put", query={"id": "it", "taught": taught | {"space": "compact@old"}})
    assert reply.error is not None
    assert reply.error.code == "SpaceMismatch"
    assert reply.error.message.startswith("query it: vector: was taught in compact@old, expected")
