"""tools/calibrate.py --labels: the real command on two watches, one of which is blind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.config_file import load_config
from agent.match.calibrated import read_calibration
from agent.replay import ReplayOptions, replay
from agent.wire import Event
from tests.e2e.commands import refused, run
from tools.event_labels import Label, Labels
from tools.made_log import write_log
from tools.planted_motion import IMU, motion, samples
from tools.planting import Plant, Planted

START_NS = 1_767_225_600_000_000_000
SECONDS, EVERY_S, EVENTS = 300.0, 30.0, 9
CONFIG = """
agent: test
queries:
- {id: running, text: running}
- {id: rowing, text: rowing exercise, streams: [watch]}
- {id: walking, text: walking, gate: {enter: 0.9}}
- {id: kite, text: a kite}
match: {max_false_alarms_per_hour: 1}
bus: {enabled: false}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """walk.mcap: on one watch arms that swing nine times for six seconds, on the other nothing."""
    path = tmp_path_factory.mktemp("weights")
    t_s = np.arange(300) / 50
    swing = np.sin(2 * np.pi * 1.4 * t_s)[:, np.newaxis] * [6.0, 9.0, 4.0, 2.0, 1.0, 2.0]
    swing[:, 2] += 9.81
    planted = Planted("moving", "made", swing.astype(np.float32), 6.0)
    times = [EVERY_S * (n + 1) for n in range(EVENTS)]
    worn = motion([Plant(planted, at, 6.0) for at in times], SECONDS, np.random.default_rng(3))
    other = replace(IMU, name="other")
    blind = motion([], SECONDS, np.random.default_rng(4))
    both = [
        *samples(worn, START_NS),
        *(replace(each, stream=other) for each in samples(blind, START_NS)),
    ]
    write_log(path / "walk.mcap", [IMU, other], both, agent="made", metadata={})
    labels = Labels(
        queries={"running": "moving", "rowing": "moving", "walking": "moving", "kite": "none"},
        events=[Label(kind="moving", log="walk.mcap", from_s=at, to_s=at + 6.0) for at in times],
    )
    (path / "LABELS.json").write_bytes(msgspec.json.encode(labels))
    (path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    result = run("tools.calibrate", *arguments(path))
    assert result.returncode == 0, result.stderr
    (path / "told.txt").write_text(result.stdout)
    return path


def arguments(path: Path, labels: str = "LABELS.json") -> list[str | Path]:
    args: list[str | Path] = ["--log", path / "walk.mcap", "--config", path / "config.yaml"]
    return [*args, "--labels", path / labels, "--out", path / "out.npz"]


def test_weights_are_measured_told_and_kept(folder: Path) -> None:
    told = (folder / "told.txt").read_text()
    for why in ("it has no max_false", "1 stream may answer", "of 8 events at least"):
        assert why in told
    config = load_config(folder / "config.yaml", [f"match.calibration={folder / 'out.npz'}"])
    with np.load(folder / "out.npz") as archive:
        identity = msgspec.json.decode(archive.zip.comment)["space"]
    kept = read_calibration(folder / "out.npz", identity)
    rows = [query for query, _ in kept.queries]
    worn, other = kept.arrays["watch/weight"], kept.arrays["other/weight"]
    running = rows.index("running")
    assert worn[running] > other[running]
    assert worn[running] + other[running] == pytest.approx(1.0)
    assert np.isnan(np.delete(worn, running)).all()
    assert kept.arrays["+/tail.hours"][running] > 0.05
    events: list[Event] = []
    replay(config, folder / "walk.mcap", ReplayOptions(), events.append)
    starts = [event for event in events if event.phase == "start" and event.query.id == "running"]
    assert starts
    for event in starts:
        total = sum(part.share or 0.0 for part in event.evidence)
        assert total == pytest.approx(1.0, abs=1e-3)


def test_what_is_wrong_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    args = arguments(folder)
    refused(run("tools.calibrate", *arguments(folder, "none.json")), 2, "none.json", "expected")
    refused(run("tools.calibrate", *args, "--to", "20"), 2, "--from, --to", "expected whole logs")
    own: list[str | Path] = ["--config", folder / "config.yaml", "--out", tmp_path / "o.npz"]
    log = folder / "walk.mcap"
    refused(run("tools.calibrate", "--log", log, log, *own), 2, "2 logs", "--labels")
    (tmp_path / "LABELS.json").write_bytes(msgspec.json.encode(Labels(queries={}, events=[])))
    told = run("tools.calibrate", "--log", log, *own, "--labels", tmp_path / "LABELS.json")
    refused(told, 2, "no kind for query 'running'")
