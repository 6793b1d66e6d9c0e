"""A replay in a space whose image tower looks at parts of a frame too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.commands import ROOT, run
from tests.encoders.viewed import with_views

DEMO = ROOT / "configs" / "demo" / "demo.mcap"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "viewed"
    folder.mkdir()
    content = {
        "agent": "demo",
        "space": {"path": str(with_views(folder))},
        "drivers": {"demo": {"kind": "log", "path": str(DEMO)}},
        "queries": [{"text": "a forest"}, {"text": "a clock ticking"}, {"text": "someone walking"}],
    }
    path = tmp_path / "views.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_an_event_says_which_part_of_the_frame_and_a_replay_says_it_again(
    config: Path, tmp_path: Path
) -> None:
    files = []
    for number, cores in enumerate(({0}, {0, 1})):
        files.append(tmp_path / f"{number}.jsonl")
        args = ("--log", DEMO, "--config", config, "--from", "17", "--to", "25")
        result = run("tools.replay", *args, "--events", files[-1], cores=cores)
        assert result.returncode == 0, result.stderr
    first, second = (file.read_bytes() for file in files)
    assert first == second
    told: dict[str, list[Any]] = {"camera": [], "microphone": [], "imu": []}
    for line in first.splitlines():
        for evidence in json.loads(line)["evidence"]:
            told[evidence["stream"]].append(evidence["region"])
    regions = [region for region in told["camera"] if region]
    assert regions, "some part of the forest is more of a forest than the whole of it"
    for region in regions:
        assert 0 <= region["left"] < region["left"] + region["width"] <= 1 + 1e-5
        assert 0 <= region["top"] < region["top"] + region["height"] <= 1 + 1e-5
        # 480 x 360: what is as wide as high has 3/4 of the width where it has the height.
        assert region["width"] == pytest.approx(region["height"] * 3 / 4, abs=1e-5)
    assert not any(told["microphone"] + told["imu"])
