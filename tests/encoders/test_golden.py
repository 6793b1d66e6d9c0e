"""The towers against the vectors and tensors that came with the space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.contracts import RuntimeOptions
from encoders.files import read_file
from encoders.preprocess.audio import AudioPreprocess
from encoders.preprocess.image import ImagePreprocess
from encoders.space import ModelSpace, open_space
from tests.encoders.made import SENSES

GOLDEN = Path(__file__).parents[1] / "data" / "compact_golden"
EMBEDDINGS = dict(np.load(GOLDEN / "embeddings.npz"))
FILES = [key for key in EMBEDDINGS if key.startswith(SENSES)]
TEXTS = [key for key in EMBEDDINGS if key.startswith("text|")]

# What the publisher measured of int8 against fp32, on many recordings; the image tower has none.
INT8_FLOORS = {"audio": 0.9985, "thermal": 0.9972, "depth": 0.9996, "imu": 0.9978}


@pytest.fixture(scope="module", params=[None, "int8"], ids=["fp32", "int8"])
def space(request: pytest.FixtureRequest) -> ModelSpace:
    return open_space("compact", RuntimeOptions(precision=request.param))


@pytest.mark.parametrize("key", FILES)
def test_file_has_its_golden_vector(
    space: ModelSpace, key: str, request: pytest.FixtureRequest
) -> None:
    modality, _, name = key.partition("|")
    if modality == "imu":
        path = GOLDEN / "imu_50hz.csv"
    else:
        path = request.getfixturevalue("shared_data") / name.replace("|", "/")
    floor = 0.999999
    if space.encoder(modality).precision == "int8":
        floor = INT8_FLOORS[modality]
    assert space.embed_file(str(path), modality).vector @ EMBEDDINGS[key] >= floor


@pytest.mark.parametrize("key", TEXTS)
def test_text_has_its_golden_vector(space: ModelSpace, key: str) -> None:
    encoder = space.text_encoder()
    encoder.load()
    (embedding,) = encoder.encode([key.removeprefix("text|")])
    assert embedding.vector @ EMBEDDINGS[key] >= 0.999999


def test_every_golden_vector_is_tried() -> None:
    assert len(FILES) == 19
    assert len(TEXTS) == 6
    assert len(FILES) + len(TEXTS) == len(EMBEDDINGS)


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
