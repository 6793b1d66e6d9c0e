from __future__ import annotations

import numpy as np
import pytest

from agent.contracts import Encoder, RuntimeOptions, TextEncoder
from agent.errors import EncodeFailed
from agent.types import Window
from encoders.session import unit
from encoders.space import open_space
from tests.contracts.encoder_contract import EncoderContract, TextEncoderContract, vectors
from tests.encoders.made import SENSES, made_windows, window


class TestCompactTowers(EncoderContract):
    @pytest.fixture(params=SENSES)
    def unloaded(self, request: pytest.FixtureRequest) -> Encoder:
        return open_space("compact", RuntimeOptions()).encoder(request.param)

    @pytest.fixture
    def windows(self, unloaded: Encoder) -> list[Window]:
        return made_windows(unloaded.modality, 5)


class TestCompactText(TextEncoderContract):
    @pytest.fixture
    def unloaded(self) -> TextEncoder:
        return open_space("compact", RuntimeOptions()).text_encoder()


@pytest.mark.parametrize("modality", SENSES)
def test_vectors_do_not_depend_on_threads_or_batch_size(modality: str) -> None:
    windows = made_windows(modality, 7)
    expected = None
    for options in (
        RuntimeOptions(threads=1),
        RuntimeOptions(threads=2),
        RuntimeOptions(max_batch=1),
        RuntimeOptions(max_batch=5),
    ):
        encoder = open_space("compact", options).encoder(modality)
        encoder.load()
        found = vectors(encoder.encode(windows))
        expected = found if expected is None else expected
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("modality", ["audio", "imu"])
def test_long_window_is_the_unit_mean_of_its_views(modality: str) -> None:
    space = open_space("compact", RuntimeOptions(max_batch=2))
    encoder = space.encoder(modality)
    encoder.load()
    parts = made_windows(modality, 3)
    data = np.concatenate([part.data for part in parts])
    long = window(modality, data, parts[0].stream.rate_hz)
    views = encoder.encode_views(long)
    assert len(views) > 1
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1, atol=1e-6)
    mean = views.mean(axis=0)
    (embedding,) = encoder.encode([long])
    np.testing.assert_allclose(embedding.vector, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("vectors", [[[0.0, 0.0]], [[np.nan, 1.0]], [[1.0, 0.0], [np.inf, 1.0]]])
def test_a_vector_without_direction_is_refused(vectors: list[list[float]]) -> None:
    with pytest.raises(EncodeFailed, match="length zero or values that are not finite"):
        unit(np.array(vectors, np.float32))


def test_input_that_is_not_finite_is_refused() -> None:
    encoder = open_space("compact", RuntimeOptions()).encoder("imu")
    encoder.load()
    with pytest.raises(EncodeFailed, match="not finite"):
        encoder.encode([window("imu", np.full((100, 6), np.nan, np.float32), 20.0)])
