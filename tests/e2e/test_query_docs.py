"""Every example of docs/queries.md: configs that open, and commands that a running agent takes."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent import plugins
from agent.clock import ManualClock
from agent.config import Taught
from agent.config_file import load_config
from agent.contracts import RuntimeOptions
from agent.core import Core
from agent.match.grammar import atoms_of
from agent.match.taught import arrays_of
from tests.e2e.commands import ROOT
from tests.e2e.test_live import agent
from tools.npz import write_npz
from tools.query import main

DEMO = ROOT / "configs" / "demo"
TEXT = (ROOT / "docs" / "queries.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the examples name."""
    for name in ("sea.flac", "again.flac"):
        shutil.copy(DEMO / "river.flac", tmp_path / name)
    shutil.copy(DEMO / "home.jpg", tmp_path / "place.jpg")
    shutil.copy(DEMO / "demo.mcap", tmp_path / "day.mcap")
    rng = np.random.default_rng(0)
    for name in ("room.png", "stove.png"):
        pixels = rng.integers(500, 4000, (120, 160), np.uint16)
        Image.fromarray(pixels).save(tmp_path / name)
    rows = np.column_stack([np.arange(400) / 50, rng.normal(size=(400, 6))])
    np.savetxt(tmp_path / "fall.csv", rows, "%.5f", ",", header="t,ax,ay,az,gx,gy,gz", comments="")
    space = plugins.open_space("compact", RuntimeOptions())
    taught = Taught(
        space=space.identity,
        modality="audio",
        vector=space.background("audio")[0, 0].astype("<f4").tobytes(),
        method="prototype",
        ordinary=(0.1, 0.1),
    )
    write_npz(tmp_path / "kettle.npz", arrays_of(taught))
    (tmp_path / "more.yaml").write_text(blocks("yaml")[0])
    return tmp_path


@pytest.fixture
def cores() -> Iterator[list[Core]]:
    made: list[Core] = []
    yield made
    for core in made:
        core.close()


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_a_config(number: int, folder: Path, cores: list[Core]) -> None:
    path = folder / "it.yaml"
    path.write_text(blocks("yaml")[number])
    core = Core(load_config(path), ManualClock(), "boot")
    cores.append(core)
    core.open()
    assert len(core.queries) == len(core.config.file.queries) > 0
    assert len(core.queries.scored()) >= len(core.queries.enabled()) - len(core.queries.whens())


def test_the_table_of_words_is_what_there_is() -> None:
    from agent.match.grammar import parse_when

    for what in re.findall(r"^\| `([^`]+)` \|", TEXT, re.MULTILINE):
        assert next(atoms_of(parse_when(what))).name == "a"


def test_the_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    commands = [line for line in blocks("sh")[-1].splitlines() if "tools.query" in line]
    assert len(commands) == 8
    config = ROOT / "configs" / "synthetic.yaml"
    with agent("--config", config, "--set", "queries=[]") as running:
        for line in commands:
            words = shlex.split(line)
            assert words[:3] == ["python", "-m", "tools.query"]
            assert main([*words[3:], "--connect", running.control]) == 0, capsys.readouterr().err
    assert "ticking" in capsys.readouterr().out
