from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.errors import EncodeFailed
from encoders.preprocess.imagebind_imu import ORDER, ImageBindImu
from tests.encoders.made import window

IMU = ImageBindImu()
MS = NS_PER_S // 1000


def sines(t_s: NDArray, frequency_hz: float = 0.8) -> NDArray[np.float32]:
    """(n, 6): each channel of another phase and size."""
    phase = 2 * np.pi * frequency_hz * t_s[:, np.newaxis] + np.arange(6)
    return (np.sin(phase) * np.arange(1, 7)).astype(np.float32)


def view_of(t_ns: NDArray, data: NDArray, rate_hz: float | None = None) -> NDArray[np.float32]:
    views = IMU(window("imu", data, rate_hz, t_ns=t_ns))
    assert views.shape == (1, 6, 2000)
    assert views.dtype == np.float32
    return views[0]


def steady(rate_hz: float, seconds: float = 10.0) -> NDArray[np.int64]:
    return np.rint(np.arange(round(seconds * rate_hz)) * NS_PER_S / rate_hz).astype(np.int64)


def test_at_200_hz_a_view_is_the_ticks() -> None:
    t_ns = steady(200)
    data = sines(t_ns / NS_PER_S)
    np.testing.assert_allclose(view_of(t_ns, data, 200.0), data.T, atol=1e-6)


@given(rate_hz=st.floats(50, 1600), frequency_hz=st.floats(0.05, 1.0))
def test_the_rate_of_the_stream_does_not_matter(rate_hz: float, frequency_hz: float) -> None:
    t_ns = steady(rate_hz)
    view = view_of(t_ns, sines(t_ns / NS_PER_S, frequency_hz), rate_hz)
    expected = sines(np.arange(2000) / 200, frequency_hz).T
    # Half a tick of the box and a straight line for a curve, of a sine of size 1 to 6; the last
    # ticks are held.
    np.testing.assert_allclose(view[:, 20:-20], expected[:, 20:-20], atol=0.2)


def test_what_is_too_fast_for_200_hz_is_smoothed_away() -> None:
    t_ns = steady(1000)
    fast = sines(t_ns / NS_PER_S, 400.0)
    assert np.abs(fast).max() > 5
    assert np.abs(view_of(t_ns, fast, 1000.0)[:, 5:-5]).max() < 0.1


@given(
    rate_hz=st.sampled_from([25, 50, 100, 200, 400, 1000]),
    gaps=st.lists(st.tuples(st.integers(200, 9000), st.integers(2, 1500)), min_size=1, max_size=3),
)
def test_gaps_are_zero_exactly_where_they_are(rate_hz: int, gaps: list[tuple[int, int]]) -> None:
    """gaps: (start, length) in ms; between the last tick before one and the first after it."""
    t_ns = steady(rate_hz)
    for start_ms, length_ms in gaps:
        t_ns = t_ns[(t_ns < start_ms * MS) | (t_ns >= (start_ms + length_ms) * MS)]
    view = view_of(t_ns, np.full((len(t_ns), 6), 7, np.float32), float(rate_hz))
    limit_ns = max(100 * MS, 3 * NS_PER_S // rate_hz)
    end_ns = int(t_ns[-1]) + NS_PER_S // rate_hz
    for tick, time_ns in enumerate(range(0, 10 * NS_PER_S, 5 * MS)):
        after = int(np.searchsorted(t_ns, time_ns))
        missing = (
            after < len(t_ns) and t_ns[after] > time_ns and t_ns[after] - t_ns[after - 1] > limit_ns
        )
        if abs(time_ns - end_ns) > 5 * MS:  # a grid's last tick is at the nearest whole one
            expected = 0.0 if missing or time_ns >= end_ns else 7.0
            np.testing.assert_allclose(view[:, tick], expected, atol=1e-6)


def test_a_slow_stream_has_no_gaps() -> None:
    t_ns = steady(20)  # 50 ms apart; three are 150 ms
    t_ns = np.delete(t_ns, [50, 51])
    assert (view_of(t_ns, np.ones((len(t_ns), 6), np.float32), 20.0)[:, :1990] == 1).all()


@given(
    steps_ms=st.lists(st.integers(0, 4000), min_size=0, max_size=30),
    seed=st.integers(0, 100),
    rated=st.booleans(),
)
def test_views_are_finite_whatever_the_stamps(steps_ms: list[int], seed: int, rated: bool) -> None:
    t_ns = np.cumsum([0, *steps_ms]).astype(np.int64) * MS
    data = np.random.default_rng(seed).normal(0, 50, (len(t_ns), 6)).astype(np.float32)
    assume(rated or (len(steps_ms) > 0 and np.median(steps_ms) > 0))
    views = IMU(window("imu", data, 100.0 if rated else None, t_ns=t_ns))
    assert views.shape[1:] == IMU.shape
    assert np.isfinite(views).all()
    assert np.abs(views).max() <= np.abs(data).max() * 1.001


def test_a_short_window_is_padded_with_zeros_at_its_end() -> None:
    t_ns = steady(200, 4)
    view = view_of(t_ns, sines(t_ns / NS_PER_S), 200.0)
    assert (view[:, 800:] == 0).all()
    assert (np.abs(view[:, :800]).max(axis=0) > 0).all()


def test_one_tick_is_one_value() -> None:
    view = view_of(np.zeros(1, np.int64), np.arange(1, 7, dtype=np.float32)[np.newaxis])
    np.testing.assert_array_equal(view[:, 0], np.arange(1, 7))
    assert (view[:, 1:] == 0).all()


def test_a_long_window_is_cut_into_views() -> None:
    t_ns = steady(200, 34)
    data = sines(t_ns / NS_PER_S)
    views = IMU(window("imu", data, 200.0))
    assert len(views) == 3
    np.testing.assert_allclose(views[2], data[4000:6000].T, atol=1e-6)
    overlapping = ImageBindImu(hop_s=5.0)(window("imu", data, 200.0))
    assert len(overlapping) == 5
    np.testing.assert_array_equal(overlapping[2], views[1])


def test_order_and_scales() -> None:
    t_ns = steady(200)
    data = sines(t_ns / NS_PER_S)
    turned = ImageBindImu(
        order=("gx", "gy", "gz", "ax", "ay", "az"), acceleration_scale=2.0, rotation_scale=4.0
    )(window("imu", data, 200.0))
    np.testing.assert_allclose(turned[0], np.r_[data.T[3:] / 4, data.T[:3] / 2], atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"order": ["ax", "ay", "az", "gx", "gy", "gx"]},
            "expected each of ax, ay, az, gx, gy, gz",
        ),
        ({"order": list(ORDER[:5])}, "length 6"),
        ({"rate_hz": 0}, "> 0"),
        ({"hop_s": 0.001}, "at least one tick each"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(parameters, ImageBindImu)


@pytest.mark.parametrize("data", [np.zeros((5, 3), np.float32), np.zeros((5, 6), np.int16)])
def test_other_data_is_named(data: NDArray) -> None:
    with pytest.raises(EncodeFailed, match=r"stream made_imu: .*expected float32\[n, 6\]"):
        IMU(window("imu", data, 100.0))
