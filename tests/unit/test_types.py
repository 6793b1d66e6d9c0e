"""What a kernel type refuses at birth, and what it keeps from being written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadData, ConfigError, SpaceMismatch
from agent.types import (
    Embedding,
    Region,
    Sample,
    Views,
    Window,
    WindowSpec,
    check_name,
    read_only,
    slug,
)
from tests.fakes.streams import block, stream

INFO = stream()
DATA = np.zeros((2, 2), np.int64)
STAMPS = np.array([1, 2], np.int64)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"data": np.zeros((2, 3), np.int64)},
            r"block is int64\[2, 3\], expected int64\[n >= 1, 2\]",
        ),
        ({"data": DATA.astype(np.int32)}, r"block is int32\[2, 2\], expected int64"),
        ({"data": DATA[:0], "t_ns": STAMPS[:0]}, r"block is int64\[0, 2\]"),
        ({"t_ns": STAMPS[:1]}, r"stamps are int64\[1\], expected int64\[2\]"),
        ({"t_ns": STAMPS.astype(float)}, r"stamps are float64\[2\], expected int64\[2\]"),
        ({"t_ns": STAMPS[::-1]}, "stamps go backwards inside a block"),
        ({"device_t_ns": STAMPS[:1]}, r"device stamps are int64\[1\], expected int64\[2\]"),
        ({"device_t_ns": STAMPS.astype(float)}, r"device stamps are float64\[2\]"),
    ],
)
def test_a_block_is_checked_at_birth(fields: dict[str, Any], said: str) -> None:
    whole: dict[str, Any] = {"stream": INFO, "seq": 0, "arrival_ns": 2, "data": DATA}
    with pytest.raises(BadData, match=f"^stream mic: {said}"):
        Sample(**(whole | {"t_ns": STAMPS} | fields))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_block_is_finite(value: float) -> None:
    info = stream(dtype="float32", shape=())
    with pytest.raises(BadData, match="values that are not finite"):
        Sample(info, 0, STAMPS, 2, np.array([0, value], np.float32))


def test_what_has_crossed_a_boundary_cannot_be_written() -> None:
    data = DATA.copy()
    sample = block(INFO, 0, [1, 2], data=data, device_t_ns=[5, 6])
    window = Window(INFO, 0, 9, data, STAMPS.copy())
    assert sample.device_t_ns is not None
    for array in (sample.data, sample.t_ns, sample.device_t_ns, window.data, window.t_ns):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    data[0] = 7
    assert sample.data[0, 0] == 7, "a view, not a copy"
    assert read_only(data).base is data


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Mic 1"}, "stream name: 'Mic 1' must be lower-case"),
        ({"modality": "IMU"}, "stream mic: modality: 'IMU' must be"),
        ({"dtype": "int33"}, "stream mic: dtype 'int33' is not one"),
        ({"rate_hz": 0.0}, "stream mic: rate_hz 0.0 must be in 0..1e7"),
        ({"rate_hz": float("nan")}, "stream mic: rate_hz nan must be in"),
        ({"clock": "mine"}, "stream mic: clock 'mine' must be host or device"),
    ],
)
def test_a_stream_is_checked_at_birth(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        stream(**({"name": "mic"} | fields))


@pytest.mark.parametrize("spec", [(0, 1, None), (1, 0, None), (1, 1, 0), (float("nan"), 1, None)])
def test_a_window_spec_is_checked_at_birth(spec: tuple[float, float, int | None]) -> None:
    with pytest.raises(ConfigError, match="must have length_s > 0, hop_s > 0 and ticks > 0"):
        WindowSpec(*spec)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(4, np.float32),
        np.array([2, 0], np.float32),
        np.array([np.nan, 0], np.float32),
        np.array([1.0, 0.0]),
        np.array([[1, 0]], np.float32),
    ],
)
def test_an_embedding_is_a_unit_vector(vector: Any) -> None:
    with pytest.raises(BadData, match=r"^embedding of mic: .*expected float32\[dim\] of length 1"):
        Embedding("a@1", vector, "audio", "mic")


@pytest.mark.parametrize(
    ("vectors", "count", "said"),
    [
        (np.eye(2, dtype=np.float32), 1, r"float32\[2, 2\] with 1 regions, expected float32"),
        (np.eye(2), 2, r"float64\[2, 2\] with 2 regions"),
        (np.empty((0, 2), np.float32), 0, r"float32\[0, 2\] with 0 regions"),
        (np.ones(2, np.float32), 1, r"float32\[2\] with 1 regions"),
        (np.eye(2, dtype=np.float32) * 2, 2, r"lengths are 2.0000 to 2.0000, expected 1"),
        (np.full((1, 2), np.nan, np.float32), 1, "lengths are nan"),
    ],
)
def test_views_are_unit_vectors_with_a_region_each(vectors: Any, count: int, said: str) -> None:
    with pytest.raises(BadData, match=f"^views: {said}"):
        Views(vectors, (Region(0, 0, 1, 1),) * count)


def test_an_embedding_has_the_whole_before_its_views() -> None:
    whole, regions = np.array([0, 1, 0], np.float32), (Region(0, 0, 0.5, 1), Region(0.5, 0, 0.5, 1))
    parts = Views(np.eye(3, dtype=np.float32)[[0, 2]], regions)
    embedding = Embedding("a@1", whole, "image", views=parts)
    np.testing.assert_array_equal(embedding.rows, np.eye(3)[[1, 0, 2]])
    assert embedding.regions == (None, *regions)
    assert not parts.vectors.flags.writeable
    with pytest.raises(BadData, match="views of 3 dimensions, expected 2"):
        Embedding("a@1", np.array([0, 1], np.float32), "image", views=parts)


def test_vectors_of_two_spaces_are_never_compared() -> None:
    vector = np.array([0.6, 0.8], np.float32)
    one = Embedding("a@1", vector, "audio")
    assert one.cosine(Embedding("a@1", vector[::-1].copy(), "text")) == pytest.approx(0.96)
    with pytest.raises(SpaceMismatch, match="vectors of a@1 and a@2"):
        one.cosine(Embedding("a@2", vector, "text"))


@given(st.text())
def test_a_slug_is_always_a_name(text: str) -> None:
    assert check_name(slug(text), "slug") == slug(text)
