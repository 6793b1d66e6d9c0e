"""tools/replay.py on real logs: counts that an independent reader counts too, the same events
again on any number of cores, and the options of the command.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from rosbags.rosbag1 import Reader as Rosbag1Reader

from tests.e2e.commands import ROOT, run

DEMO = ROOT / "configs" / "demo" / "demo.mcap"
CONFIG = ROOT / "configs" / "demo.yaml"


def summary_of(log: Path, folder: Path, *args: str) -> dict[str, Any]:
    out = folder / "summary.json"
    result = run("tools.replay", "--log", log, "--summary", out, *args)
    assert result.returncode == 0, result.stderr
    return json.loads(out.read_text())


def counted(summary: dict[str, Any]) -> dict[str, int]:
    return {topic: s["messages"] for topic, s in summary["streams"].items()}


def mcap_counts(log: Path) -> Counter[str]:
    with log.open("rb") as file:
        messages = make_reader(file).iter_messages()
        return Counter(channel.topic for _, channel, _ in messages)


def test_ros2_mcap_counts(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "recordings" / "aria_aea_ros2" / "aria_aea_ros2.mcap"
    summary = summary_of(log, tmp_path)
    assert counted(summary) == mcap_counts(log)
    assert summary["complete"]
    assert summary["duration_s"] == pytest.approx(0.398701588)
    with log.open("rb") as file:
        times = [m.log_time for _, c, m in make_reader(file).iter_messages() if c.topic == "/audio"]
    audio = summary["streams"]["/audio"]
    assert (audio["first_ns"], audio["last_ns"], audio["lost"]) == (times[0], times[-1], 0)


@pytest.mark.parametrize(
    "name",
    [
        "rosbag1/fixtures/example.bag",
        "rosbag1/fixtures/example-bz2.bag",
        "rosbag1/fixtures/example-lz4.bag",
        "rosbag1/fixtures/example-unsorted-chunks.bag",
        "rosbag1/fixtures/no-messages.bag",
        "rosbag_imu/test1.bag",
        "rosbag_imu/test2.bag",
        "rosbag_imu/test3_pr101.bag",
    ],
)
def test_ros1_bag_counts(shared_data: Path, tmp_path: Path, name: str) -> None:
    log = shared_data / "recordings" / name
    with Rosbag1Reader(log) as reader:
        expected = Counter(connection.topic for connection, _, _ in reader.messages())
    summary = summary_of(log, tmp_path)
    assert counted(summary) == expected
    assert summary["complete"]


def test_vrs_counts(shared_data: Path, tmp_path: Path) -> None:
    pyvrs = pytest.importorskip("pyvrs", reason="the vrs extra has no wheel here")
    log = shared_data / "recordings" / "aria_vrs" / "recording.vrs"
    index = pyvrs.SyncVRSReader(str(log))
    expected = {
        stream: index.get_stream_info(stream)["data_records_count"] for stream in index.stream_ids
    }
    summary = summary_of(log, tmp_path)
    assert counted(summary) == expected
    assert summary["complete"]
    cut = summary_of(shared_data / "recordings" / "vrs" / "chunks.vrs", tmp_path)
    assert not cut["complete"]
    assert counted(cut) == {"101-1": 38, "200-1": 39, "372-1": 39}


def test_imu_csv_counts(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "recordings" / "xio_imu" / "sensor_data.csv"
    with log.open() as file:
        rows = list(csv.DictReader(file))
    summary = summary_of(log, tmp_path)
    assert set(counted(summary).values()) == {len(rows)}
    assert summary["duration_s"] == pytest.approx(
        float(rows[-1]["Time (s)"]) - float(rows[0]["Time (s)"])
    )


def test_the_same_events_again_on_one_core_and_two(tmp_path: Path) -> None:
    files = []
    for number, cores in enumerate(({0}, {0}, {0, 1})):
        files.append(tmp_path / f"{number}.jsonl")
        args = ("--log", DEMO, "--config", CONFIG, "--events", files[-1], "--to", "25")
        assert run("tools.replay", *args, cores=cores).returncode == 0
    first, second, third = (file.read_bytes() for file in files)
    assert first == second == third
    assert first.count(b'"phase":"start"') >= 4


def test_the_demo_log_says_what_is_in_it_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "events.jsonl"
    summary = summary_of(DEMO, tmp_path, "--config", str(CONFIG), "--events", str(out))
    events = [json.loads(line) for line in out.read_text().splitlines()]
    assert summary["events"] == len(events)
    assert counted(summary) == mcap_counts(DEMO)
    spans: dict[str, list[tuple[float, float]]] = {}
    zero_ns = min(s["first_ns"] for s in summary["streams"].values())
    for event in events:
        if event["phase"] == "end":
            start, end = (
                event[key]["sec"] - zero_ns / 1e9 + event[key]["nsec"] / 1e9
                for key in ("start_time", "end_time")
            )
            spans.setdefault(event["query"]["label"], []).append((start, end))
    # When each is really there (configs/demo/SOURCES.md); a window may reach back 5 s.
    truly = {
        "a clock ticking": [(1.5, 8), (52, 58.5)],
        "someone walking": [(10, 20), (30, 40)],
        "someone running": [(20, 30)],
        "a forest": [(20, 28)],
        "a rocket": [(44, 50)],
        "sounds like river.flac": [(20.5, 28)],
        "the place in home.jpg": [(0, 10), (50, 60)],
    }
    assert spans.keys() == truly.keys()
    for label, expected in truly.items():
        assert len(spans[label]) == len(expected), (label, spans[label])
        for (start, end), (begins, ends) in zip(spans[label], expected, strict=True):
            assert begins - 0.5 <= start <= begins + 2.5, (label, start)
            assert ends - 0.5 <= end <= ends + 5.0, (label, end)
    ids = Counter((event["id"], event["phase"]) for event in events)
    assert all(count == 1 for (_, phase), count in ids.items() if phase != "update")
    seqs = Counter(event["query"]["id"] for event in events)
    for query, count in seqs.items():
        mine = [event["seq"] for event in events if event["query"]["id"] == query]
        assert mine == list(range(1, count + 1))


def test_a_part_of_a_log(tmp_path: Path) -> None:
    summary = summary_of(DEMO, tmp_path, "--from", "10", "--to", "20", "--query", "a forest")
    camera = summary["streams"]["/camera"]
    assert 98 <= camera["messages"] <= 101
    assert 10e9 <= camera["last_ns"] - camera["first_ns"] + 0.2e9 <= 10.2e9


def test_runs_as_a_file_too(tmp_path: Path) -> None:
    import subprocess
    import sys

    result = subprocess.run(
        [sys.executable, ROOT / "tools" / "replay.py", "--log", DEMO, "--to", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "/camera" in result.stdout
