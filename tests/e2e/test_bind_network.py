"""`tools.bind` with a network of the user's: in torch, or in ONNX under a trained head."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="needs pip install 'sensebind[bind]'")

from agent.contracts import RuntimeOptions
from encoders.files import read_file
from encoders.space import open_space
from tests.encoders.test_bind_features import network
from tests.fakes import gestures
from tests.fakes.gestures import RHYTHMS_HZ, write_gesture
from tools.bind import main

RECIPE = {**gestures.RECIPE, "train": {"batch": 12, "ema": 0.9, "evaluations": 4, "rate": 1e-2}}
MODULE = """
import torch
from torch import nn

def net(view_shape, dim):
    channels, length = view_shape
    return nn.Sequential(
        nn.Conv1d(channels, 16, 9), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(),
        nn.Linear(16, dim), Unit(),
    )

class Unit(nn.Module):
    def forward(self, x):
        return nn.functional.normalize(x, dim=1)

def bare(view_shape, dim):
    return nn.Sequential(nn.Flatten(), nn.Linear(view_shape[0] * view_shape[1], dim))

def wide(view_shape, dim):
    return nn.Sequential(nn.Linear(7, dim), Unit())

def nothing(view_shape, dim):
    return None
"""


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ten files of each gesture, told apart by their rhythm."""
    rng = np.random.default_rng(0)
    for label in RHYTHMS_HZ:
        folder = tmp_path / "set" / label.replace(" ", "_")
        folder.mkdir(parents=True)
        for i in range(10):
            write_gesture(folder / f"{i}.csv", label, rng)
    (tmp_path / "emg.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "my_towers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    # Another test has a module of this name: none is left behind, and none of another is found.
    monkeypatch.delitem(sys.modules, "my_towers", raising=False)
    return [
        "--modality", "emg", "--pairs", f"labels:{tmp_path / 'set'}", "--steps", "40",
        "--recipe", str(tmp_path / "emg.yaml"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip


def _answered(folder: Path, files: Path) -> float:
    """Share of the files whose own gesture's name is the nearest."""
    space = open_space(str(folder), RuntimeOptions(providers=("cpu",)))
    encoder, texts = space.encoder("emg"), space.text_encoder()
    encoder.load()
    texts.load()
    names = np.stack([e.vector for e in texts.encode(list(RHYTHMS_HZ))])
    right = []
    for number, label in enumerate(RHYTHMS_HZ):
        for file in sorted((files / label.replace(" ", "_")).iterdir()):
            vector = encoder.encode([read_file(str(file), "emg")])[0].vector
            right.append(int((names @ vector).argmax()) == number)
    return float(np.mean(right))


def test_a_head_on_a_users_network(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    user = network(tmp_path / "user.onnx")
    before = user.read_bytes()
    assert main([*arguments, "--features", str(user)]) == 0, capsys.readouterr().err
    assert _answered(tmp_path / "out", tmp_path / "set") > 0.8
    assert user.read_bytes() == before
    card = (tmp_path / "out" / "README.md").read_text()
    assert "linear head of 6400 parameters on 24 features of user.onnx (sha256 " in card


def test_a_users_module(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--tower", "my_towers:net"]) == 0, capsys.readouterr().err
    assert _answered(tmp_path / "out", tmp_path / "set") > 0.8
    assert "my_towers:net, 0.00 M parameters" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--features", "missing.onnx"], "missing.onnx: no such file"),
        (["--tower", "my_towers"], "'my_towers' cannot be imported"),
        (["--tower", "no_such_module:net"], "No module named 'no_such_module'"),
        (["--tower", "my_towers:smell"], "has no attribute 'smell'"),
        (["--tower", "my_towers:nothing"], "makes NoneType, expected a torch module"),
        (["--tower", "my_towers:wide"], "expected one that takes float32 [n, 2, 40]"),
        (["--tower", "my_towers:bare"], "expected unit vectors [2, 256]: end it with"),
        (["--tower", "my_towers:net", "--tune", "head"], "--tune: with --tower"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(
    tmp_path: Path,
    arguments: list[str],
    change: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*arguments, *change]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
    assert not (tmp_path / "out.training").exists()


def test_features_are_made_once_so_that_nothing_varies_them(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "emg.yaml").write_text(yaml.safe_dump({**RECIPE, "augment": "signal"}))
    user = network(tmp_path / "user.onnx")
    assert main([*arguments, "--features", str(user)]) == 2
    assert "augment: 'signal' with --features, expected none" in capsys.readouterr().err
