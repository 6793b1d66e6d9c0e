"""tools.teach and query.teach, as a person uses them on the demo's log, recorded and live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.publish.client import Subscriber, request
from agent.wire import Event, Health
from tests.e2e.commands import ROOT, refused, run
from tests.e2e.test_live import agent
from tools.teach import main

DEMO = ROOT / "configs" / "demo"
LOG = DEMO / "demo.mcap"
# A clock ticks from 1.5 to 8 and from 52 to 58.5 (configs/demo.yaml); the log begins on a second.
TICKING = ("--log", LOG, "--stream", "microphone", "--at", "2-4.5", "--at", "5-7.5")


def starts(events: Path) -> list[tuple[str, float]]:
    """(query, seconds into the demo) of each event that began."""
    told: list[dict[str, Any]] = [json.loads(line) for line in events.read_text().splitlines()]
    return [
        (e["query"]["id"], e["start_time"]["sec"] % 100 + e["start_time"]["nsec"] / 1e9)
        for e in told
        if e["phase"] == "start"
    ]


# A probe spreads scores: what it is sure of is at 7 and more, and steps come up to 4.5.
@pytest.mark.parametrize(("method", "z_mid"), [("prototype", 2.9), ("ridge", 4.2)])
def test_two_parts_of_a_log_find_the_third(tmp_path: Path, method: str, z_mid: float) -> None:
    out, events = tmp_path / "ticking.npz", tmp_path / "events.jsonl"
    config = ("--config", ROOT / "configs" / "demo.yaml")
    asked = ("--id", "ticking", "--method", method, "--negative", DEMO / "river.flac")
    result = run("tools.teach", *asked, *TICKING, *config, "--out", out)
    assert result.returncode == 0, result.stderr
    assert f"ticking: {method} of 2; left out, 2 of 2 would be found" in result.stdout
    assert f"not {DEMO / 'river.flac'}" in result.stdout
    asked = f"queries=[{{vector: {json.dumps(str(out))}}}]", f"match.z_mid={z_mid}"
    sets = [part for each in asked for part in ("--set", each)]
    result = run("tools.replay", "--log", LOG, *config, *sets, "--events", events, "--quiet")
    assert result.returncode == 0, result.stderr
    found = starts(events)
    assert {query for query, _ in found} == {"ticking"}
    assert any(51 <= at <= 55 for _, at in found), found
    assert all(at <= 8 or 51 <= at <= 59 for _, at in found), found


def test_what_a_running_agent_has_just_heard(tmp_path: Path) -> None:
    """Taught over the control socket while the clock ticks; the log of it replays the same."""
    log, events, out = (tmp_path / name for name in ("log.mcap", "events.jsonl", "it.npz"))
    part = ("--set", "queries=[]", "--set", "drivers.demo.to_s=10", "--record", log)
    with agent("--config", ROOT / "configs" / "demo.yaml", *part) as running:
        with Subscriber(running.events) as bus:
            for _, message in bus.messages(20.0):
                if isinstance(message, Health) and message.uptime_s >= 5:
                    break
            there = ("--id", "tick", "--agent", running.control, "--mark", "microphone:2.5")
            assert main([*there, "--out", str(out)]) == 0
            told = next(m for _, m in bus.messages(10.0) if isinstance(m, Event))
        assert (told.phase, told.query.id) == ("start", "tick")
        # And as a file into the same agent, by another name.
        again = ("--id", "third", *map(str, TICKING), "--agent", running.control)
        assert main(list(again)) == 0
        listed = request(running.control, "query.list", 10.0)
        assert [query["id"] for query in listed.result] == ["tick", "third"]
        assert running.process.wait(30) == 0
    with np.load(out, allow_pickle=False) as arrays:
        assert np.linalg.norm(arrays["vector"]) == pytest.approx(1, abs=1e-5)
        assert str(arrays["source"]) == ""
    result = run("tools.replay", "--log", log, "--events", events, "--quiet")
    assert result.returncode == 0, result.stderr
    assert "tick" in {query for query, _ in starts(events)}
    # In a space of another hash its vector means nothing: said, and the rest is replayed.
    other = ("--set", "space={path: compact, precision: int8}")
    result = run("tools.replay", "--log", log, *other, "--events", events, "--quiet")
    assert result.returncode == 0, result.stderr
    assert starts(events) == []
    told = [line for line in result.stderr.splitlines() if "query tick: vector: was taught" in line]
    assert len(told) == 1
    assert told[0].endswith("teach it again: query.teach or tools.teach")


def test_one_example_says_that_it_has_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "home.npz"
    assert main(["--id", "home", "--example", str(DEMO / "home.jpg"), "--out", str(out)]) == 0
    assert "home: prototype of one example; with two, a left-out score is told" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), ("examples: got 0", "1 to 8")),
        (("--example", "nowhere.wav"), ("nowhere.wav", "No such file")),
        (("--example", "a.tif"), ("a.tif", "modality")),
        (("--example", DEMO / "home.jpg", "--example", DEMO / "river.flac"), ("one sense",)),
        (("--id", "No Good", "--example", DEMO / "home.jpg"), ("query_id", "No Good")),
        (("--space", "nowhere", "--example", DEMO / "home.jpg"), ("nowhere", "compact")),
        (("--log", LOG, "--stream", "microphone", "--at", "7-3"), ("--at", "7-3", "FROM-TO")),
        (("--log", LOG, "--stream", "microphone", "--at", "900-903"), ("900-903", "nothing")),
        (("--log", LOG, "--stream", "radar", "--at", "2-4"), ("radar", "microphone")),
        (("--log", "nowhere.mcap", "--stream", "mic", "--at", "2-4"), ("nowhere.mcap",)),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str | Path, ...],
    words: tuple[str, ...],
) -> None:
    out = tmp_path / "out.npz"
    assert main(["--id", "it", *map(str, args), "--out", str(out)]) in (2, 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line, (word, line)
    assert not out.exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--example", "a.wav"), "--out FILE.npz, --agent ADDRESS or both"),
        (("--at", "2-3", "--out", "x.npz"), "go together"),
        (("--mark", "mic:3", "--out", "x.npz"), "--agent is needed"),
        (("--agent", "tcp://127.0.0.1:1", "--key", "k"), "--server-key go together"),
    ],
)
def test_arguments_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit):
        main(["--id", "it", *args])
    assert words in capsys.readouterr().err


def test_a_query_of_another_space_is_refused_before_anything_opens(tmp_path: Path) -> None:
    out, other = tmp_path / "it.npz", tmp_path / "other.npz"
    assert main(["--id", "it", "--example", str(DEMO / "home.jpg"), "--out", str(out)]) == 0
    with np.load(out, allow_pickle=False) as arrays:
        np.savez(other, **{**arrays, "space": np.array("compact@000000000000")})
    queries = ("--set", f"queries=[{{vector: {json.dumps(str(other))}}}]")
    result = run("agent", "--config", ROOT / "configs" / "demo.yaml", *queries, "--check")
    refused(result, 3, "query other", "compact@000000000000", "python -m tools.teach", "home.jpg")
