"""tools/calibrate.py on a real log: what it learned is what an agent begins with, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.config_file import build_config
from agent.match.calibrated import read_calibration
from agent.replay import ReplayOptions, replay
from tests.e2e.commands import ROOT, run
from tools.npz import write_npz

DEMO = ROOT / "configs" / "demo" / "demo.mcap"
QUERIES = [{"text": "a rocket"}, {"text": "someone walking", "senses": ["imu"]}]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    config = folder / "quiet.yaml"
    config.write_text(json.dumps({"queries": QUERIES}))
    out = folder / "quiet.npz"
    args = ("--log", DEMO, "--config", config, "--out", out, "--to", "20")
    result = run("tools.calibrate", *args)
    assert result.returncode == 0, result.stderr
    assert "someone_walking" in result.stdout
    return out


def config(calibration: Path | None, **query: Any) -> Any:
    match = {"max_false_alarms_per_hour": 1}
    if calibration:
        match |= {"calibration": str(calibration)}  # type: ignore[dict-item]
    return build_config({"queries": [QUERIES[0] | query, QUERIES[1]], "match": match})


def scores(calibration: Path | None) -> dict[str, Any]:
    """By query, the newest of seven seconds of the log."""
    told: dict[str, Any] = {}
    cores: list[Any] = []

    def look(embedding: Any) -> None:
        for message in cores[0].matcher.scores(embedding.end_ns):
            told[message.query.id] = message

    options = ReplayOptions(None, 20.0, 27.0)
    replay(
        config(calibration), DEMO, options, lambda event: None,
        on_embedding=look, on_streams=cores.append,
    )  # fmt: skip
    return told


def test_an_agent_begins_with_what_was_learned(learned: Path) -> None:
    before, after = scores(None), scores(learned)
    walking = after["someone_walking"].score
    assert walking.quiet_hours > before["someone_walking"].score.quiet_hours + 0.002
    assert walking.confidence > before["someone_walking"].score.confidence
    assert walking.kind == "false_alarm_rarity"
    assert (walking.threshold, walking.far_per_hour) == (0.5, 1.0)


def test_what_is_learned_is_the_same_again_and_reads_back(learned: Path, tmp_path: Path) -> None:
    identity = json.loads(np.load(learned).zip.comment)["space"]
    read = read_calibration(learned, identity)
    assert sorted(read.streams) == ["camera", "imu", "microphone"]
    assert [query for query, _ in read.queries] == ["a_rocket", "someone_walking"]
    again = tmp_path / "again.npz"
    write_npz(again, read.arrays, read.head)
    assert again.read_bytes() == learned.read_bytes()
    imu = read.queries.index(next(key for key in read.queries if key[0] == "someone_walking"))
    assert read.arrays["imu/null.seen"][imu] > 15
    assert read.arrays["camera/null.seen"][imu] == 0, "it is for the watch alone"


def refusal(calibration: Path, tmp_path: Path, queries: Any = QUERIES) -> str:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({"queries": queries, "match": {"calibration": str(calibration)}}))
    result = run("tools.replay", "--log", DEMO, "--config", file, "--to", "1")
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    return line


def test_a_changed_query_is_refused_in_one_line(learned: Path, tmp_path: Path) -> None:
    changed = [{"id": "a_rocket", "text": "a kite"}]
    line = refusal(learned, tmp_path, changed)
    assert "'a_rocket'" in line
    assert "python -m tools.calibrate" in line


def test_another_threshold_or_one_query_more_is_not_refused(learned: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    queries = [QUERIES[0] | {"gate": {"enter": 0.9}}, {"text": "a forest"}]
    file.write_text(json.dumps({"queries": queries, "match": {"calibration": str(learned)}}))
    result = run("tools.replay", "--log", DEMO, "--config", file, "--to", "1")
    assert result.returncode == 0, result.stderr


def test_another_space_and_another_file_are_refused(learned: Path, tmp_path: Path) -> None:
    with np.load(learned) as archive:
        arrays = {name: archive[name] for name in archive.files}
        head = json.loads(archive.zip.comment)
    other = tmp_path / "other.npz"
    write_npz(other, arrays, json.dumps(head | {"space": "huge@000000000000"}))
    assert "was learned in huge@000000000000, expected compact@" in refusal(other, tmp_path)
    del arrays["imu/tail.excesses"]
    write_npz(other, arrays, json.dumps(head))
    assert "imu/tail.excesses is none, expected [2, 512]" in refusal(other, tmp_path)
    write_npz(other, {"a": np.zeros(3)})
    assert "not a calibration" in refusal(other, tmp_path)
    other.write_bytes(b"PK but not really")
    assert "not a calibration" in refusal(other, tmp_path)
    assert "no such file" in refusal(tmp_path / "none.npz", tmp_path)
