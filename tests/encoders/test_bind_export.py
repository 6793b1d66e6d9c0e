"""A trained tower in a model folder: near to torch, and run by the agent as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

pytest.importorskip("torch", reason="needs the extra 'bind'")
pytest.importorskip("onnx", reason="needs the extra 'bind'")

import torch

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, EncoderError, ModelMissing
from agent.types import StreamInfo, Window
from encoders.bind.export import FLOORS, INPUT, OUTPUT, NewSpace, write_tower
from encoders.bind.recall import embed
from encoders.bind.towers import build
from encoders.manifest import convert
from encoders.providers import make_session
from encoders.space import open_space
from encoders.tower import PreprocessSettings, WindowSettings
from tests.conftest import CHECKOUT

DIM = 16
NEW = NewSpace(name="made", licence="none")
WINDOW = WindowSettings(length_s=2.0, hop_s=0.5)
PREPROCESS = {
    "thermal": PreprocessSettings(
        name="thermal",
        parameters={
            "size": 32, "mean": [0.45], "std": [0.25], "reducing_gap": None, "percentiles": [1, 99]
        },
    ),
    "audio": PreprocessSettings(
        name="audio",
        parameters={
            "rate_hz": 16000, "length_s": 0.5, "hop_s": 0.5, "bands": 33, "low_hz": 50,
            "high_hz": 7800, "frames": 45,
        },
    ),
    "imu": PreprocessSettings(
        name="imu",
        parameters={
            "rate_hz": 20, "length": 33, "hop": 10, "acceleration_scale": 10, "rotation_scale": 3
        },
    ),
}  # fmt: skip
KINDS = {"thermal": "picture", "audio": "sound", "imu": "signal"}
SHAPES = {"thermal": (1, 32, 32), "audio": (1, 33, 45), "imu": (6, 33)}


def views(modality: str, count: int = 64) -> list[NDArray[np.float32]]:
    """Sums of a few waves: as pictures and motion, most of it at low frequencies."""
    rng = np.random.default_rng(0)
    shape = SHAPES[modality]
    t = np.linspace(0, 2 * np.pi, shape[-1])
    made = []
    for _ in range(count):
        waves = [np.sin(rng.uniform(0.5, 6, (*shape[:-1], 1)) * t + k) for k in range(3)]
        made.append((0.5 * np.sum(waves, axis=0)).astype(np.float32))
    return made


def trained(modality: str, seed: int = 0, size: Any = "watch") -> torch.nn.Module:
    """Random weights; norms as they are after training."""
    tower = build(KINDS[modality], size, SHAPES[modality], DIM, seed=seed)
    with torch.no_grad():
        for _ in range(20):
            tower(torch.from_numpy(np.stack(views(modality))))
    return tower.eval()


def test_the_views_that_a_folder_asks_for_stay(tmp_path: Path) -> None:
    asked = {"squares": True, "tiles": [2, 2]}
    path = tmp_path / "space.yaml"
    for seed in (0, 1):
        write_tower(
            tmp_path, "thermal", trained("thermal", seed), views("thermal", 8), window=WINDOW,
            preprocess=PREPROCESS["thermal"], new=NEW,
        )  # fmt: skip
        manifest = yaml.safe_load(path.read_text())
        assert manifest["towers"]["thermal"].get("views") == (asked if seed else None)
        manifest["towers"]["thermal"]["views"] = asked
        path.write_text(yaml.safe_dump(manifest))
    tower = open_space(str(tmp_path), RuntimeOptions(providers=("cpu",))).encoder("thermal")
    tower.load()
    frame = np.random.default_rng(0).integers(0, 9000, (1, 60, 80)).astype(np.uint16)
    info = StreamInfo("warm", "thermal", "uint16", (60, 80), None, "counts")
    (seen,) = tower.encode([Window(info, 0, 1, frame, np.zeros(1, np.int64))])
    assert len(seen.rows) == 1 + 3 + 4


@pytest.mark.parametrize("modality", KINDS)
def test_a_tower_is_written_near_to_torch_and_loaded(tmp_path: Path, modality: str) -> None:
    tower = trained(modality)
    made = write_tower(
        tmp_path, modality, tower, views(modality), window=WINDOW, preprocess=PREPROCESS[modality],
        new=NEW,
    )  # fmt: skip
    assert {name: exported.kept for name, exported in made.items()} == {"fp32": True, "int8": True}
    assert made["fp32"].least > FLOORS["fp32"]
    assert made["int8"].least > 0.998
    assert made["int8"].file.bytes < 0.5 * made["fp32"].file.bytes
    rows = np.stack(views(modality, 5))
    expected = embed(tower, list(rows))
    for exported in made.values():
        path = tmp_path / exported.file.path
        assert str(CHECKOUT).encode() not in path.read_bytes()
        session = make_session(path, RuntimeOptions(providers=("cpu",)))
        whole = session.run([OUTPUT], {INPUT: rows})[0]
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
        # A batch of any size, and no row changes another.
        single = [session.run([OUTPUT], {INPUT: row[np.newaxis]})[0][0] for row in rows]
        np.testing.assert_allclose(whole, single, atol=1e-5)
        assert (whole * expected).sum(axis=1).min() > 0.99
    assert list(tmp_path.glob(".*")) == []


def test_the_agent_runs_it_beside_the_towers_that_were_there(tmp_path: Path) -> None:
    imu = trained("imu")
    for modality in ("thermal", "imu"):
        write_tower(
            tmp_path, modality, trained(modality), views(modality), window=WINDOW,
            preprocess=PREPROCESS[modality], new=NEW,
        )  # fmt: skip
    space = open_space(str(tmp_path), RuntimeOptions(providers=("cpu",)))
    assert space.name == "made"
    assert set(space.modalities) == {"thermal", "imu"}
    rng = np.random.default_rng(0)
    data = rng.normal(size=(66, 6)).astype(np.float32)
    info = StreamInfo("wrist", "imu", "float32", (6,), 20.0, "m/s^2,rad/s")
    t_ns = np.arange(66) * 50_000_000
    window = Window(info, 0, int(t_ns[-1]) + 1, data, t_ns)
    encoder = space.encoder("imu")
    encoder.load()
    from encoders.preprocess.imu import ImuPreprocess

    preprocess = convert(PREPROCESS["imu"].parameters, ImuPreprocess, "imu")
    own = embed(imu, list(preprocess(window))).mean(axis=0)
    np.testing.assert_allclose(
        encoder.encode([window])[0].vector, own / np.linalg.norm(own), atol=1e-4
    )
    before = space.identity
    space.close()
    write_tower(
        tmp_path, "imu", trained("imu", seed=1), views("imu"), window=WINDOW,
        preprocess=PREPROCESS["imu"], precision="int8",
    )  # fmt: skip
    again = open_space(str(tmp_path), RuntimeOptions(providers=("cpu",)))
    assert again.identity != before
    assert yaml.safe_load((tmp_path / "space.yaml").read_text())["towers"]["imu"]["precision"] == (
        "int8"
    )


def test_an_int8_file_that_is_not_near_enough_is_left_out_and_said(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"window": WINDOW, "preprocess": PREPROCESS["imu"], "new": NEW}
    write_tower(tmp_path, "imu", trained("imu"), views("imu"), **arguments)
    assert (tmp_path / "imu.int8.onnx").exists()
    floors = {"fp32": 0.9999, "int8": 1.1}
    made = write_tower(
        tmp_path, "imu", trained("imu"), views("imu"), precision="int8", floors=floors, **arguments
    )
    assert not made["int8"].kept
    assert made["int8"].least < 1.1
    assert not (tmp_path / "imu.int8.onnx").exists()
    entry = yaml.safe_load((tmp_path / "space.yaml").read_text())["towers"]["imu"]
    assert (entry["precision"], list(entry["files"])) == ("fp32", ["fp32"])


def test_faults_leave_the_folder_as_it_was(tmp_path: Path) -> None:
    tower, made = trained("imu"), views("imu")
    arguments: dict[str, Any] = {"window": WINDOW, "preprocess": PREPROCESS["imu"]}
    with pytest.raises(ModelMissing, match=r"space\.yaml: no such file"):
        write_tower(tmp_path, "imu", tower, made, **arguments)
    with pytest.raises(ConfigError, match="views: 1, expected at least 2"):
        write_tower(tmp_path, "imu", tower, made[:1], new=NEW, **arguments)
    with pytest.raises(ConfigError, match=r"imu makes views of \[6, 33\], expected those of"):
        write_tower(tmp_path, "imu", tower, [v[:, :20] for v in made], new=NEW, **arguments)
    floors = {"fp32": 1.1, "int8": 0.9}
    with pytest.raises(EncoderError, match="imu fp32: least cosine with torch is"):
        write_tower(tmp_path, "imu", tower, made, new=NEW, floors=floors, **arguments)
    bad = PreprocessSettings(name="imu", parameters={"rate_hz": 20})
    with pytest.raises(ConfigError, match=r"towers\.imu\.preprocess"):
        write_tower(tmp_path, "imu", tower, made, new=NEW, window=WINDOW, preprocess=bad)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_tower(tmp_path / "file", "imu", tower, made, new=NEW, **arguments)
    write_tower(tmp_path, "imu", tower, made, new=NEW, **arguments)
    other = build("signal", "watch", (6, 33), DIM + 1)
    with pytest.raises(ConfigError, match="dim is 16, expected 17 of the tower"):
        write_tower(tmp_path, "imu", other, made, **arguments)
