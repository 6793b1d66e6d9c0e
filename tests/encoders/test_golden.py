"""The towers against the vectors and tensors that came with the space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import SpaceMismatch
from encoders.files import read_file
from encoders.preprocess.audio import AudioPreprocess
from encoders.preprocess.image import ImagePreprocess
from encoders.space import ModelSpace
from tests.encoders import golden
from tests.encoders.made import SENSES
from tools.npz import write_npz

with np.load(golden.EMBEDDINGS) as _archive:
    KEYS = tuple(_archive.files)
FILES = [key for key in KEYS if key.startswith(SENSES)]
TEXTS = [key for key in KEYS if key.startswith("text|")]

# Least cosine with float32, as encoders.bind.export.FLOORS: what is under it does not ship.
INT8_FLOOR = 0.98


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    return golden.read(golden.golden_space())


@pytest.fixture(scope="module", params=["fp32", "int8"])
def space(request: pytest.FixtureRequest) -> ModelSpace:
    return golden.golden_space(request.param)


@pytest.mark.parametrize("key", FILES)
def test_file_has_its_golden_vector(
    space: ModelSpace, vectors: dict[str, np.ndarray], key: str, request: pytest.FixtureRequest
) -> None:
    modality, _, name = key.partition("|")
    own = name.startswith("golden|")
    data = Path() if own else request.getfixturevalue("shared_data")
    floor = INT8_FLOOR if space.encoder(modality).precision == "int8" else 0.999999
    path = golden.golden_file(name, data)
    assert space.embed_file(str(path), modality).vector @ vectors[key] >= floor


@pytest.mark.parametrize("key", TEXTS)
def test_text_has_its_golden_vector(
    space: ModelSpace, vectors: dict[str, np.ndarray], key: str
) -> None:
    encoder = space.text_encoder()
    encoder.load()
    (embedding,) = encoder.encode([key.removeprefix("text|")])
    assert embedding.vector @ vectors[key] >= 0.999999


def test_every_golden_vector_is_tried() -> None:
    assert len(FILES) == 19
    assert len(TEXTS) == 6
    assert len(FILES) + len(TEXTS) == len(KEYS)


def test_vectors_of_another_space_are_refused_with_the_command_that_makes_them(
    tmp_path: Path, vectors: dict[str, np.ndarray]
) -> None:
    space = golden.golden_space()
    for told, own in (("compact@000000000000", "compact@000000000000"), ("", "a space not told")):
        write_npz(tmp_path / "old.npz", vectors, told)
        with pytest.raises(SpaceMismatch) as caught:
            golden.read(space, tmp_path / "old.npz")
        assert str(caught.value) == (
            f"{tmp_path / 'old.npz'}: vectors of {own}, expected those of {space.identity}; "
            "embed them again: python -m tests.encoders.golden"
        )


def test_golden_vectors_are_made_again_by_one_command(
    tmp_path: Path, shared_data: Path, vectors: dict[str, np.ndarray]
) -> None:
    golden.make(tmp_path / "new.npz", shared_data)
    again = golden.read(golden.golden_space(), tmp_path / "new.npz")
    assert list(again) == list(KEYS)
    assert all(again[key] @ vectors[key] > 0.999999 for key in KEYS)


def test_views_are_the_golden_tensors(shared_data: Path) -> None:
    image = ImagePreprocess(
        size=64, mean=(0.48, 0.46, 0.42), std=(0.25, 0.245, 0.26), reducing_gap=3.0
    )
    audio = AudioPreprocess(
        rate_hz=16_000, length_s=2, hop_s=1, bands=64, low_hz=50, high_hz=7800, frames=192
    )
    tensors = np.load(shared_data / "compact_v0" / "golden" / "tensors.npz")
    paths = {path.name: path for path in (shared_data / "training").glob("*/*")}
    assert len(tensors.files) == 10
    for key in tensors.files:
        kind, _, name = key.partition("|")
        preprocess = {"image_tensor": image, "audio_logmel": audio}[kind]
        modality = kind.partition("_")[0]
        views = preprocess(read_file(str(paths[name]), modality))
        # They were stored as float16: half a step of it at their largest value.
        np.testing.assert_allclose(views, tensors[key].astype(np.float32), atol=1e-3)
