"""The two preprocessings for senses that nobody planned."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import EncodeFailed
from encoders.preprocess.grid import GridPreprocess
from encoders.preprocess.signal import SignalPreprocess
from tests.encoders.made import window

SIGNAL = {"channels": 2, "rate_hz": 10.0, "length_s": 2.0, "hop_s": 1.0}


def test_a_signal_is_resampled_cut_and_scaled_in_its_own_unit() -> None:
    t_s = np.arange(400) / 100
    data = np.stack([10 + t_s, np.full(400, -3.0)], axis=1)
    views = SignalPreprocess(**SIGNAL, offset=(10.0, 0.0), scale=(2.0, 3.0))(
        window("emg", data, 100.0)
    )
    assert views.shape == (3, 2, 20)
    assert views.dtype == np.float32
    # The box of ten ticks looks half a tick of 10 Hz ahead or back.
    np.testing.assert_allclose(views[1, 0, 1:-1], (1 + np.arange(1, 19) / 10) / 2, atol=0.05)
    np.testing.assert_allclose(views[:, 1], -1)


def test_a_signal_of_one_number_a_tick_needs_no_axis() -> None:
    one = SignalPreprocess(channels=1, rate_hz=1.0, length_s=5.0, hop_s=5.0)
    assert one(window("heart_rate", np.full(3, 71, np.uint8), 1.0)).tolist() == [[[71.0] * 5]]


@given(st.floats(-100, 100), st.floats(0.1, 100))
def test_robust_leaves_the_shape_alone(offset: float, gain: float) -> None:
    robust = SignalPreprocess(**SIGNAL, normalise="robust", scale=(1e-6,))
    data = np.random.default_rng(0).normal(size=(20, 2))
    plain = robust(window("emg", data, 10.0))
    np.testing.assert_allclose(robust(window("emg", offset + gain * data, 10.0)), plain, atol=1e-3)


def test_robust_does_not_blow_up_a_still_sensor() -> None:
    robust = SignalPreprocess(**SIGNAL, normalise="robust", scale=(0.5,))
    noise = np.random.default_rng(0).normal(0, 1e-4, (20, 2)) + 7
    assert np.abs(robust(window("emg", noise, 10.0))).max() < 1e-2


@pytest.mark.parametrize(
    "wrong",
    [{"channels": 0}, {"scale": (0.0,)}, {"offset": (1.0, 2.0, 3.0)}, {"length_s": 0.01}],
)
def test_signal_parameters_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(msgspec.ValidationError, match="expected"):
        msgspec.convert({**SIGNAL, **wrong}, SignalPreprocess)


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(EncodeFailed, match=r"expected numbers \[n, 2\]"):
        SignalPreprocess(**SIGNAL)(window("emg", np.zeros((5, 3)), 10.0))


def test_a_grid_is_mapped_clipped_and_resized() -> None:
    frames = np.zeros((2, 4, 8), np.uint16)
    frames[1] = 500
    frames[1, :, 4:] = 9000
    views = GridPreprocess(height=2, width=2, low=0, high=1000)(window("touch", frames))
    assert views.shape == (2, 1, 2, 2)
    assert views[0].tolist() == [[[-1, -1], [-1, -1]]]
    assert views[1, 0, :, 0] == pytest.approx([0, 0], abs=0.3)
    assert views[1, 0, :, 1] == pytest.approx([1, 1], abs=0.3)


@given(st.floats(1, 1000), st.floats(-1000, 1000))
def test_percentiles_take_gain_and_offset_out(gain: float, offset: float) -> None:
    grid = GridPreprocess(height=6, width=5, percentiles=(1, 99))
    frame = np.random.default_rng(1).normal(size=(1, 12, 10))
    plain, moved = grid(window("radar", frame)), grid(window("radar", gain * frame + offset))
    np.testing.assert_allclose(moved, plain, atol=1e-3)


def test_a_picture_in_colour_is_no_grid() -> None:
    with pytest.raises(EncodeFailed, match="rows, columns"):
        GridPreprocess(height=2, width=2)(window("touch", np.zeros((1, 4, 4, 3))))
