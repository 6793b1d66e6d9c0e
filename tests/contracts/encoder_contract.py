"""What every encoder of windows, and every encoder of text, must do.

A plug-in's test file subclasses one of these and gives the fixtures its docstring names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from agent.contracts import Encoder, TextEncoder
from agent.errors import EncodeFailed
from agent.types import Embedding, Window

__all__ = ["EncoderContract", "TextEncoderContract"]

# A batch is split over kernels in another way than a single row; only rounding may differ.
ROUNDING = 1e-5


def vectors(embeddings: Sequence[Embedding]) -> np.ndarray:
    return np.stack([embedding.vector for embedding in embeddings])


class EncoderContract:
    """Give `unloaded`: a new encoder. Give `windows`: at least three that differ."""

    @pytest.fixture
    def encoder(self, unloaded: Encoder) -> Encoder:
        unloaded.load()
        return unloaded

    def test_is_of_one_sense_and_one_space(self, unloaded: Encoder, windows: list[Window]) -> None:
        name, _, digest = unloaded.space.partition("@")
        assert name
        assert len(digest) == 12
        assert {window.stream.modality for window in windows} == {unloaded.modality}
        assert unloaded.window.length_s > 0

    def test_refuses_to_encode_before_load(self, unloaded: Encoder, windows: list[Window]) -> None:
        with pytest.raises(EncodeFailed, match="not loaded"):
            unloaded.encode(windows[:1])

    def test_loads_again_without_change(self, encoder: Encoder, windows: list[Window]) -> None:
        before = vectors(encoder.encode(windows))
        encoder.load()
        np.testing.assert_array_equal(vectors(encoder.encode(windows)), before)

    def test_gives_one_unit_vector_a_window(self, encoder: Encoder, windows: list[Window]) -> None:
        embeddings = encoder.encode(windows)
        assert len(embeddings) == len(windows)
        np.testing.assert_allclose(np.linalg.norm(vectors(embeddings), axis=1), 1, atol=1e-5)
        for window, embedding in zip(windows, embeddings, strict=True):
            assert embedding.vector.dtype == np.float32
            assert embedding.space == encoder.space
            assert embedding.modality == encoder.modality
            assert embedding.stream == window.stream.name
            assert (embedding.start_ns, embedding.end_ns) == (window.start_ns, window.end_ns)
            assert embedding.arrival_ns == window.arrival_ns

    def test_the_whole_comes_before_its_views(
        self, encoder: Encoder, windows: list[Window]
    ) -> None:
        for embedding in encoder.encode(windows):
            np.testing.assert_array_equal(embedding.rows[0], embedding.vector)
            whole, *parts = embedding.regions
            assert whole is None
            assert len(embedding.rows) == 1 + len(parts)
            for part in parts:
                assert part is not None
                assert 0 <= part.left < part.left + part.width <= 1 + 1e-5
                assert 0 <= part.top < part.top + part.height <= 1 + 1e-5

    def test_tells_windows_apart(self, encoder: Encoder, windows: list[Window]) -> None:
        found = vectors(encoder.encode(windows))
        cosines = (found @ found.T)[~np.eye(len(found), dtype=bool)]
        assert (cosines < 1 - 1e-4).all()

    def test_order_of_a_batch_does_not_matter(
        self, encoder: Encoder, windows: list[Window]
    ) -> None:
        forwards = vectors(encoder.encode(windows))
        backwards = vectors(encoder.encode(windows[::-1]))
        np.testing.assert_allclose(backwards[::-1], forwards, atol=ROUNDING)

    def test_a_batch_is_as_its_windows_alone(self, encoder: Encoder, windows: list[Window]) -> None:
        alone = [encoder.encode([window])[0] for window in windows]
        np.testing.assert_allclose(vectors(encoder.encode(windows)), vectors(alone), atol=ROUNDING)

    def test_nothing_in_nothing_out(self, encoder: Encoder) -> None:
        assert encoder.encode([]) == []

    def test_does_not_write_to_its_input(self, encoder: Encoder, windows: list[Window]) -> None:
        before = [window.data.copy() for window in windows]
        encoder.encode(windows)
        for window, data in zip(windows, before, strict=True):
            np.testing.assert_array_equal(window.data, data)

    def test_stays_usable_after_a_bad_window(self, encoder: Encoder, windows: list[Window]) -> None:
        before = vectors(encoder.encode(windows))
        first = windows[0]
        bad = Window(first.stream, 0, 1, np.zeros((1, 1, 1, 1, 7), bool), np.zeros(1, np.int64))
        with pytest.raises(EncodeFailed, match=first.stream.name):
            encoder.encode([bad])
        np.testing.assert_array_equal(vectors(encoder.encode(windows)), before)

    def test_closes_twice_and_loads_again(self, encoder: Encoder, windows: list[Window]) -> None:
        before = vectors(encoder.encode(windows))
        encoder.close()
        encoder.close()
        with pytest.raises(EncodeFailed, match="not loaded"):
            encoder.encode(windows)
        encoder.load()
        np.testing.assert_array_equal(vectors(encoder.encode(windows)), before)


class TextEncoderContract:
    """Give `unloaded`: a new text encoder. Give `texts`: at least three that differ."""

    @pytest.fixture
    def texts(self) -> list[str]:
        return ["a dog barking", "rain on a window", "someone is running"]

    @pytest.fixture
    def encoder(self, unloaded: TextEncoder) -> TextEncoder:
        unloaded.load()
        return unloaded

    def test_refuses_to_encode_before_load(self, unloaded: TextEncoder, texts: list[str]) -> None:
        with pytest.raises(EncodeFailed, match="not loaded"):
            unloaded.encode(texts)

    def test_gives_one_unit_vector_a_text_in_order(
        self, encoder: TextEncoder, texts: list[str]
    ) -> None:
        embeddings = encoder.encode(texts)
        assert {embedding.space for embedding in embeddings} == {encoder.space}
        alone = vectors([encoder.encode([text])[0] for text in texts])
        np.testing.assert_allclose(vectors(embeddings), alone, atol=ROUNDING)
        np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
        assert ((alone @ alone.T)[~np.eye(len(texts), dtype=bool)] < 0.99).all()

    def test_nothing_in_nothing_out(self, encoder: TextEncoder) -> None:
        assert encoder.encode([]) == []

    @pytest.mark.parametrize("text", ["", "   "])
    def test_refuses_a_text_without_a_word(self, encoder: TextEncoder, text: str) -> None:
        with pytest.raises(EncodeFailed, match="no known word"):
            encoder.encode([text])

    def test_closes_twice_and_loads_again(self, encoder: TextEncoder, texts: list[str]) -> None:
        before = vectors(encoder.encode(texts))
        encoder.close()
        encoder.close()
        with pytest.raises(EncodeFailed, match="not loaded"):
            encoder.encode(texts)
        encoder.load()
        np.testing.assert_array_equal(vectors(encoder.encode(texts)), before)
