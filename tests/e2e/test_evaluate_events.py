"""tools/evaluate.py events: the figures of a log that was made, and the tape kept beside it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.config_file import load_config
from agent.replay import ReplayOptions, match_again, replay
from agent.wire import Event
from tools import evaluate
from tools.event_labels import Label, Labels
from tools.log_tape import tape_of
from tools.made_log import write_log
from tools.planted_motion import IMU, motion, samples
from tools.planting import Plant, Planted

START_NS = 1_767_225_600_000_000_000
SECONDS = 40.0
CONFIG = """
agent: test
queries:
- {id: running, text: running, senses: [imu]}
- {id: rowing, text: rowing exercise, senses: [imu]}
match: {gate: {enter: 0.01, exit: 0.005}}
bus: {enabled: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """walk.mcap: arms that swing from 20 s on for 12 s, and nothing else that is asked for."""
    path = tmp_path_factory.mktemp("labelled")
    t_s = np.arange(600) / 50
    swing = np.sin(2 * np.pi * 1.4 * t_s)[:, np.newaxis] * [6.0, 9.0, 4.0, 2.0, 1.0, 2.0]
    swing[:, 2] += 9.81
    plant = Plant(Planted("moving", "made", swing.astype(np.float32), 12.0), 20.0, 6.0)
    data = motion([plant], SECONDS, np.random.default_rng(3))
    write_log(path / "walk.mcap", [IMU], samples(data, START_NS), agent="made", metadata={})
    label = Label(kind="moving", log="walk.mcap", from_s=20.0, to_s=32.0, db=6.0)
    labels = Labels(queries={"running": "moving", "rowing": "moving"}, events=[label])
    (path / "LABELS.json").write_bytes(msgspec.json.encode(labels))
    (path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    return path


def told(event: Event) -> tuple[object, ...]:
    return event.query.id, event.phase, event.start_time, event.end_time, event.score


def test_matching_again_tells_what_the_replay_told(folder: Path) -> None:
    config = load_config(folder / "config.yaml", ())
    log = folder / "walk.mcap"
    whole: list[Event] = []
    again: list[Event] = []
    replay(config, log, ReplayOptions(), whole.append)
    tape = tape_of(config, log)
    match_again(config, [tape], again.append)
    assert tape.origin_ns == START_NS
    assert list(map(told, again)) == list(map(told, whole))
    assert again


def test_figures_and_one_tape_for_many_runs(folder: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "out.png"
    args = ["events", "--log", folder / "walk.mcap", "--labels", folder / "LABELS.json"]
    args += ["--config", folder / "config.yaml", "--json", out]
    assert evaluate.main([str(arg) for arg in (*args, "--compare", "--plot", plot)]) == 0
    figures = json.loads(out.read_text())
    assert set(figures["queries"]) == {"running", "rowing"}
    assert figures["all"]["happened"] == 2
    low, high = figures["all"]["per_hour_95"]
    assert low <= figures["all"]["per_hour"] <= high
    assert set(figures["compared"]) == {"rarity", "fixed cosine", "global z"}
    assert plot.read_bytes().startswith(b"\x89PNG")
    (tape,) = folder.glob("*.tape")
    made_ns = tape.stat().st_mtime_ns
    assert evaluate.main([str(arg) for arg in args]) == 0
    assert tape.stat().st_mtime_ns == made_ns
    assert "compared" not in json.loads(out.read_text())


def test_a_query_that_no_label_knows_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "LABELS.json"
    other.write_bytes(msgspec.json.encode(Labels(queries={"running": "moving"}, events=[])))
    args = ["events", "--log", folder / "walk.mcap", "--labels", other]
    args += ["--config", folder / "config.yaml"]
    assert evaluate.main([str(arg) for arg in args]) == 2
    assert "no kind for query 'rowing'" in capsys.readouterr().err
