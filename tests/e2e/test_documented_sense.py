"""docs/adding-a-sense.md as a newcomer follows it: its files, then its commands, one by one."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs pip install 'sensebind[bind]'")

from encoders.bind.binding import base_folder, read_recipe
from encoders.files import read_file
from encoders.manifest import read_manifest
from tests.conftest import CHECKOUT

DOCUMENT = (CHECKOUT / "docs" / "adding-a-sense.md").read_text()
FILES = re.findall(r"```(?:yaml|python)\n# (\S+)\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
    for line in block.split("\n")
    if line
]
GESTURES = {"clapping": 1.0, "walking": 2.5, "a_phone_ringing": 5.0}


def _gestures(folder: Path) -> None:
    """Ten files of each, told apart by their rhythm."""
    rng = np.random.default_rng(0)
    for label, hz in GESTURES.items():
        (folder / label).mkdir(parents=True)
        for i in range(10):
            t_s = np.arange(40) / 20
            phase = 2 * np.pi * (hz * t_s + rng.uniform())
            data = np.stack([t_s, np.sin(phase), np.cos(phase)], axis=1)
            data[:, 1:] += rng.normal(0, 0.1, (len(t_s), 2))
            np.savetxt(
                folder / label / f"{i}.csv", data, delimiter=",", header="t,a,b", comments=""
            )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the files that the page shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # Another test has a module of this name: none of it is found here.
    monkeypatch.delitem(sys.modules, "my_towers", raising=False)
    assert [name for name, _ in FILES] == [
        "mag.yaml", "touch.yaml", "emg.yaml", "mag_agent.yaml", "my_towers.py"
    ]  # fmt: skip
    for name, text in FILES:
        # Rhythms of three kinds are learned in far fewer steps.
        (tmp_path / name).write_text(text.replace("steps: 300, batch: 12", "steps: 60, batch: 12"))
    return tmp_path


def _run(commands: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What they print."""
    for command in commands:
        python, _, module, *arguments = shlex.split(command)
        assert python == "python"
        main = importlib.import_module("agent.cli" if module == "agent" else module).main
        code = main(arguments)
        assert code == 0, f"{command}: {capsys.readouterr().err}"
    return capsys.readouterr().out


def _beats_chance(folder: Path) -> bool:
    assert (folder / "recall.png").exists()
    return "**beats chance**" in (folder / "report.md").read_text()


def test_the_magnetometers_commands_do_what_the_page_says(
    folder: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "walk.csv").symlink_to(shared_data / "recordings" / "xio_imu" / "sensor_data.csv")
    told = _run([command for command in COMMANDS if "emg" not in command], capsys)
    assert "magnetometer" in told
    assert "shake: prototype of 2" in told
    assert _beats_chance(folder / "mag")


def test_the_gestures_commands_do_what_the_page_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _gestures(folder / "gestures")
    _run([command for command in COMMANDS if "emg" in command], capsys)
    assert _beats_chance(folder / "emg")
    assert _beats_chance(folder / "emg_own")


def test_the_pages_recipe_for_a_field_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "touch.yaml"
    path.write_text(dict(FILES)["touch.yaml"])
    recipe = read_recipe(path, read_manifest(base_folder("compact")), "touch")
    np.save(tmp_path / "mat.npy", np.arange(64 * 48, dtype=np.uint16).reshape(64, 48))
    views = recipe.made()(read_file(str(tmp_path / "mat.npy"), "touch"))
    assert views.shape == (1, 1, 32, 32)
    assert -1 <= views.min() < views.max() <= 1
