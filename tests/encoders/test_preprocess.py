from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.errors import ConfigError, EncodeFailed
from encoders.preprocess.audio import AudioPreprocess, fill_gaps, mel_filters, mono
from encoders.preprocess.base import Preprocess
from encoders.preprocess.crops import crop_offsets
from encoders.preprocess.depth import DepthPreprocess
from encoders.preprocess.image import ImagePreprocess
from encoders.preprocess.imu import ImuPreprocess
from encoders.preprocess.thermal import ThermalPreprocess
from tests.encoders.made import SENSES, made_windows, window

GREY = {"size": 64, "mean": (0.45,), "std": (0.25,), "reducing_gap": None}
PREPROCESS: dict[str, Preprocess] = {
    "image": ImagePreprocess(
        size=64, mean=(0.48, 0.46, 0.42), std=(0.25, 0.245, 0.26), reducing_gap=3.0
    ),
    "audio": AudioPreprocess(
        rate_hz=16_000, length_s=2, hop_s=1, bands=64, low_hz=50, high_hz=7800, frames=192
    ),
    "depth": DepthPreprocess(**GREY, near_m=0.3, far_m=10.0),
    "thermal": ThermalPreprocess(**GREY, percentiles=(1, 99)),
    "imu": ImuPreprocess(rate_hz=20, length=100, hop=50, acceleration_scale=10, rotation_scale=3),
}


def grey_of(views: NDArray) -> NDArray:
    """Pixels 0..1 of normalised grey views."""
    return views * 0.25 + 0.45


def check(views: NDArray, modality: str) -> None:
    assert views.dtype == np.float32
    assert views.shape[1:] == PREPROCESS[modality].shape
    assert len(views) >= 1
    assert np.isfinite(views).all()


@pytest.mark.parametrize("modality", SENSES)
def test_same_window_same_views(modality: str) -> None:
    (made,) = made_windows(modality, 1)
    first, second = PREPROCESS[modality](made), PREPROCESS[modality](made)
    check(first, modality)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("modality", SENSES)
@pytest.mark.parametrize(
    "data",
    [
        np.zeros((0, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 4, 4), np.uint8),
        np.zeros((3, 5), np.complex64),
        np.zeros((2, 4, 4), bool),
        np.zeros((7,), np.float32),
    ],
    ids=["empty", "5d", "complex", "bool", "1d"],
)
def test_wrong_data_is_named(modality: str, data: NDArray) -> None:
    with pytest.raises(EncodeFailed, match=f"stream made_{modality}: .*expected") as caught:
        PREPROCESS[modality](window(modality, data, 10.0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("modality", "data"),
    [
        ("image", np.zeros((1, 4, 4, 4), np.uint8)),
        ("image", np.zeros((1, 4, 4, 3), np.uint16)),
        ("depth", np.zeros((1, 4, 4), np.float32)),
        ("imu", np.zeros((9, 7), np.float32)),
        ("imu", np.zeros((9, 6), np.int16)),
        ("audio", np.zeros((9, 1), np.uint8)),
    ],
)
def test_data_of_another_convention_is_refused(modality: str, data: NDArray) -> None:
    with pytest.raises(EncodeFailed, match=r"window is \w+\[.*expected"):
        PREPROCESS[modality](window(modality, data, 10.0))


@pytest.mark.parametrize("modality", ["audio", "imu"])
def test_stamps_that_span_more_than_a_day_are_refused(modality: str) -> None:
    (made,) = made_windows(modality, 1)
    t_ns = made.t_ns.copy()
    t_ns[-1] += 100_000 * NS_PER_S
    with pytest.raises(EncodeFailed, match="expected at most a day"):
        PREPROCESS[modality](window(modality, made.data, made.stream.rate_hz, t_ns))


def test_sound_without_a_rate_or_stamps_that_tell_it_is_refused() -> None:
    with pytest.raises(EncodeFailed, match="no rate_hz and 1 stamps"):
        PREPROCESS["audio"](window("audio", np.zeros((1, 1), np.int16)))


class TestCrops:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((64, 64), [0]),
            ((119, 100), [9]),
            ((120, 100), [0, 20, 10]),
            ((100, 120), [0, 20, 10]),
            ((169, 100), [0, 69, 34]),
            ((170, 100), [0, 70]),
            ((200, 100), [0, 100]),
            ((201, 100), [0, 50, 101]),
            ((300, 100), [0, 100, 200]),
        ],
    )
    def test_offsets(self, size: tuple[int, int], expected: list[int]) -> None:
        assert crop_offsets(*size) == expected

    @given(st.integers(1, 400), st.integers(1, 400))
    def test_cover_the_frame_from_end_to_end(self, width: int, height: int) -> None:
        offsets = crop_offsets(width, height)
        short, long = min(width, height), max(width, height)
        assert all(0 <= offset <= long - short for offset in offsets)
        if long / short >= 1.2:
            ends = sorted(offsets)
            assert (ends[0], ends[-1]) == (0, long - short)
            assert all(b - a <= short for a, b in pairwise(ends))

    def test_a_crop_is_that_part_of_the_frame(self) -> None:
        frame = np.zeros((64, 128, 3), np.uint8)
        frame[:, 64:] = 255
        left, right = PREPROCESS["image"](window("image", frame[None]))
        assert (left[0] == left[0, 0, 0]).all()
        np.testing.assert_allclose(
            left[:, 5, 5], -np.array([0.48, 0.46, 0.42]) / [0.25, 0.245, 0.26], rtol=1e-6
        )
        np.testing.assert_allclose(
            right[:, 5, 5], (1 - np.array([0.48, 0.46, 0.42])) / [0.25, 0.245, 0.26], rtol=1e-6
        )


class TestImage:
    @given(
        npst.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90)))
    )
    @settings(max_examples=30, deadline=None)
    def test_grey_is_colour_with_equal_channels(self, frames: NDArray) -> None:
        grey = PREPROCESS["image"](window("image", frames))
        colour = PREPROCESS["image"](window("image", np.stack([frames] * 3, -1)))
        check(grey, "image")
        np.testing.assert_array_equal(grey, colour)


class TestThermal:
    @given(
        npst.arrays(
            st.sampled_from([np.uint8, np.uint16, np.float32]),
            st.tuples(st.just(1), st.integers(1, 40), st.integers(1, 40)),
            elements=st.integers(0, 255),
        )
    )
    @settings(max_examples=50, deadline=None)
    def test_any_frame_gives_finite_pixels_in_range(self, frames: NDArray) -> None:
        views = PREPROCESS["thermal"](window("thermal", frames))
        check(views, "thermal")
        assert (grey_of(views) > -1e-6).all()
        assert (grey_of(views) < 1 + 1e-6).all()

    def test_unit_and_offset_do_not_matter(self) -> None:
        (made,) = made_windows("thermal", 1)
        counts = made.data
        celsius = (counts.astype(np.float32) / 64).astype(np.float32) - 100
        first = PREPROCESS["thermal"](made)
        second = PREPROCESS["thermal"](window("thermal", celsius))
        assert np.abs(first - second).max() <= 2 / 255 / 0.25

    def test_flat_frame_is_black(self) -> None:
        views = PREPROCESS["thermal"](window("thermal", np.full((1, 8, 8), 7000, np.uint16)))
        np.testing.assert_allclose(grey_of(views), 0, atol=1e-6)


class TestDepth:
    def grey(self, depth_mm: int) -> float:
        views = PREPROCESS["depth"](window("depth", np.full((1, 8, 8), depth_mm, np.uint16)))
        check(views, "depth")
        return float(grey_of(views)[0, 0, 3, 3])

    @pytest.mark.parametrize("hole", [0, 50, 65_535])
    def test_holes_are_black(self, hole: int) -> None:
        assert self.grey(hole) == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize(
        ("depth_mm", "expected"),
        [(51, 1.0), (300, 1.0), (1732, 0.5), (10_000, 0.02), (65_534, 0.02)],
    )
    def test_brightness_is_logarithmic(self, depth_mm: int, expected: float) -> None:
        assert self.grey(depth_mm) == pytest.approx(expected, abs=1 / 255)

    @given(st.integers(51, 65_534), st.integers(51, 65_534))
    @settings(max_examples=30, deadline=None)
    def test_nearer_is_never_darker(self, one: int, other: int) -> None:
        near, far = sorted((one, other))
        assert self.grey(near) >= self.grey(far) > 0


class TestAudio:
    @pytest.mark.parametrize(
        ("seconds", "views"), [(0.5, 1), (2.0, 1), (2.5, 1), (3.0, 2), (5.0, 4)]
    )
    def test_windows_of_a_clip(self, seconds: float, views: int) -> None:
        noise = np.random.default_rng(0).normal(0, 0.1, (round(16_000 * seconds), 1))
        made = PREPROCESS["audio"](window("audio", noise.astype(np.float32), 16_000.0))
        check(made, "audio")
        assert len(made) == views

    def test_quiet_windows_of_a_clip_are_dropped(self) -> None:
        clip = np.zeros((16_000 * 6, 1), np.float32)
        clip[: 16_000 * 2] = 0.3 * np.random.default_rng(0).normal(size=(32_000, 1))
        clip[16_000 * 2 :] += 1e-3
        assert len(PREPROCESS["audio"](window("audio", clip, 16_000.0))) == 2

    @given(
        npst.arrays(
            st.sampled_from([np.int16, np.float32]),
            st.tuples(st.integers(1, 3000), st.integers(1, 3)),
            elements=st.integers(-1, 1),
            fill=st.just(0),
        ),
        st.sampled_from([8000.0, 16_000.0, 44_100.0, 48_000.0, 96_000.0]),
    )
    @settings(max_examples=50, deadline=None)
    def test_any_sound_gives_finite_views(self, data: NDArray, rate_hz: float) -> None:
        check(PREPROCESS["audio"](window("audio", data, rate_hz)), "audio")

    @pytest.mark.parametrize("dtype", [np.int16, np.float32])
    def test_digital_silence_is_one_finite_view(self, dtype: type) -> None:
        views = PREPROCESS["audio"](window("audio", np.zeros((96_000, 2), dtype), 48_000.0))
        check(views, "audio")
        assert len(views) == 1
        np.testing.assert_allclose(views, (np.log(1e-6) + 4) / 4, rtol=1e-6)

    def test_loudness_does_not_matter(self) -> None:
        (made,) = made_windows("audio", 1)
        quieter = window("audio", (made.data / 4).astype(np.int16), 48_000.0)
        difference = PREPROCESS["audio"](made) - PREPROCESS["audio"](quieter)
        assert np.abs(difference).mean() < 0.01

    def test_integers_and_floats_agree(self) -> None:
        (made,) = made_windows("audio", 1)
        floats = window("audio", (made.data / 32_768).astype(np.float32), 48_000.0)
        np.testing.assert_allclose(mono(made), mono(floats), atol=1e-6)

    @pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
    def test_a_tone_is_in_its_band_at_any_rate(self, rate_hz: int) -> None:
        t_s = np.arange(2 * rate_hz) / rate_hz
        tone = (0.3 * np.sin(2 * np.pi * 1000 * t_s)).astype(np.float32)[:, None]
        views = PREPROCESS["audio"](window("audio", tone, float(rate_hz)))
        filters = mel_filters(16_000, 64, 50, 7800)
        assert (
            views.mean(axis=(0, 1, 3)).argmax() == filters[:, round(1000 * 512 / 16_000)].argmax()
        )

    def test_nothing_over_half_the_rate_folds_back(self) -> None:
        t_s = np.arange(96_000) / 48_000
        rng = np.random.default_rng(0)
        base = rng.normal(0, 0.05, 96_000)
        with_whistle = base + 0.01 * np.sin(2 * np.pi * 15_000 * t_s)
        plain, whistled = (
            PREPROCESS["audio"](window("audio", x.astype(np.float32)[:, None], 48_000.0))
            for x in (base, with_whistle)
        )
        assert np.abs(plain - whistled).max() < 0.2

    def test_lost_sound_is_silence_of_the_same_length(self) -> None:
        rate_hz = 1000.0
        t_ns = np.arange(100, dtype=np.int64) * 1_000_000
        t_ns[40:] += 50_000_000
        filled = fill_gaps(np.ones(100, np.float32), t_ns, rate_hz)
        assert len(filled) == 150
        np.testing.assert_array_equal(np.flatnonzero(filled == 0), np.arange(40, 90))

    def test_jitter_of_stamps_is_no_gap(self) -> None:
        t_ns = np.arange(100, dtype=np.int64) * 1_000_000
        t_ns[40:] += 19_000_000
        assert len(fill_gaps(np.ones(100, np.float32), t_ns, 1000.0)) == 100

    def test_filters_that_would_be_empty_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="bands: 256 between"):
            mel_filters(16_000, 256, 50, 7800)

    def test_more_frames_than_a_window_has_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"frames 201 of a window, expected 1\.\.200"):
            AudioPreprocess(
                rate_hz=16_000, length_s=2, hop_s=1, bands=64, low_hz=50, high_hz=7800, frames=201
            )


def test_bunched_stamps_of_sound_are_refused() -> None:
    t_ns = np.r_[np.arange(300), 60 * NS_PER_S]
    made = window("audio", np.zeros((301, 1), np.float32), None, t_ns)
    with pytest.raises(EncodeFailed, match="rate_hz"):
        PREPROCESS["audio"](made)


class TestImu:
    @pytest.mark.parametrize(
        ("seconds", "views"), [(0.01, 1), (4.0, 1), (5.0, 1), (7.4, 1), (7.5, 2), (10.0, 3)]
    )
    @pytest.mark.parametrize("rate_hz", [20.0, 50.0, 100.0, 1000.0])
    def test_windows_of_a_recording(self, seconds: float, views: int, rate_hz: float) -> None:
        data = np.zeros((max(1, round(seconds * rate_hz)), 6), np.float32)
        made = PREPROCESS["imu"](window("imu", data, rate_hz))
        check(made, "imu")
        assert len(made) == views

    @given(
        st.lists(st.integers(0, 200_000_000), min_size=1, max_size=300),
        st.sampled_from([None, 10.0, 100.0]),
        st.floats(-50, 50, width=32),
    )
    @settings(max_examples=100, deadline=None)
    def test_a_constant_stays_so_whatever_the_stamps(
        self, steps_ns: list[int], rate_hz: float | None, value: float
    ) -> None:
        t_ns = np.cumsum(np.array(steps_ns, np.int64))
        made = window("imu", np.full((len(t_ns), 6), value, np.float32), rate_hz, t_ns)
        if rate_hz is None and (len(t_ns) > 1 and np.median(np.diff(t_ns)) == 0):
            with pytest.raises(EncodeFailed, match="no rate_hz"):
                PREPROCESS["imu"](made)
            return
        views = PREPROCESS["imu"](made)
        check(views, "imu")
        expected = np.repeat([value / 10, value / 3], 3)[None, :, None]
        np.testing.assert_allclose(views, np.broadcast_to(expected, views.shape), atol=1e-5)

    def test_bunched_stamps_do_not_ask_for_an_endless_grid(self) -> None:
        """Without a rate_hz a step of 1 ns tells 1 GHz, of which a minute is 3 TB."""
        t_ns = np.r_[np.arange(300), 60 * NS_PER_S]
        made = window("imu", np.ones((301, 6), np.float32), None, t_ns)
        views = PREPROCESS["imu"](made)
        assert len(views) == 23
        np.testing.assert_allclose(views[:, 0], 0.1, rtol=1e-6)

    def test_lost_ticks_do_not_shift_time(self) -> None:
        t_s = np.arange(1000) / 100
        ramp = np.tile(t_s[:, None], 6).astype(np.float32)
        t_ns = np.rint(t_s * NS_PER_S).astype(np.int64)
        kept = np.r_[0:300, 500:1000]
        whole = PREPROCESS["imu"](window("imu", ramp, 100.0, t_ns))
        holed = PREPROCESS["imu"](window("imu", ramp[kept], 100.0, t_ns[kept]))
        assert whole.shape == holed.shape
        np.testing.assert_allclose(holed, whole, atol=0.05)

    def test_fast_vibration_is_smoothed_away(self) -> None:
        t_s = np.arange(5000) / 1000
        shaking = np.tile(np.sin(2 * np.pi * 100 * t_s)[:, None], 6).astype(np.float32)
        (view,) = PREPROCESS["imu"](window("imu", shaking, 1000.0))
        assert np.abs(view[:, 1:-1]).max() < 1e-3

    def test_short_recording_holds_its_last_value(self) -> None:
        data = np.tile(np.arange(20, dtype=np.float32)[:, None], 6)
        (view,) = PREPROCESS["imu"](window("imu", data, 20.0))
        np.testing.assert_allclose(view[0, :20], np.arange(20) / 10)
        np.testing.assert_allclose(view[0, 20:], 1.9, rtol=1e-6)
