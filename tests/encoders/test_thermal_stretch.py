"""The stretch of an infrared frame, whatever its numbers are kept in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from encoders.preprocess.thermal import (
    SPARSE,
    ThermalPreprocess,
    _percentiles,
    _percentiles_of,
)

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
frames = st.sampled_from([np.uint8, np.uint16]).flatmap(lambda kept: hnp.arrays(kept, shapes))
SETTINGS = ThermalPreprocess(
    size=8, mean=(0.5,), std=(0.5,), reducing_gap=None, percentiles=(1, 99)
)


def check_percentiles(values: np.ndarray, percentiles: tuple[float, float]) -> None:
    """Within rounding of numpy's, which rounds otherwise from one version to the next."""
    found = _percentiles_of(values, percentiles)
    assert found.dtype == np.float32
    error = 1e-6 * float(np.abs(values).max()) + 1e-30
    np.testing.assert_allclose(found, np.percentile(values, percentiles), rtol=0, atol=error)


@given(frames, st.floats(0, 50), st.floats(50, 100))
def test_counting_gives_the_percentiles_of_sorting(
    frame: np.ndarray, low: float, high: float
) -> None:
    found = _percentiles(np.bincount(frame.ravel()), (low, high))
    assert np.allclose(found, np.percentile(frame, (low, high)), rtol=1e-5, atol=1e-4)


@given(
    hnp.arrays(np.float32, st.integers(1, 600), elements=st.floats(-500, 500, width=32)),
    st.floats(0, 50),
    st.floats(50, 100),
)
def test_any_temperatures_have_the_percentiles_of_sorting(
    values: np.ndarray, low: float, high: float
) -> None:
    check_percentiles(values, (low, high))


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40_000), st.sampled_from([(1.0, 99.0), (5.0, 60.0)])
)
def test_a_frame_of_temperatures_has_the_percentiles_of_sorting(
    seed: int, count: int, percentiles: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    # To a tenth of a degree: a camera's steps, so that many are the same.
    values = rng.normal(25, 5, count).astype(np.float32).round(1)
    check_percentiles(values, percentiles)


@pytest.mark.parametrize(("cold", "hot"), [(-50, 400), (-50, 25), (25, 400), (25, 25), (24, 26)])
def test_a_sample_that_is_unlike_the_frame_misleads_nobody(cold: float, hot: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(25, 5, 20_000).astype(np.float32)
    values[::SPARSE] = rng.choice([cold, hot], len(values[::SPARSE]))
    check_percentiles(values, (5, 95))


def test_a_frame_is_read_only_and_stays_as_it_is() -> None:
    frame = np.random.default_rng(0).normal(25, 5, (60, 80)).astype(np.float32)
    before = frame.copy()
    frame.flags.writeable = False
    SETTINGS._stretch(frame)
    np.testing.assert_array_equal(frame, before)


@given(frames)
def test_counts_are_stretched_as_the_same_numbers_in_float(frame: np.ndarray) -> None:
    whole = np.asarray(SETTINGS._stretch(frame)).astype(int)
    assert np.abs(whole - np.asarray(SETTINGS._stretch(frame.astype(np.float32)))).max() <= 1
