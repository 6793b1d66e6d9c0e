"""The stretch of an infrared frame, whatever its numbers are kept in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from encoders.preprocess.thermal import ThermalPreprocess, _percentiles

shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
frames = st.sampled_from([np.uint8, np.uint16]).flatmap(lambda kept: hnp.arrays(kept, shapes))


@given(frames, st.floats(0, 50), st.floats(50, 100))
def test_counting_gives_the_percentiles_of_sorting(
    frame: np.ndarray, low: float, high: float
) -> None:
    found = _percentiles(np.bincount(frame.ravel()), (low, high))
    assert np.allclose(found, np.percentile(frame, (low, high)), rtol=1e-5, atol=1e-4)


@given(frames)
def test_counts_are_stretched_as_the_same_numbers_in_float(frame: np.ndarray) -> None:
    settings = ThermalPreprocess(
        size=8, mean=(0.5,), std=(0.5,), reducing_gap=None, percentiles=(1, 99)
    )
    whole = settings._stretch(frame).astype(int)
    assert np.abs(whole - settings._stretch(frame.astype(np.float32))).max() <= 1
