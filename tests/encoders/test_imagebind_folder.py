"""tools/export.py, and the folder it makes run by the agent's own towers."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import soundfile
import yaml

pytest.importorskip("torch", reason="needs the extra 'export'")
pytest.importorskip("onnx", reason="needs the extra 'export'")
pytest.importorskip("cv2", reason="needs the extra 'imagebind'")
pytest.importorskip("ftfy", reason="needs the extra 'imagebind'")

from agent.contracts import Encoder, RuntimeOptions, TextEncoder
from agent.errors import ModelMismatch, ModelMissing
from agent.types import Window
from encoders.imagebind import export
from encoders.imagebind.entries import SENSES
from encoders.imagebind.folder import REPORT_NAME, Report
from encoders.manifest import MANIFEST_NAME, read_manifest
from encoders.space import open_space
from tests.contracts.encoder_contract import EncoderContract, TextEncoderContract
from tests.encoders.made import SENSES as WINDOW_SENSES
from tests.encoders.made import made_windows
from tools.export import main

CPU = RuntimeOptions(providers=("cpu",))
LISTS = {MANIFEST_NAME, REPORT_NAME}


class Ended(NamedTuple):
    code: int
    out: str
    error: str


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Any:
    """`tools.export imagebind --random ... --out FOLDER ARGUMENTS`; IMU alone unless told."""

    def run(folder: Path, *arguments: str, seed: int = 1) -> Ended:
        source = ["--random", "--dims", "tiny", "--seed", str(seed)]
        towers = [] if "--towers" in arguments else ["--towers", "imu"]
        capsys.readouterr()
        code = main(["imagebind", *source, *towers, "--out", str(folder), *arguments])
        out, error = capsys.readouterr()
        return Ended(code, out, error)

    return run


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def report(folder: Path) -> Report:
    return msgspec.json.decode((folder / REPORT_NAME).read_bytes(), type=Report)


def refused(ended: Ended, code: int, *words: str) -> None:
    assert ended.code == code, ended
    (line,) = [line for line in ended.error.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tower at random weights of seed 1, in two precisions."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    # As a killed export leaves it.
    (folder / ".partial").mkdir(parents=True)
    (folder / ".partial" / "imu.onnx").write_bytes(b"half")
    source = ["--random", "--dims", "tiny", "--seed", "1"]
    assert main(["imagebind", *source, "--out", str(folder), "--precision", "fp32,int8"]) == 0
    return folder


@pytest.fixture
def held(whole: Path, tmp_path: Path) -> Path:
    """A copy of `whole` that a test may change."""
    return Path(shutil.copytree(whole, tmp_path / "held"))


class TestTowers(EncoderContract):
    @pytest.fixture(params=["fp32", "int8"])
    def options(self, request: pytest.FixtureRequest) -> RuntimeOptions:
        return RuntimeOptions(providers=("cpu",), precision=request.param)

    @pytest.fixture(params=WINDOW_SENSES)
    def unloaded(
        self, request: pytest.FixtureRequest, whole: Path, options: RuntimeOptions
    ) -> Encoder:
        return open_space(str(whole), options).encoder(request.param)

    @pytest.fixture
    def windows(self, unloaded: Encoder) -> list[Window]:
        return made_windows(unloaded.modality, 3)


class TestText(TextEncoderContract):
    @pytest.fixture(params=["fp32", "int8"])
    def unloaded(self, request: pytest.FixtureRequest, whole: Path) -> TextEncoder:
        options = RuntimeOptions(providers=("cpu",), precision=request.param)
        return open_space(str(whole), options).text_encoder()


def test_folder_says_what_it_is(whole: Path) -> None:
    space = open_space(str(whole), CPU)
    assert (space.name, space.dim) == ("imagebind", 48)
    assert space.licence == "random weights, no licence"
    assert space.modalities == ("image", "audio", "depth", "thermal", "imu")
    assert space.precision == "fp32"
    towers = read_manifest(whole).towers
    assert list(towers) == list(SENSES)
    scales = {"image": 1.0, "text": 1 / 0.07, "audio": 20, "depth": 5, "thermal": 10, "imu": 5}
    assert {name: tower["scale"] for name, tower in towers.items()} == pytest.approx(scales)
    found = report(whole)
    assert (found.source.name, found.source.seed, found.source.sha256) == ("random-1", 1, None)
    for sense in SENSES:
        for precision, check in found.towers[sense].files.items():
            assert check.inputs >= 8
            assert check.floor == export.FLOORS[precision] <= check.least <= check.mean
            # What stands in for something real says so.
            assert ("STAND-IN" in check.material) == (sense in ("depth", "thermal"))
    assert not [path for path in whole.iterdir() if path.name.startswith(".")]
    # For people to read: no entry is said to be as another one.
    assert "&id" not in (whole / MANIFEST_NAME).read_text()


def test_checkpoint_in_place_of_random_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json
    from hashlib import sha256

    from safetensors.torch import save_file

    from encoders.imagebind.dims import TINY
    from encoders.imagebind.random_weights import random_checkpoint

    source = tmp_path / "sensors.safetensors"
    save_file(random_checkpoint(TINY, 5).tensors("imu"), source)
    (tmp_path / "my.json").write_text(json.dumps({"imu_num_heads": 4}))
    arguments = ["--checkpoint", str(source), "--config", str(tmp_path / "my.json")]
    folder = tmp_path / "model"
    assert main(["imagebind", *arguments, "--out", str(folder), "--name", "motion"]) == 0
    assert "imu" in capsys.readouterr().out
    space = open_space(str(folder), CPU)
    assert (space.name, space.licence, space.modalities) == ("motion", "CC-BY-NC-SA-4.0", ("imu",))
    assert report(folder).source.sha256 == sha256(source.read_bytes()).hexdigest()
    # The same weights under another name are the same source.
    source.rename(tmp_path / "other.safetensors")
    arguments[1] = str(tmp_path / "other.safetensors")
    assert main(["imagebind", *arguments, "--out", str(folder)]) == 0
    assert "imu fp32: in" in capsys.readouterr().err
    assert main(["imagebind", *arguments, "--out", str(folder), "--towers", "image"]) == 2
    assert "--towers: 'image', expected of imu" in capsys.readouterr().err


class TestResuming:
    def test_what_is_there_is_not_done_again(self, held: Path, command: Any) -> None:
        before = content(held)
        again = command(held, "--towers", "imu,audio", "--precision", "fp32,int8")
        assert again.code == 0
        assert "imu fp32, int8: in" in again.error
        assert content(held) == before

    def test_precisions_and_towers_are_added(self, tmp_path: Path, command: Any) -> None:
        assert command(tmp_path, "--precision", "int8").code == 0
        assert command(tmp_path, "--precision", "fp32", "--precision", "int8").code == 0
        assert command(tmp_path, "--towers", "audio").code == 0
        space = read_manifest(tmp_path)
        assert list(space.towers) == ["audio", "imu"]
        # The first that was exported stays the default.
        assert space.towers["imu"]["precision"] == "int8"
        assert set(space.towers["imu"]["files"]) == {"fp32", "int8"}
        wanted = {"audio.onnx", "imu.onnx", "imu.int8.onnx", *LISTS}
        assert set(content(tmp_path)) == wanted

    def test_damaged_files_are_made_again(self, held: Path, command: Any) -> None:
        before = content(held)
        (held / "imu.onnx").unlink()
        (held / "imu.int8.onnx").write_bytes(b"half")
        ended = command(held, "--towers", "imu,audio", "--precision", "fp32,int8")
        assert ended.code == 0
        assert "imu" not in ended.error
        after = content(held)
        assert {name: after[name] for name in before if name != REPORT_NAME} == {
            name: before[name] for name in before if name != REPORT_NAME
        }

    def test_killed_between_the_files_and_the_manifest(self, held: Path, command: Any) -> None:
        before = content(held)
        (held / MANIFEST_NAME).unlink()
        assert command(held, "--towers", "imu").code == 0
        found = read_manifest(held).towers
        assert found == {"imu": yaml.safe_load(before[MANIFEST_NAME])["towers"]["imu"]}

    def test_what_was_set_by_hand_stays(self, held: Path, command: Any) -> None:
        path = held / MANIFEST_NAME
        space = yaml.safe_load(path.read_text())
        space["description"] = "mine"
        space["towers"]["imu"]["window"]["hop_s"] = 2.5
        path.write_text(yaml.safe_dump(space))
        assert command(held, "--precision", "fp16").code == 0
        after = yaml.safe_load(path.read_text())
        assert set(after["towers"]["imu"].pop("files")) == {"fp32", "fp16", "int8"}
        del space["towers"]["imu"]["files"]
        assert after == space

    def test_another_source_is_refused_by_name(self, held: Path, command: Any) -> None:
        before = content(held)
        refused(command(held, seed=2), 2, str(held), "from random-1", "expected random-2")
        assert content(held) == before

    def test_a_folder_of_something_else_is_refused(self, tmp_path: Path, command: Any) -> None:
        (tmp_path / "thesis.odt").write_text("years of work")
        refused(command(tmp_path), 2, "thesis.odt and no report.json")
        assert set(content(tmp_path)) == {"thesis.odt"}
        refused(command(tmp_path / "thesis.odt"), 2, "is a file, expected a folder")

    def test_a_report_that_is_none_is_refused(self, tmp_path: Path, command: Any) -> None:
        (tmp_path / REPORT_NAME).write_text("{}")
        refused(command(tmp_path), 2, "report.json: cannot be read", "missing required field")

    def test_frames_and_name_may_change_without_a_new_network(
        self, held: Path, command: Any
    ) -> None:
        before, identity = content(held), open_space(str(held), CPU).identity
        options = ["--towers", "image", "--frames", "video", "--name", "clips"]
        assert command(held, *options).code == 0
        assert content(held)["image.onnx"] == before["image.onnx"]
        space = open_space(str(held), CPU)
        assert space.name == "clips"
        assert space.identity.split("@")[1] != identity.split("@")[1]
        window = space.encoder("image").window
        assert (window.length_s, window.ticks, window.spread) == (2.0, 2, True)


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file may grow over `most` bytes: as when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestNothingIsLeftBehind:
    @pytest.fixture(params=["new", "held"])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
        """One that is there before, or not, and is so afterwards."""
        if request.param == "new":
            yield tmp_path / "deep" / "model"
            assert not list(tmp_path.iterdir())
        else:
            held = request.getfixturevalue("held")
            before = content(held)
            yield held
            assert content(held) == before

    def test_under_the_floor(self, folder: Path, command: Any) -> None:
        ended = command(folder, "--precision", "fp16", "--floor", "1.01")
        refused(ended, 3, "imu fp16: least cosine", "expected at least 1.01")

    def test_disk_that_is_full_before(
        self, folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export, "needed_bytes", lambda *_: 10**18)
        refused(
            command(folder, "--precision", "fp16"),
            2,
            str(folder),
            "GB free, expected at least 1000000000.0 GB",
        )

    def test_disk_that_gets_full(self, folder: Path, command: Any) -> None:
        with small_files(50_000):
            ended = command(folder, "--precision", "fp16")
        refused(ended, 2, str(folder), "cannot be written", os.strerror(errno.EFBIG))

    def test_interrupted(self, folder: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*arguments: Any) -> None:
            Path(arguments[-1]).write_bytes(b"half a file")
            raise KeyboardInterrupt

        monkeypatch.setattr(export, "_write_graph", interrupted)
        assert command(folder, "--precision", "fp16").code == 130


class TestExternalData:
    @pytest.fixture
    def folder(self, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(export, "MAX_FILE_BYTES", 1000)
        assert command(tmp_path, "--precision", "fp32,int8").code == 0
        return tmp_path

    def test_is_beside_the_graph_and_is_checked(
        self, folder: Path, whole: Path, command: Any
    ) -> None:
        wanted = {"imu.onnx", "imu.onnx.data", "imu.int8.onnx", *LISTS}
        assert set(content(folder)) == wanted
        windows, found = made_windows("imu", 3), []
        for path in (folder, whole):
            encoder = open_space(str(path), CPU).encoder("imu")
            encoder.load()
            found.append([embedding.vector for embedding in encoder.encode(windows)])
        np.testing.assert_allclose(*found, atol=1e-6)

        data = folder / "imu.onnx.data"
        before = data.read_bytes()
        data.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(ModelMismatch, match=r"imu.onnx.data: sha256 is"):
            open_space(str(folder), CPU).encoder("imu").load()
        data.unlink()
        with pytest.raises(ModelMissing, match=r"imu.onnx.data: no such file"):
            open_space(str(folder), CPU)
        assert command(folder).code == 0
        assert data.read_bytes() == before


class TestInputs:
    def test_are_files_by_sense(self, tmp_path: Path, command: Any) -> None:
        own = tmp_path / "own"
        (own / "audio").mkdir(parents=True)
        noise = np.random.default_rng(0).normal(0, 0.1, 48_000)
        for number in range(3):
            soundfile.write(own / "audio" / f"{number}.wav", noise * (number + 1), 16_000)
        assert command(tmp_path / "m", "--towers", "audio", "--inputs", str(own)).code == 0
        check = report(tmp_path / "m").towers["audio"].files["fp32"]
        assert (check.material, check.inputs) == ("3 files", 8)

    def test_texts_are_lines(self, tmp_path: Path, command: Any) -> None:
        (tmp_path / "text").mkdir()
        (tmp_path / "text" / "a.txt").write_text("a dog\n\na cat\n")
        folder = tmp_path / "m"
        assert command(folder, "--towers", "text", "--inputs", str(tmp_path)).code == 0
        assert report(folder).towers["text"].files["fp32"].inputs == 2

    def test_a_file_that_cannot_be_read_is_told_before_anything_is_done(
        self, tmp_path: Path, command: Any
    ) -> None:
        (tmp_path / "imu").mkdir()
        refused(command(tmp_path / "m", "--inputs", str(tmp_path)), 2, "imu: no file")
        (tmp_path / "imu" / "x.csv").write_text("nonsense")
        refused(command(tmp_path / "m", "--inputs", str(tmp_path)), 2, "x.csv")
        assert not (tmp_path / "m").exists()


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (["--towers", "smell"], "--towers: 'smell', expected of image, text, audio, depth"),
            (["--precision", "fp32,fp64"], "--precision: 'fp64', expected of fp32, fp16, int8"),
            (["--name", "My Model"], "--name: 'My Model' must be lower-case"),
        ],
    )
    def test_a_wrong_value(
        self, arguments: list[str], word: str, tmp_path: Path, command: Any
    ) -> None:
        refused(command(tmp_path / "m", *arguments), 2, word)
        assert not (tmp_path / "m").exists()

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            ([], "expected one of --checkpoint FILE and --random"),
            (["--random", "--checkpoint", "f"], "expected one of --checkpoint FILE and --random"),
            (["--random", "--config", "f"], "--config is of a --checkpoint"),
            (["--checkpoint", "f", "--seed", "0"], "--dims and --seed are of --random"),
        ],
    )
    def test_options_that_do_not_go_together(
        self, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["imagebind", "--out", "nowhere", *arguments])
        assert word in capsys.readouterr().err

    def test_a_checkpoint_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["imagebind", "--out", "nowhere", "--checkpoint", "nope.pth"]) == 3
        assert "nope.pth: cannot be read (No such file" in capsys.readouterr().err
