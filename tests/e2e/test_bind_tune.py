"""`python -m tools.bind --tune`: an ImageBind tower learns one's own pictures, or may not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("torch", reason="needs the extra 'bind'")
pytest.importorskip("cv2", reason="needs the extra 'imagebind'")
pytest.importorskip("ftfy", reason="needs the extra 'imagebind'")

import cv2
import onnx
from safetensors.torch import save_file

from agent.contracts import RuntimeOptions
from encoders.imagebind.dims import TINY
from encoders.imagebind.export import FLOORS
from encoders.imagebind.random_weights import random_checkpoint
from encoders.manifest import MANIFEST_NAME
from encoders.space import open_space
from tools.bind import main
from tools.export import main as export

# Not in the order in which the random weights happen to know them without learning.
LABELS = ("snow", "a warm hand", "an engine")
EACH = 12
RECIPE = {"dev": 0.25, "train": {"rate": 1e-2, "batch": 12, "ema": 0.8, "evaluations": 4}}


def _checkpoint(folder: Path, seed: int) -> Path:
    """A file of random weights, of text and thermal, as a published one lies on a disk."""
    folder.mkdir()
    made = random_checkpoint(TINY, seed, ("text", "thermal"))
    tensors = {key: value for tower in made.towers for key, value in made.tensors(tower).items()}
    save_file(tensors, folder / "weights.safetensors")
    heads = {f"{tower}_num_heads": TINY.towers[tower].heads for tower in made.towers}
    (folder / "config.json").write_text(json.dumps(heads))
    return folder / "weights.safetensors"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _checkpoint(tmp_path_factory.mktemp("weights") / "one", 1)


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> Path:
    folder = checkpoint.parent.parent / "imagebind"
    made = ["--checkpoint", str(checkpoint), "--out", str(folder), "--precision", "fp32,int8"]
    assert export(["imagebind", *made]) == 0
    return folder


def _pictures(folder: Path, shuffled: bool) -> Path:
    """EACH files of a label: warm at the left, at the top, or in the middle, at some strength."""
    rng = np.random.default_rng(0)
    rows, columns = np.meshgrid(np.linspace(0, 1, 48), np.linspace(0, 1, 64), indexing="ij")
    shapes = (columns, rows, np.exp(-20 * ((rows - 0.5) ** 2 + (columns - 0.5) ** 2)))
    labels = np.repeat(LABELS, EACH)
    told = rng.permutation(labels) if shuffled else labels
    folder.mkdir()
    for i, label in enumerate(told):
        warm = shapes[i // EACH] * rng.uniform(120, 240) + rng.uniform(0, 20, rows.shape)
        cv2.imwrite(str(folder / f"{i}.png"), warm.clip(0, 255).astype(np.uint8))
        with (folder / "labels.csv").open("a") as file:
            file.write(f"{i}.png,{label}\n" if i else f"file,label\n{i}.png,{label}\n")
    return folder / "labels.csv"


@pytest.fixture
def arguments(tmp_path: Path, base: Path, checkpoint: Path) -> list[str]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    labels = _pictures(tmp_path / "set", shuffled=False)
    return ["--space", str(base), "--checkpoint", str(checkpoint), "--modality", "thermal",
            "--pairs", f"labels:{labels}", "--recipe", str(recipe),
            "--out", str(tmp_path / "out")]  # fmt: skip


def _manifest(folder: Path) -> dict:
    return yaml.safe_load((folder / MANIFEST_NAME).read_text())


def _graph(path: Path) -> list[tuple]:
    """What the processor is to do: every operator, and the shape of every weight."""
    graph = onnx.load(path).graph
    nodes = [(node.op_type, [str(a) for a in node.attribute]) for node in graph.node]
    return [*nodes, *sorted((w.name, tuple(w.dims)) for w in graph.initializer)]


@pytest.mark.parametrize(("way", "steps"), [("lora", 30), ("head", 120)])
def test_a_tuned_tower_takes_the_place_of_the_published_one_and_costs_no_more(
    tmp_path: Path,
    base: Path,
    checkpoint: Path,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    way: str,
    steps: int,
) -> None:
    assert main([*arguments, "--tune", way, "--steps", str(steps)]) == 0, capsys.readouterr().err
    assert "its licence is the checkpoint's, CC-BY-NC-SA-4.0" in capsys.readouterr().out
    out = tmp_path / "out"
    assert _graph(out / "thermal.onnx") == _graph(base / "thermal.onnx")
    for name in ("thermal.onnx", "thermal.int8.onnx"):
        assert (out / name).read_bytes() != (base / name).read_bytes()
    before, after = _manifest(base), _manifest(out)
    assert after["towers"]["text"] == before["towers"]["text"]
    assert after["licence"] == "CC-BY-NC-SA-4.0"
    for of in (before, after):
        del of["towers"]["thermal"]["files"]
    before["towers"]["thermal"]["window"]["spread"] = False  # written out, as it was
    assert after["towers"]["thermal"] == before["towers"]["thermal"]

    space = open_space(str(out), RuntimeOptions(providers=("cpu",), threads=1))
    texts = space.text_encoder()
    texts.load()
    names = np.stack([e.vector for e in texts.encode([f"this is {name}" for name in LABELS])])
    files = [tmp_path / "set" / f"{i}.png" for i in range(0, 3 * EACH, 3)]
    seen = np.stack([space.embed_file(str(file), "thermal").vector for file in files])
    space.close()
    assert ((seen @ names.T).argmax(axis=1) == np.repeat(np.arange(3), EACH // 3)).mean() > 0.8

    report = (out / "report.md").read_text()
    assert "- untuned, thermal to label: recall@1" in report
    assert "| int8 |" in report
    assert "- licence: CC-BY-NC-SA-4.0, that of the checkpoint" in (out / "README.md").read_text()
    again = ["--checkpoint", str(checkpoint), "--out", str(out)]
    capsys.readouterr()
    assert export(["imagebind", *again]) == 2  # or the published tower would come in its place
    assert "tuned in thermal), expected weights.safetensors" in capsys.readouterr().err


def test_a_precision_too_far_from_the_tuned_tower_is_left_out(
    tmp_path: Path,
    base: Path,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though it is the one that the base runs by default."""
    ran = tmp_path / "ran"
    shutil.copytree(base, ran)
    manifest = _manifest(ran)
    manifest["towers"]["thermal"]["precision"] = "int8"
    (ran / MANIFEST_NAME).write_text(yaml.safe_dump(manifest))
    arguments[arguments.index("--space") + 1] = str(ran)
    monkeypatch.setitem(FLOORS, "int8", 1.1)  # a cosine that there is not
    assert main([*arguments, "--tune", "head", "--steps", "120"]) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    thermal = _manifest(out)["towers"]["thermal"]
    assert (thermal["precision"], list(thermal["files"])) == ("fp32", ["fp32"])
    assert not (out / "thermal.int8.onnx").exists()
    report = (out / "report.md").read_text()
    assert "- not written, too far from the tuned tower: int8" in report


def test_what_is_no_better_than_before_is_refused_and_a_tuned_folder_is_a_base(
    tmp_path: Path, base: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels by lot, on a folder in which this sense was tuned before."""
    tuned = tmp_path / "tuned"
    shutil.copytree(base, tuned)
    report = json.loads((tuned / "report.json").read_text())
    report["source"]["tuned"] = ["depth"]
    (tuned / "report.json").write_text(json.dumps(report))
    arguments[arguments.index("--space") + 1] = str(tuned)
    labels = _pictures(tmp_path / "lot", shuffled=True)
    arguments[arguments.index("--pairs") + 1] = f"labels:{labels}"
    assert main([*arguments, "--tune", "head", "--steps", "20"]) == 3
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: tuning refused: thermal to label recall@1")
    assert "expected above 0" in told
    assert "\n" not in told
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    report = (tmp_path / "out.training" / "report.md").read_text()
    assert "the tuned tower is better by" in report


def test_a_second_tuning_keeps_the_first(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--tune", "head", "--steps", "120"]) == 0, capsys.readouterr().err
    first = tmp_path / "out"
    report = json.loads((first / "report.json").read_text())
    assert report["source"]["tuned"] == ["thermal"]
    assert set(report["towers"]) == {"text", "thermal"}
    arguments[arguments.index("--space") + 1] = str(first)
    arguments[-1] = str(tmp_path / "again")
    code = main([*arguments, "--tune", "lora", "--steps", "20", "--seed", "1"])
    assert code in (0, 3), capsys.readouterr().err
    assert "ImageBind's thermal" in (tmp_path / "again.training" / "report.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--rank", "4", "--tune", "head"], "--rank and --alpha: are of --tune lora"),
        (["--rank", "25"], "--rank: 25, expected 1..24 for thermal"),
        (["--alpha", "0"], "--alpha: 0, expected a number above 0"),
        (["--size", "phone"], "--size: phone, expected none"),
        (["--name", "a b"], "--name"),
        (["--licence", "MIT"], "--licence: MIT, expected none"),
        (["--anchor", "thermal"], "--anchor: thermal, expected another sense"),
        (["--space", "compact"], "has no report.json, expected a folder that tools.export"),
        (["--modality", "smell"], "no window, and imagebind has no tower of 'smell'"),
        (["--checkpoint", "missing.pth"], "missing.pth: cannot be read"),
    ],
)
def test_a_bad_argument_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    capsys.readouterr()
    code = main([*arguments, "--tune", "lora", "--steps", "1", *change])
    told = capsys.readouterr().err.strip()
    assert code in (2, 3)
    assert message in told
    assert "\n" not in told


def test_another_checkpoint_or_none_is_one_line(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = _checkpoint(tmp_path / "other", 2)
    assert main([*arguments, "--tune", "lora", "--checkpoint", str(other)]) == 2
    assert "imagebind: was exported from weights.safetensors" in capsys.readouterr().err
    assert main(arguments) == 2
    assert "--alpha: are of --tune, expected none" in capsys.readouterr().err
    del arguments[2:4]
    assert main([*arguments, "--tune", "lora"]) == 2
    assert "--checkpoint: none, expected the file" in capsys.readouterr().err
