"""The change gate, clips and a rate limit on a real log: what they spare, and that it is exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.config_file import load_config
from agent.replay import ReplayOptions, replay
from agent.types import Embedding
from agent.wire import Event, encode
from tests.e2e.commands import ROOT, refused, run

LOG, CONFIG = ROOT / "configs" / "demo" / "demo.mcap", ROOT / "configs" / "demo.yaml"


def play(*settings: str, to_s: float = 20.0) -> tuple[list[Embedding], list[Event]]:
    embeddings: list[Embedding] = []
    events: list[Event] = []
    replay(
        load_config(CONFIG, [f"space.towers.{each}" for each in settings]),
        LOG,
        ReplayOptions(to_s=to_s),
        events.append,
        on_embedding=embeddings.append,
    )
    return embeddings, events


def test_a_replay_with_all_of_it_gives_the_same_again() -> None:
    settings = ("audio.change=0.5", "audio.clips=3", "image.max_hz=1", "imu.max_duty=0.01")
    first, events = play(*settings)
    again, events_again = play(*settings)
    assert [(e.end_ns, e.reused, e.vector.tobytes()) for e in first] == [
        (e.end_ns, e.reused, e.vector.tobytes()) for e in again
    ]
    assert [encode(e) for e in events] == [encode(e) for e in events_again]
    ends = {m: [e.end_ns for e in first if e.modality == m] for m in ("image", "audio", "imu")}
    assert {b - a for a, b in zip(ends["image"], ends["image"][1:], strict=False)} == {10**9}
    assert {b - a for a, b in zip(ends["imu"], ends["imu"][1:], strict=False)} == {10**9 // 2}
    assert any(e.reused for e in first if e.modality == "audio")
    assert not any(e.reused for e in first if e.modality != "audio")
    reused = [
        part.reused for event in events for part in event.evidence if part.modality == "audio"
    ]
    assert True in reused
    assert False in reused


def test_gate_says_what_is_spared_and_what_is_missed(tmp_path: Path) -> None:
    log = LOG.parent / "demo.mcap"
    out = tmp_path / "gate.json"
    result = run(
        "tools.bench", "gate", "--log", log, "--config", CONFIG, "--senses", "audio",
        "--thresholds", "0,0.5", "--json", out,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    never, often = json.loads(out.read_text())["rows"]
    assert never["calls_spared"] == 0
    assert (never["recall"], never["extra"], never["cosine_mean"]) == (1.0, 0, None)
    assert often["windows"] == never["windows"] > 100
    assert 0.3 < often["calls_spared"] < 0.8
    assert often["recall"] == 1.0
    assert 0.8 < often["cosine_p05"] <= often["cosine_mean"] <= 1


def test_still_says_how_small_an_object_opens_it(tmp_path: Path) -> None:
    out = tmp_path / "still.json"
    result = run("tools.bench", "still", "--log", LOG, "--json", out)
    assert result.returncode == 0, result.stderr
    for row in json.loads(out.read_text())["rows"]:
        assert row["still"] < 0.2
        assert row["objects"] == sorted(row["objects"])
        assert row["objects"][-1] == 1.0
        assert row["by_mean"] < row["objects"][2]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--senses", "smell"), ("--senses", "'smell'", "audio")),
        (("--thresholds", "a"), ("--thresholds", "'a'", "numbers")),
    ],
)
def test_wrong_options_are_told_in_one_line(
    option: tuple[str, str], words: tuple[str, ...]
) -> None:
    refused(run("tools.bench", "gate", "--log", LOG, "--config", CONFIG, *option), 2, *words)
