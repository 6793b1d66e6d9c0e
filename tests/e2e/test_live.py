"""The agent live, as a person runs it: python -m agent, watched over TCP from this process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from mcap.reader import make_reader
from PIL import Image

from agent.publish.client import Subscriber, request
from agent.wire import Event, Health, ScoreMessage, SensorStatus, WireStruct
from tests.e2e.commands import ROOT, run


@dataclass
class Running:
    process: subprocess.Popen[str]
    events: str
    control: str


@contextmanager
def agent(*args: str | Path) -> Iterator[Running]:
    """The agent on free ports, stopped by SIGTERM at the end."""
    command = [sys.executable, "-W", "error", "-m", "agent", *map(str, args)]
    command += ["--set", "bus.events=tcp://127.0.0.1:*", "--set", "bus.control=tcp://127.0.0.1:*"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            addresses = dict(process.stdout.readline().split() for _ in range(2))
            yield Running(process, addresses["bus.events"], addresses["bus.control"])
        finally:
            process.terminate()
            process.communicate(timeout=30)


def test_events_come_in_order_without_gaps_and_are_recorded(tmp_path: Path) -> None:
    """A real log at true speed, listened to until it has played to its end, and recorded."""
    heard: list[WireStruct] = []
    config = ROOT / "configs" / "demo.yaml"
    recording = tmp_path / "again.mcap"
    part = ("--set", "drivers.demo.to_s=12")
    with agent("--config", config, *part, "--record", recording) as running:
        with Subscriber(running.events) as bus:
            for _, message in bus.messages(10.0):
                heard.append(message)
                if isinstance(message, SensorStatus) and message.state == "ended":
                    break
            ended = [m for m in heard if isinstance(m, SensorStatus) and m.state == "ended"]
            assert ended, heard[-3:]
            for _, message in bus.messages(3.0):
                heard.append(message)
            assert not any(bus.gaps.values()), bus.gaps
        assert running.process.wait(20) == 0
    events = [m for m in heard if isinstance(m, Event) and not m.retained]
    per_id: dict[str, list[Event]] = {}
    for event in events:
        per_id.setdefault(event.id, []).append(event)
    assert {e.query.id for e in events} >= {"a_clock_ticking", "home"}
    assert not {e.query.id for e in events} & {"a_baby_crying", "a_butterfly"}
    for story in per_id.values():
        assert [e.revision for e in story] == list(range(story[0].revision, len(story)))
        assert story[-1].phase == "end"
        assert all(e.phase != "start" for e in story[1:])
        assert all(e.latency_ms.total >= e.latency_ms.embed_to_event >= 0 for e in story)
    assert any(isinstance(m, ScoreMessage) for m in heard)
    healths = [m for m in heard if isinstance(m, Health)]
    assert {h.hop for m in healths for h in m.latency_ms} >= {"window", "encode", "match"}
    # What was recorded meanwhile is whole, and holds what was sent.
    with recording.open("rb") as file:
        reader = make_reader(file)
        topics = [channel.topic for _, channel, _ in reader.iter_messages()]
        metadata = {m.name: m.metadata for m in reader.iter_metadata()}
    assert topics.count("/events_full") >= len(events)
    assert topics.count("/camera") == 120
    assert topics.count("/clock") == topics.count("/health") >= 12
    assert topics.count("/embeddings") >= 23 + 19  # of camera and microphone; the watch's need 5 s
    ledger = next(m for m in metadata.values() if "complete" in m)
    assert ledger["complete"] == "true"
    assert json.loads(ledger["camera"]) == {"received": 120, "written": 120, "dropped": 0}
    sound = json.loads(ledger["microphone"])
    assert sound["received"] == sound["written"] >= 11.8 * 16_000


def test_limits_and_reuse_are_told_in_health() -> None:
    limits = ("image.max_hz=1", "depth.max_duty=0.0001", "audio.change=100", "imu.clips=2")
    settings = [part for each in limits for part in ("--set", f"space.towers.{each}")]
    config = ROOT / "configs" / "synthetic.yaml"
    with agent("--config", config, *settings) as running, Subscriber(running.events) as bus:
        for _, message in bus.messages(20.0):
            if isinstance(message, Health) and message.uptime_s > 6:
                break
    assert isinstance(message, Health)
    streams = {stream.modality: stream for stream in message.streams}
    told = {m: (s.hop_asked_s, s.hop_s, s.hop_reason) for m, s in streams.items()}
    assert told["image"] == (0.5, 1.0, "max_hz")
    assert told["audio"] == told["thermal"] == told["imu"] == (0.5, 0.5, "")
    asked, hop_s, reason = told["depth"]
    assert (asked, reason) == (0.5, "max_duty")
    assert hop_s is not None
    assert hop_s > 0.5
    assert hop_s % 0.5 == 0
    assert all(0 <= (s.duty or 0) <= 1 for s in streams.values())
    assert streams["audio"].reused > 0
    assert streams["audio"].windows == 1
    assert streams["image"].reused == streams["thermal"].reused == 0


def test_control_while_running(tmp_path: Path) -> None:
    config = ROOT / "configs" / "synthetic.yaml"
    log = tmp_path / "on_request.mcap"
    with agent("--config", config) as running:

        def ask(op: str, **args: object) -> object:
            reply = request(running.control, op, 10.0, **args)
            assert reply.ok, reply.error
            return reply.result

        assert {q["id"] for q in ask("query.list")} == {"a_dog", "a_siren", "a_person_walking"}
        gate = {"enter": 0.0, "exit": 0.0}
        put = ask("query.put", query={"id": "anything", "text": "a room", "gate": gate})
        assert put["id"] == "anything"
        ask("record.start", path=str(log))
        with Subscriber(running.events, ["sensebind/v1/synthetic/event/anything/"]) as bus:
            told = bus.receive(10.0)
        assert told is not None
        assert isinstance(told[1], Event)
        ask("query.enable", query_id="anything", enabled=False)
        ask("query.remove", query_id="anything")
        ledger = ask("record.stop")["ledger"]
        assert all(counts["received"] == counts["written"] for counts in ledger.values())
        assert any(counts["written"] for counts in ledger.values())
        status = ask("status")
        assert status["health"]["queries"] == 3
        refused = request(running.control, "query.put", 10.0, query={"text": "x", "colour": "red"})
        assert not refused.ok
        assert "colour" in refused.error.message
        assert not request(running.control, "record.stop", 10.0).ok
    # Changes made while recording are done again by a replay of the log, at their own time.
    out = tmp_path / "events.jsonl"
    result = run("tools.replay", "--log", log, "--events", out)
    assert result.returncode == 0, result.stderr


def test_a_replay_does_the_controls_again(tmp_path: Path) -> None:
    log, out = tmp_path / "controls.mcap", tmp_path / "events.jsonl"
    config = ROOT / "configs" / "demo.yaml"
    quiet = ("--set", "queries=[]", "--set", "drivers.demo.to_s=10")
    with agent("--config", config, *quiet, "--record", log) as running:
        query = {"id": "ticking", "text": "a clock ticking"}
        assert request(running.control, "query.put", 10.0, query=query).ok
        assert running.process.wait(30) == 0
    result = run("tools.replay", "--log", log, "--set", "match.z_mid=2.6", "--events", out)
    assert result.returncode == 0, result.stderr
    ids = {json.loads(line)["query"]["id"] for line in out.read_text().splitlines()}
    assert ids == {"ticking"}


def test_a_late_joiner_is_told_what_is_open() -> None:
    config = ROOT / "configs" / "synthetic.yaml"
    always = "queries=[{id: always, text: a room, gate: {enter: 0.0, exit: 0.0}}]"
    with agent("--config", config, "--set", always) as running:
        with Subscriber(running.events, ["sensebind/v1/synthetic/event/"]) as first:
            assert first.receive(10.0) is not None
        with Subscriber(running.events, ["sensebind/v1/synthetic/"]) as late:
            retained = []
            for _, message in late.messages(5.0):
                if isinstance(message, Event | SensorStatus) and message.retained:
                    retained.append(type(message))
                if retained.count(SensorStatus) >= 5 and Event in retained:
                    break
    assert Event in retained
    assert retained.count(SensorStatus) >= 5


def test_vectors_and_pictures_are_on_the_bulk_socket_only() -> None:
    config = ROOT / "configs" / "synthetic.yaml"
    with agent("--config", config, "--set", "bus.bulk=tcp://127.0.0.1:*") as running:
        assert running.process.stdout is not None
        name, bulk = running.process.stdout.readline().split()
        assert name == "bus.bulk"
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.subscribe("sensebind/v1/synthetic/")
            socket.connect(bulk)
            found: dict[str, tuple[dict[str, Any], list[bytes]]] = {}
            while len(found) < 2:
                assert socket.poll(20_000), found.keys()
                topic, body, *frames = socket.recv_multipart()
                found[topic.decode().split("/")[3]] = json.loads(body), frames
    told, frames = found["embedding"]
    assert told["modality"] == "image"
    float16 = "application/x-float16"
    assert told["attachments"] == [{"media_type": float16, "bytes": len(f)} for f in frames]
    vectors = np.frombuffer(b"".join(frames), "<f2").reshape(-1, told["dim"]).astype(float)
    assert len(frames[0]) == 2 * told["dim"]
    assert len(vectors) == 1 + len(told["views"]) > 1
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-2)
    told, (jpeg,) = found["preview"]
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert picture.size == (told["width"], told["height"]) == (640, 480)


def test_list_schema_and_help_are_quick_to_import(tmp_path: Path) -> None:
    """House rule: what lists or checks loads no torch, cv2, zmq or onnxruntime."""
    code = (
        "import sys; from agent.cli import main; main(['--list']); main(['--schema']);"
        "bad = {'torch', 'cv2', 'zmq', 'onnxruntime', 'av', 'pyvrs'} & set(sys.modules);"
        "assert not bad, bad"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert result.returncode == 0, result.stderr
    for word in ("media", "synthetic", "log", "compact@", "Apache-2.0", '"$schema"'):
        assert word in result.stdout


def test_the_demo_without_a_terminal() -> None:
    result = run("tools.demo", "--set", "drivers.demo.to_s=9")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any('start "a clock ticking" microphone' in line for line in lines), lines
    assert "camera" in lines[-3] or "camera" in result.stdout
    assert result.stderr == ""
