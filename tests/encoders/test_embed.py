from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, SpaceMismatch
from encoders.space import open_space
from tests.encoders.viewed import with_views
from tools.embed import main
from tools.npz import read_vectors, write_npz

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sounds(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    paths = []
    for i, seconds in enumerate((1, 4)):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, rng.normal(0, 0.1, 16_000 * seconds), 16_000)
        paths.append(str(path))
    return paths


def test_files(tmp_path: Path, sounds: list[str]) -> None:
    output = tmp_path / "out.npz"
    assert main([*sounds, "--modality", "audio", "-o", str(output)]) == 0
    found = dict(np.load(output))
    assert list(found) == sounds
    space = open_space("compact", RuntimeOptions())
    for path, vector in found.items():
        assert vector.shape == (256,)
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, space.embed_file(path, "audio").vector)


def test_windows_of_files(tmp_path: Path, sounds: list[str]) -> None:
    output = tmp_path / "out.npz"
    assert main([*sounds, "--modality", "audio", "--windows", "-o", str(output)]) == 0
    assert [views.shape for views in np.load(output).values()] == [(1, 256), (3, 256)]


def test_views_of_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, output = tmp_path / "wide.png", tmp_path / "out.npz"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 160, 3)).astype(np.uint8)).save(picture)
    folder = tmp_path / "viewed"
    folder.mkdir()
    command = [str(picture), "--space", str(with_views(folder)), "--modality", "image"]
    assert main([*command, "--views", "-o", str(output)]) == 0
    (rows,) = np.load(output).values()
    assert rows.shape == (1 + 2 + 6, 256)
    assert main([*command, "-o", str(output)]) == 0
    (whole,) = np.load(output).values()
    np.testing.assert_array_equal(rows[0], whole)
    assert main([*command, "--views", "--windows", "-o", str(output)]) == 2
    assert "--windows and --views: both given, expected one of them" in capsys.readouterr().err


def test_texts_whatever_they_are_called(tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    texts = ["a dog", "file", "rain/snow.npy", "ein Käse"]
    arguments = ["--text", *texts[:2], "--text", texts[2], "--text", texts[3]]
    assert main([*arguments, "-o", str(output)]) == 0
    found = dict(np.load(output))
    assert list(found) == texts
    text_encoder = open_space("compact", RuntimeOptions()).text_encoder()
    text_encoder.load()
    for text, embedding in zip(texts, text_encoder.encode(texts), strict=True):
        np.testing.assert_array_equal(found[text], embedding.vector)


def test_precision_threads_and_provider(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 3000, (32000, 1)).astype(np.int16)
    soundfile.write(tmp_path / "x.wav", noise, 16000)
    vectors = []
    for i, arguments in enumerate(([], ["--precision", "int8", "--threads", "2"])):
        output = tmp_path / f"{i}.npz"
        given = [str(tmp_path / "x.wav"), "--modality", "audio", "--provider", "cpu"]
        assert main([*given, *arguments, "-o", str(output)]) == 0
        vectors.append(np.load(output)[str(tmp_path / "x.wav")])
    assert 0.9 < vectors[0] @ vectors[1] < 1 - 1e-6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing to embed"),
        (["x.wav"], 2, "--modality: none given"),
        (["x.wav", "--modality", "audio"], 2, "x.wav: cannot be read"),
        (["x.wav", "--modality", "smell"], 2, "no tower for 'smell'"),
        (["x.wav", "--modality", "audio", "--threads", "0"], 2, "--threads: 0"),
        (["--text", "a", "--precision", "int4"], 2, "precision: 'int4'"),
        (["--text", "a", "--space", "nope"], 3, "'nope' does not ship"),
        (["--text", "a", "--space", "./nope"], 3, "nope/space.yaml: no such file"),
        (["--text", ""], 3, "no known word"),
    ],
)
def test_a_fault_is_one_line_and_its_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    output = tmp_path / "out.npz"
    assert main([*arguments, "-o", str(output)]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_one_file_named_twice_is_refused(
    sounds: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [sounds[0], sounds[0], "--modality", "audio", "-o", str(tmp_path / "out.npz")]
    assert main(arguments) == 2
    assert "named twice" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["-m", "tools.embed"], ["tools/embed.py"]])
def test_runs_as_a_module_and_as_a_file(tmp_path: Path, command: list[str]) -> None:
    output = tmp_path / "out.npz"
    done = subprocess.run(
        [sys.executable, *command, "--text", "rain", "-o", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert list(np.load(output)) == ["rain"]


def test_the_file_is_refused_where_another_space_is_wanted(
    tmp_path: Path, sounds: list[str]
) -> None:
    output = tmp_path / "out.npz"
    assert main([*sounds, "--modality", "audio", "--precision", "fp32", "-o", str(output)]) == 0
    own, other = (
        open_space("compact", RuntimeOptions(precision=name)).identity for name in ("fp32", "int8")
    )
    assert list(read_vectors(output, own)) == sounds
    with pytest.raises(SpaceMismatch) as caught:
        read_vectors(output, other)
    assert str(caught.value) == (
        f"{output}: vectors of {own}, expected those of {other}; embed them again: "
        f"python -m tools.embed --space compact --modality SENSE FILES -o {output}"
    )


@pytest.mark.parametrize("content", [None, b"", b"PK", b"no archive"])
def test_what_is_no_npz_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.npz: cannot be read .*, expected an \.npz"):
        read_vectors(path, "compact@0")


class TestNpz:
    @given(st.dictionaries(st.text("abc /.é", min_size=1), st.integers(0, 9), max_size=4))
    def test_is_read_back(
        self, tmp_path_factory: pytest.TempPathFactory, numbers: dict[str, int]
    ) -> None:
        path = tmp_path_factory.mktemp("npz") / "x.npz"
        write_npz(path, {name: np.array([number]) for name, number in numbers.items()})
        assert {name: int(array[0]) for name, array in np.load(path).items()} == numbers
        assert [found.name for found in path.parent.iterdir()] == ["x.npz"]

    def test_same_content_same_bytes(self, tmp_path: Path) -> None:
        for name in ("a.npz", "b.npz"):
            write_npz(tmp_path / name, {"x": np.arange(3)})
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()

    def test_a_failed_write_leaves_what_was_there(self, tmp_path: Path) -> None:
        path = tmp_path / "x.npz"
        write_npz(path, {"x": np.arange(3)})
        with pytest.raises(ValueError, match="Object arrays cannot be saved"):
            write_npz(path, {"x": np.array([object()])})
        assert list(np.load(path)) == ["x"]
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("parent", ["nowhere", "file"])
    def test_folder_that_is_none(self, tmp_path: Path, parent: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match=r"x.npz: cannot be written .* a folder to write in"):
            write_npz(tmp_path / parent / "x.npz", {})
