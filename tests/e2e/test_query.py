"""tools.query, as a person uses it on a running agent, and what a subscriber sees of it."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from agent.publish.client import Subscriber, request
from agent.wire import EmbeddingMessage, Event
from tests.e2e.commands import ROOT, run
from tests.e2e.test_live import agent
from tools.query import main

DEMO = ROOT / "configs" / "demo"
CONFIG = ROOT / "configs" / "synthetic.yaml"


def counters(control: str) -> tuple[dict[str, int], Counter[str]]:
    """What the agent itself counts: windows by stream, and all that may be lost on the way."""
    health = request(control, "status", 10.0).result["health"]
    lost = Counter(health["drops"])
    for stream in health["streams"]:
        for what in ("lost", "bad", "overruns", "skipped"):
            lost[f"{stream['stream']} {what}"] = stream[what]
    return {s["stream"]: s["windows"] for s in health["streams"]}, +lost


@pytest.mark.parametrize("already", [3, 1000])
def test_a_query_counts_from_the_next_window_and_costs_none(tmp_path: Path, already: int) -> None:
    """The vectors that the bus tells are of every hop before and after, and the agent counts none
    lost; the event is of the first window that ended once the command had begun, or of one that was
    still under way.
    """
    known = yaml.safe_load(CONFIG.read_text())
    known["queries"] = [{"text": "a dog", "id": f"q{n}"} for n in range(already)]
    known["bus"] = {"score_hz": 0}
    streams = known["drivers"]["senses"]["streams"]
    for name in ("camera", "depth", "thermal"):  # what a slow machine may skip in any case
        del streams[name]
    config = tmp_path / "known.yaml"
    config.write_text(yaml.safe_dump(known))
    asked = tmp_path / "asked.yaml"
    gate = {"enter": 0.0, "exit": 0.0}
    query = {"id": "it", "text": "a room", "streams": ["microphone"], "gate": gate}
    asked.write_text(yaml.safe_dump({"queries": [query]}))
    with agent("--config", config, "--set", "bus.bulk=tcp://127.0.0.1:*") as running:
        assert running.process.stdout is not None
        bulk = running.process.stdout.readline().split()[1]
        topics = "sensebind/v1/synthetic/"
        with (
            Subscriber(bulk, [f"{topics}embedding/microphone/"]) as vectors,
            Subscriber(running.events, [f"{topics}event/it/"]) as events,
        ):
            ends = []
            for _, message in vectors.messages(10.0):
                assert isinstance(message, EmbeddingMessage)
                ends.append(message.window.end.ns)
                if len(ends) == 4:
                    windows, lost = counters(running.control)
                    assert main(["add", "--from", str(asked), "--connect", running.control]) == 0
                    put_ns = time.time_ns()
                if len(ends) == 12:
                    break
            told = events.receive(5.0)
        windows_after, lost_after = counters(running.control)
    assert told is not None
    event = told[1]
    assert isinstance(event, Event)
    (evidence,) = event.evidence
    assert evidence.window is not None
    first_ns = evidence.window.end.ns
    assert not [end for end in ends if put_ns < end < first_ns], "a window passed it by"
    assert {b - a for a, b in pairwise(ends)} == {500_000_000}, "none dropped"
    assert lost_after == lost
    # Eight have come since, and health is of each second.
    assert windows_after["microphone"] - windows["microphone"] >= 5


def test_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with agent("--config", CONFIG, "--set", "queries=[]") as running:

        def said(*args: str | Path) -> str:
            assert main([*map(str, args), "--connect", running.control]) == 0
            return capsys.readouterr().out

        assert "a_dog_barking" in said("add", "a dog barking", "a barking dog", "--not", "music")
        river = DEMO / "river.flac"
        assert said("add", "--audio", river, "--id", "river").endswith("added\n")
        assert said("add", "--audio", river, "--id", "river").endswith("unchanged\n")
        assert said("add", "--audio", river, "--id", "river", "--senses", "audio").endswith(
            "changed\n"
        )
        said("add", "--part", "{text: a dog}", "--part", f"{{audio: {river}, weight: -0.5}}")
        cut = (DEMO / "demo.mcap", "microphone", "2", "4.5")
        said("add", "--log", *cut, "--id", "ticking", "--template", "image=a photo of {}")
        said("add", "--when", 'river then "a dog" within 10 s', "--id", "shore")
        shown = yaml.safe_load(said("show", "shore"))
        assert shown == [
            {
                "id": "shore",
                "label": 'river then "a dog" within 10 s',
                "when": 'river then "a dog" within 10 s',
            }
        ]
        summed = yaml.safe_load(said("show", "a_dog_river"))[0]["sum"]
        assert summed == [
            {"text": "a dog", "weight": 1.0},
            {"audio": str(river), "weight": -0.5},
        ]
        # What is shown is a file of queries again.
        asked = tmp_path / "asked.yaml"
        asked.write_text(f"queries:\n{said('show', 'ticking')}")
        assert said("add", "--from", asked).endswith("unchanged\n")
        assert said("enable", "river", "--off") == "river off\n"
        assert "no" in next(line for line in said("list").splitlines() if "river " in line)
        assert main(["remove", "river", "--connect", running.control]) == 2
        assert "`when` of shore names" in capsys.readouterr().err
        said("remove", "shore")
        said("remove", "river")
        ids = [query["id"] for query in request(running.control, "query.list", 10.0).result]
        assert ids == ["a_dog_barking", "a_dog_river", "ticking"]
        address = tmp_path / "agent.yaml"
        address.write_text(f"bus: {{control: '{running.control}'}}\n")
        assert main(["list", "--config", str(address)]) == 0
        assert address.read_text().startswith("bus:")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("add",), ("exactly one of", "got none")),
        (("add", "a dog", "--audio", "x.wav"), ("exactly one of", "'text', 'audio'")),
        (("add", "--part", "{txt: a dog}"), ("txt", "did you mean")),
        (("add", "--part", "{"), ("--part", "YAML")),
        (("add", "a dog", "--template", "audio"), ("--template", "SENSE=SENTENCE")),
        (("add", "--log", "a.mcap", "mic", "x", "3"), ("--log", "FROM_S")),
        (("add", "a dog", "--from", "x.yaml"), ("--from", "alone")),
        (("list", "--connect", "nowhere"), ("nowhere", "cannot connect")),
    ],
)
def test_what_is_refused_is_one_line(
    args: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before an agent is asked: there is none."""
    connect = () if "--connect" in args else ("--connect", "ipc:///nowhere/agent")
    assert main([*args, *connect]) in (2, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_its_help_has_an_example() -> None:
    result = run("tools.query", "--help")
    assert result.returncode == 0
    assert 'python -m tools.query add "a dog barking"' in result.stdout
