"""`python -m tools.bind`: a sense nobody planned gets a tower, or is refused one."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from agent.clock import NS_PER_S, SystemClock
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from agent.record.writer import LogWriter
from agent.types import Sample, StreamInfo, WindowSpec
from encoders.signal_files import read_signal
from encoders.space import open_space
from tests.fakes.gestures import HZ, RECIPE, RHYTHMS_HZ, write_gesture
from tools.bind import main
from tools.bind_logs import Cut, log_pairs


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "emg.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def _gestures(folder: Path, shuffled: bool) -> Path:
    """Ten files of each gesture, told apart by their rhythm; labels by the gesture, or by lot."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    labels = [label for label in RHYTHMS_HZ for _ in range(10)]
    told = rng.permutation(labels) if shuffled else labels
    rows = ["file,label"]
    for i, (label, written) in enumerate(zip(labels, told, strict=True)):
        write_gesture(folder / f"{i}.csv", label, rng)
        rows.append(f"{i}.csv,{written}")
    path = folder / "labels.csv"
    path.write_text("\n".join(rows))
    return path


def _arguments(tmp_path: Path, recipe: Path, pairs: str) -> list[str]:
    out = str(tmp_path / "out")
    return ["--modality", "emg", "--pairs", pairs, "--recipe", str(recipe), "--out", out]


def test_labelled_signals_make_a_space_that_answers_text(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = _gestures(tmp_path / "set", shuffled=False)
    arguments = _arguments(tmp_path, recipe, f"labels:{labels}")
    assert main([*arguments, "--steps", "40", "--licence", "CC0-1.0"]) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    space = open_space(str(out), RuntimeOptions(providers=("cpu",), precision="fp32"))
    assert space.modalities == ("image", "audio", "depth", "thermal", "imu", "emg")
    assert space.licence == "CC0-1.0"
    encoder, texts = space.encoder("emg"), space.text_encoder()
    encoder.load()
    texts.load()
    names = np.stack([e.vector for e in texts.encode(list(RHYTHMS_HZ))])
    files = [read_signal(str(tmp_path / "set" / f"{i}.csv"), "emg") for i in range(30)]
    cosines = np.stack([e.vector for e in encoder.encode(files)]) @ names.T
    assert (cosines.argmax(axis=1) == np.repeat(np.arange(3), 10)).mean() > 0.8
    mean, deviation = space.prior(names[0], "emg")
    assert deviation > 0
    assert (mean, deviation) != (0.0, space.dim**-0.5)
    report = (out / "report.md").read_text()
    assert "**beats chance**" in report
    assert "| fp32 |" in report
    assert (out / "recall.png").exists()
    assert "CC0-1.0" in (out / "README.md").read_text()


def test_labels_by_lot_are_refused_and_no_folder_is_left(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = _gestures(tmp_path / "set", shuffled=True)
    arguments = _arguments(tmp_path, recipe, f"labels:{labels}")
    assert main([*arguments, "--steps", "15"]) == 3
    told = capsys.readouterr().err.strip()
    assert told.startswith("error: tower refused: emg to label recall@1")
    assert "\n" not in told
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    assert "does NOT beat chance" in (tmp_path / "out.training" / "report.md").read_text()


def _write_log(path: Path) -> None:
    """60 s of a signal whose rhythm goes with that of the motion beside it."""
    motion = StreamInfo("wrist", "imu", "float32", (6,), 50.0, "m/s^2,rad/s")
    signal = StreamInfo("emg", "emg", "float32", (2,), float(HZ), "")
    rng = np.random.default_rng(1)
    writer = LogWriter(path, clock=SystemClock(), agent="test", boot_id="b")
    rhythm_hz = np.repeat(rng.uniform(0.5, 4, 15), 4)  # another every four seconds
    for second in range(60):
        for info, rate in ((motion, 50), (signal, HZ)):
            t_s = second + np.arange(rate) / rate
            phase = 2 * np.pi * rhythm_hz[second] * t_s
            waves = np.stack([np.sin(phase), np.cos(phase)], axis=1) * rhythm_hz[second]
            data = np.tile(waves, 3) if info is motion else waves
            t_ns = np.rint((1000 + t_s) * NS_PER_S).astype(np.int64)
            seq = second * rate
            block = (data + rng.normal(0, 0.05, data.shape)).astype(np.float32)
            writer.put(Sample(info, seq, t_ns, int(t_ns[-1]), block))
    stop = threading.Event()
    stop.set()
    writer.run(stop)
    writer.close()


def test_pairs_of_a_log_end_together_and_stretches_share_no_tick(tmp_path: Path) -> None:

    _write_log(tmp_path / "walk.mcap")
    emg = Cut("emg", "emg", WindowSpec(2.0, 0.5))
    wrist = Cut("/wrist", "imu", WindowSpec(3.0, 9.0))
    pairs = list(log_pairs(tmp_path / "walk.mcap", emg, wrist, 10.0))
    assert 60 < len(pairs) < 120
    spans: dict[str, list[int]] = {}
    for own, other, recording in pairs:
        assert own.end_ns == other.end_ns
        assert (len(own.t_ns), len(other.t_ns)) == (40, 150)
        spans.setdefault(recording, []).extend([int(other.t_ns[0]), int(own.t_ns[-1])])
    edges = sorted((min(times), max(times)) for times in spans.values())
    assert len(edges) in (6, 7)
    assert all(before[1] < after[0] for before, after in pairwise(edges))
    with pytest.raises(ConfigError, match="stretch is 2 s, expected at least the 3 s of a window"):
        list(log_pairs(tmp_path / "walk.mcap", emg, wrist, 2.0))
    told = "stream 'emg' is of the sense 'emg', expected 'muscle'"
    with pytest.raises(ConfigError, match=told):  # the agent would never give it to that tower
        list(log_pairs(tmp_path / "walk.mcap", emg._replace(modality="muscle"), wrist, 10.0))


def test_a_log_binds_a_sense_to_another(
    tmp_path: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_log(tmp_path / "walk.mcap")
    pairs = f"log:{tmp_path}/walk.mcap?sense=emg&anchor=wrist&stretch=8"
    recipe.write_text(yaml.safe_dump({**RECIPE, "dev": 0.7}))
    arguments = [*_arguments(tmp_path, recipe, pairs), "--anchor", "imu", "--steps", "10"]
    code = main(arguments)
    told = capsys.readouterr()
    assert code in (0, 3), told.err
    report = (tmp_path / "out.training" / "report.md").read_text()
    assert "| emg to imu |" in report
    assert "| imu to emg |" in report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--anchor", "smell"], "no tower for 'smell'"),
        (["--pairs", "walk.mcap"], "expected log, folders, labels"),
        (["--threads", "2"], "log missing.mcap: No such file"),
        (["--steps", "0"], "steps"),
        (["--recipe", "missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_a_bad_argument_is_one_line(
    tmp_path: Path,
    recipe: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    arguments = _arguments(tmp_path, recipe, "log:missing.mcap?sense=a&anchor=b")
    assert main([*arguments, *change]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told


def test_a_sense_without_a_recipe_is_asked_for_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--modality", "emg", "--pairs", "labels:x", "--out", str(tmp_path / "o")]) == 2
    assert "--recipe: no window, and compact has no tower of 'emg'" in capsys.readouterr().err


def test_a_real_magnetometer_is_bound_to_motion(
    tmp_path: Path, shared_data: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A measured signal that is none of the six, told from chance by stretches it never saw."""
    preprocess = {
        "name": "signal",
        # Teslas: the earth's field is about 50 uT.
        "parameters": {
            "channels": 3, "rate_hz": 20, "length_s": 2.0, "hop_s": 1.0, "scale": [5e-5],
        },
    }  # fmt: skip
    made = {
        "window": {"length_s": 2.0, "hop_s": 0.5},
        "preprocess": preprocess,
        "dev": 0.4,
        "train": {"batch": 32, "ema": 0.98, "evaluations": 10},
    }
    recipe.write_text(yaml.safe_dump(made))
    log = shared_data / "recordings" / "xio_imu" / "sensor_data.csv"
    pairs = f"log:{log}?sense=magnetometer&anchor=imu&stretch=6"
    arguments = _arguments(tmp_path, recipe, pairs)
    arguments[1] = "magnetic_field"
    arguments += ["--anchor", "imu", "--steps", "300", "--seed", "1"]
    assert main(arguments) == 0, capsys.readouterr().err
    assert "| magnetic_field to imu |" in (tmp_path / "out" / "report.md").read_text()
