from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.contracts import Encoder, RuntimeOptions, TextEncoder
from agent.errors import ConfigError, ModelMismatch, ModelMissing
from agent.types import Window
from encoders.clip_text import END, START, ClipText, ClipTokenizer
from encoders.imagebind.dims import CONTEXT, VOCABULARY
from encoders.space import open_space
from tests.contracts.encoder_contract import EncoderContract, TextEncoderContract, vectors
from tests.encoders.made import made_windows
from tests.encoders.made_space import write_space
from tools.make_clip_tokenizer import main as make_tokenizer

TOKENIZER = Path(str(files("encoders.imagebind").joinpath("tokenizer.json")))
IDS = ClipTokenizer(TOKENIZER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_space(tmp_path_factory.mktemp("made"))


class TestClipText(TextEncoderContract):
    @pytest.fixture
    def unloaded(self, folder: Path) -> TextEncoder:
        return open_space(str(folder), RuntimeOptions()).text_encoder()


class TestTowers(EncoderContract):
    """The senses of this folder by their own preprocessing, as live windows."""

    @pytest.fixture(params=["audio", "imu"])
    def unloaded(self, folder: Path, request: pytest.FixtureRequest) -> Encoder:
        return open_space(str(folder), RuntimeOptions()).encoder(request.param)

    @pytest.fixture
    def windows(self, unloaded: Encoder) -> list[Window]:
        return made_windows(unloaded.modality, 5)


def test_golden_ids(shared_data: Path) -> None:
    path = shared_data / "imagebind_golden" / "preprocess" / "tokens.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert len(rows) > 20
    for row in rows:
        ids = IDS(row["text"])
        assert ids + [0] * (CONTEXT - len(ids)) == row["ids"], row["text"]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("A dog.", [320, 1929, 269]),
        ("A car", [320, 1615]),
        ("a photo of a thermal image", [320, 1125, 539, 320, 13_689, 2867]),
        ("", []),
        ("Héllo &amp; wörld 123", [71, 3459, 19_293, 261, 86, 31_762, 730, 272, 273, 274]),
    ],
)
def test_published_ids(text: str, ids: list[int]) -> None:
    assert IDS(text) == [START, *ids, END]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("&amp;lt;3", "<3"),
        ("l\u2019\u00e9t\u00e9", "l'\u00e9t\u00e9"),
        ("schÃ¶n", "schön"),
        (" A\tDOG \n\u3000 Barks ", "a dog barks"),
    ],
)
def test_texts_are_mended_before(text: str, same: str) -> None:
    assert IDS(text) == IDS(same)


@given(st.text(max_size=400))
def test_ids_are_between_their_marks_whatever_the_text(text: str) -> None:
    ids = IDS(text)
    assert ids[0] == START
    assert ids[-1] == END
    assert 2 <= len(ids) <= CONTEXT
    assert all(0 <= token < START for token in ids[1:-1])


def test_a_long_text_keeps_its_beginning_and_its_end_mark() -> None:
    ids = IDS("dog " * 500)
    assert ids == [START, *[1929] * 75, END]
    assert IDS("dog " * 75) == ids


def test_a_mark_spelt_out_is_text() -> None:
    for mark in ("<|endoftext|>", "<|startoftext|> a dog"):
        assert not {START, END} & set(IDS(mark)[1:-1])


def seen_by(encoder: ClipText, texts: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[list]:
    """The batches that the graph is given."""
    batches: list[list] = []
    run = ClipText._run

    def noted(self: ClipText, session: object, batch: np.ndarray) -> np.ndarray:
        batches.append(batch.tolist())
        return run(self, session, batch)

    with monkeypatch.context() as patched:
        patched.setattr(ClipText, "_run", noted)
        encoder.encode(texts)
    return batches


def test_a_batch_is_as_long_as_its_longest_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_space(str(folder), RuntimeOptions(max_batch=2)).text_encoder()
    assert isinstance(encoder, ClipText)
    encoder.load()
    first, second = seen_by(encoder, ["A dog.", "A car", "A bird"], monkeypatch)
    assert first == [[START, 320, 1929, 269, END], [START, 320, 1615, END, 0]]
    assert second == [[START, 320, 3329, END]]


def test_vectors_do_not_depend_on_the_batch(folder: Path) -> None:
    texts = ["rain", "a dog barking in the next room " * 30, "glass breaking", "狗叫声", "rain"]
    found = []
    for max_batch in (16, 2, 1):
        encoder = open_space(str(folder), RuntimeOptions(max_batch=max_batch)).text_encoder()
        encoder.load()
        found.append(vectors(encoder.encode(texts)))
        np.testing.assert_allclose(found[-1], found[0], atol=1e-6)
        np.testing.assert_allclose(found[-1][4], found[-1][0], atol=1e-6)


def test_a_file_may_ask_for_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_space(tmp_path) / "space.yaml"
    manifest = yaml.safe_load(path.read_text())
    manifest["towers"]["text"]["files"]["fp32"]["max_batch"] = 1
    path.write_text(yaml.safe_dump(manifest))
    encoder = open_space(str(tmp_path), RuntimeOptions()).text_encoder()
    assert isinstance(encoder, ClipText)
    encoder.load()
    assert len(seen_by(encoder, ["A dog.", "A car", "A bird"], monkeypatch)) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ({"input": "tokens"}, r"takes \{'ids': \('length',\)\}, expected \{'tokens': \(2,\)\}"),
        ({"output": "vector"}, r"expected \{'vector': \(32,\)\}"),
    ],
)
def test_a_graph_that_is_not_the_manifests_is_refused(
    tmp_path: Path, text: dict[str, str], said: str
) -> None:
    encoder = open_space(str(write_space(tmp_path, text)), RuntimeOptions()).text_encoder()
    with pytest.raises(ModelMismatch, match=said):
        encoder.load()


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    content = json.loads(TOKENIZER.read_text(encoding="utf-8"))
    del content["model"]["vocab"]["<|endoftext|>"]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ModelMismatch, match=rf"{VOCABULARY - 1} tokens, expected CLIP's 49408"):
        ClipTokenizer(path)


def test_the_tokenizer_is_checked_and_part_of_the_identity(tmp_path: Path, folder: Path) -> None:
    write_space(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZER.read_bytes() + b"\n")
    with pytest.raises(ModelMismatch, match=r"tokenizer\.json: sha256"):
        open_space(str(tmp_path), RuntimeOptions()).text_encoder().load()
    manifest = yaml.safe_load((folder / "space.yaml").read_text())
    manifest["towers"]["text"]["tokenizer"]["sha256"] = "0" * 64
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(manifest))
    ours, other = (open_space(str(place), RuntimeOptions()) for place in (folder, tmp_path))
    assert ours.identity != other.identity
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelMissing, match=r"tokenizer\.json: no such file"):
        open_space(str(tmp_path), RuntimeOptions())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ConfigError, match=r"'ftfy' is not installed.*sensebind\[imagebind\]"):
        ClipTokenizer(TOKENIZER)


def test_opening_a_space_imports_neither_the_runtime_nor_the_extra(folder: Path) -> None:
    code = (
        "import sys; from agent.contracts import RuntimeOptions;"
        "from encoders.space import open_space;"
        f"open_space({str(folder)!r}, RuntimeOptions());"
        "assert not {'onnxruntime', 'tokenizers', 'ftfy', 'cv2', 'torch'} & set(sys.modules)"
    )
    root = str(TOKENIZER.parents[2])
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), (b"merges", "sha256 is .*, expected 924691ac288e")],
)
def test_other_merges_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, said: str
) -> None:
    merges, output = tmp_path / "merges.gz", tmp_path / "tokenizer.json"
    if content is not None:
        merges.write_bytes(content)
    assert make_tokenizer(["--merges", str(merges), "-o", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)
    assert not output.exists()
