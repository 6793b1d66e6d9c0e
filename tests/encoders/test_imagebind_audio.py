from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, EncodeFailed
from agent.types import StreamInfo, Window
from encoders.preprocess import imagebind_audio
from encoders.preprocess.base import MAX_STREAMS, PerStream
from encoders.preprocess.imagebind_audio import ImageBindAudio
from encoders.preprocess.kaldi_fbank import log_mel
from encoders.space import open_space
from tests.contracts.encoder_contract import vectors
from tests.encoders.made import window
from tests.encoders.made_space import write_space

PADDING = 4.268 / 9.138
AUDIO = ImageBindAudio()


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, tuple[NDArray, NDArray]]:
    """Sounds at 16 kHz and the views that the published recipe makes of them."""
    folder = shared_data / "imagebind_golden" / "preprocess"
    sounds = np.load(folder / "audio_waveforms_16k.npz")
    with sounds, np.load(folder / "audio_melspec.npz") as views:
        assert set(sounds.files) == set(views.files)
        return {name: (sounds[name], views[name]) for name in sounds.files}


def noise(ticks: int, seed: int = 0, scale: float = 0.1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, ticks).astype(np.float32)


def sound(signal: NDArray, rate_hz: float = 16_000.0) -> Window:
    return window("audio", signal[:, np.newaxis] if signal.ndim == 1 else signal, rate_hz)


def kaldi_frame(ticks: NDArray) -> NDArray:
    """ln(power) of one frame, in float64, a step at a time as Kaldi's documentation has them."""
    mel = 1127 * np.log(1 + np.arange(257) * 31.25 / 700)
    low, high = 1127 * np.log(1 + np.array([20, 8000]) / 700)
    step = (high - low) / 129
    frame = ticks.astype(np.float64) - ticks.astype(np.float64).mean()
    frame = np.array([frame[i] - 0.97 * frame[max(0, i - 1)] for i in range(400)])
    frame *= [0.5 - 0.5 * math.cos(2 * math.pi * i / 399) for i in range(400)]
    power = np.abs(np.fft.fft(frame, 512)[:257]) ** 2
    bands = []
    for band in range(128):
        centre = low + (band + 1) * step
        bands.append(power @ np.maximum(0, 1 - np.abs(mel - centre) / step))
    return np.log(np.maximum(bands, 2.0**-23))


def test_golden_views(golden: dict[str, tuple[NDArray, NDArray]]) -> None:
    for name, (signal, expected) in golden.items():
        views = AUDIO(sound(signal))
        assert views.shape == (1, *AUDIO.shape)
        np.testing.assert_allclose(views[0], expected, atol=2e-3, err_msg=name)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(1e-3, 1),
    offset=st.floats(-0.5, 0.5),
    ticks=st.integers(400, 1000),
)
def test_frames_are_kaldis(seed: int, scale: float, offset: float, ticks: int) -> None:
    signal = np.float32(offset) + noise(ticks, seed, scale)
    frames = log_mel(signal)
    assert frames.shape == ((ticks - 400) // 160 + 1, 128)
    expected = [kaldi_frame(signal[160 * i :][:400]) for i in range(len(frames))]
    np.testing.assert_allclose(frames, expected, atol=0.01)  # 0.001 of a view


def test_less_than_a_frame_has_none() -> None:
    assert log_mel(noise(399)).shape == (0, 128)
    np.testing.assert_allclose(AUDIO(sound(noise(10))), PADDING, atol=1e-6)


def test_a_frame_depends_on_its_own_ticks_only() -> None:
    signal, whole = noise(32_000), log_mel(noise(32_000))
    np.testing.assert_allclose(log_mel(signal[160 * 60 :]), whole[60:], atol=1e-5)


def test_a_clips_mean_is_taken_off_by_its_frames() -> None:
    signal = noise(32_000, scale=0.01)
    with_mean = log_mel(signal + np.float32(0.2))
    np.testing.assert_allclose(with_mean / 9.138, log_mel(signal) / 9.138, atol=1e-3)


def test_the_end_is_padded_before_mean_and_std() -> None:
    whole, half = AUDIO(sound(noise(32_000)))[0, 0], AUDIO(sound(noise(16_000)))[0, 0]
    np.testing.assert_allclose(whole[:, 198:], PADDING, atol=1e-6)
    np.testing.assert_allclose(half[:, 98:], PADDING, atol=1e-6)
    np.testing.assert_array_equal(half[:, :98], whole[:, :98])


@pytest.mark.parametrize(
    ("ticks", "starts"), [(41_764, (0, 4882, 9764)), (80_000, (0, 24_000, 48_000))]
)
def test_a_file_is_cut_as_published(ticks: int, starts: tuple[int, ...]) -> None:
    """The demo's dog and car: 2.61025 s and 5 s; starts in s times 16,000, the fraction left."""
    signal = noise(ticks)
    views = AUDIO(sound(signal))
    assert len(views) == 3
    for view, start in zip(views, starts, strict=True):
        np.testing.assert_array_equal(view, AUDIO(sound(signal[start : start + 32_000]))[0])


def test_clips_may_be_more_or_one() -> None:
    signal = noise(80_000)
    assert len(ImageBindAudio(clips=5)(sound(signal))) == 5
    np.testing.assert_array_equal(
        ImageBindAudio(clips=1)(sound(signal)), AUDIO(sound(signal[:32_000]))
    )


def test_a_live_window_is_one_view_whatever_its_ticks() -> None:
    for ticks in (31_990, 32_000, 32_003):
        t_ns = np.linspace(0, 2 * NS_PER_S - 1, ticks).astype(np.int64)
        info = StreamInfo("mic", "audio", "float32", (1,), 16_000.0, "full_scale")
        live = Window(info, 0, 2 * NS_PER_S, noise(ticks)[:, np.newaxis], t_ns, arrival_ns=1)
        assert AUDIO(live).shape == (1, *AUDIO.shape)


def test_channels() -> None:
    left, right = noise(32_000, 1), noise(32_000, 2)
    both = np.stack([left, right], axis=1)
    np.testing.assert_array_equal(AUDIO(sound(both)), AUDIO(sound(left)))
    np.testing.assert_array_equal(ImageBindAudio(channel=1)(sound(both)), AUDIO(sound(right)))
    mixed = ImageBindAudio(channel="mean")(sound(both))
    np.testing.assert_allclose(mixed, AUDIO(sound((left + right) / 2)), atol=1e-4)
    with pytest.raises(EncodeFailed, match=r"stream made_audio: .*expected at least 3 channels"):
        ImageBindAudio(channel=2)(sound(both))


def test_integers_are_as_floats() -> None:
    pcm = np.rint(noise(32_000) * 3e4).astype(np.int16)
    np.testing.assert_array_equal(
        AUDIO(sound(pcm)), AUDIO(sound(pcm.astype(np.float32) / np.float32(32_768)))
    )


def test_lost_ticks_are_silence() -> None:
    signal = noise(32_000)
    kept = np.r_[0:8000, 16_000:32_000]
    t_ns = kept * (NS_PER_S // 16_000)
    heard = window("audio", signal[kept, np.newaxis], 16_000.0, t_ns=t_ns)
    signal[8000:16_000] = 0
    np.testing.assert_array_equal(AUDIO(heard), AUDIO(sound(signal)))


@pytest.mark.parametrize(
    "parameters", [{"channel": -1}, {"channel": "left"}, {"clips": 0}, {"clip_s": 2.1}, {"std": 0}]
)
def test_wrong_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(parameters, ImageBindAudio)


def test_a_missing_extra_is_said_when_the_tower_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = open_space(str(write_space(tmp_path)), RuntimeOptions()).encoder("audio")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"'cv2' is not installed.*sensebind\[imagebind\]"):
        encoder.load()


def published_resampler(signal: NDArray, rate_hz: int) -> NDArray[np.float32]:
    """As torchaudio documents it: sinc at 0.99 of the lower Nyquist, Hann over 6 zero crossings."""
    common = math.gcd(rate_hz, 16_000)
    old, new = rate_hz // common, 16_000 // common
    cut_off = min(old, new) * 0.99
    reach = math.ceil(6 * old / cut_off)
    lag = np.arange(-reach, reach + old) / old - (np.arange(new) / new)[:, np.newaxis]
    lag = np.clip(lag * cut_off, -6, 6)
    kernel = np.sinc(lag) * np.cos(lag * np.pi / 12) ** 2 * cut_off / old
    padded = np.pad(signal, (reach, reach + old))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[1])[::old]
    return (blocks @ kernel.T).reshape(-1)[: math.ceil(len(signal) * new / old)].astype(np.float32)


def test_resampling_is_near_the_published_one(shared_data: Path) -> None:
    path = shared_data / "recordings" / "vrs" / "audio_int16_48k.wav"
    recorded, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    views = AUDIO(sound(recorded, rate_hz))
    published = AUDIO(sound(published_resampler(recorded[:, 0], rate_hz)))
    apart = np.abs(views - published)[0, 0]
    assert apart[:112].mean() < 1e-3
    # Near 8 kHz the two filters are not the same; this says how far apart they are.
    assert 0.01 < apart[112:].mean() < 0.1


class TestStream:
    """Live windows of one stream: what is kept from one to the next changes nothing."""

    @staticmethod
    def live(
        ticks: NDArray, t_ns: NDArray, end_ns: int, rate_hz: float, name: str = "mic"
    ) -> Window:
        """The window of 2 s before `end_ns`, its own copy, as a ring gives it."""
        info = StreamInfo(name, "audio", str(ticks.dtype), ticks.shape[1:], rate_hz, "full_scale")
        first, last = np.searchsorted(t_ns, [end_ns - 2 * NS_PER_S, end_ns])
        return Window(
            info,
            end_ns - 2 * NS_PER_S,
            end_ns,
            ticks[first:last].copy(),
            t_ns[first:last].copy(),
            arrival_ns=end_ns + 1,
        )

    @staticmethod
    def recording(rate_hz: int, seconds: float, seed: int = 0) -> tuple[NDArray, NDArray]:
        """Noise that swells and falls silent, over a hum; int16 (n, 2) and its stamps."""
        count = round(seconds * rate_hz)
        t_s = np.arange(count) / rate_hz
        swell = np.clip(np.sin(2 * np.pi * 0.7 * t_s), 0, None) * 0.2
        hum = 0.05 * np.sin(2 * np.pi * 180 * t_s)
        signal = noise(count, seed, 1.0) * swell + hum
        pcm = np.rint(np.stack([signal, -signal], axis=1) * 32_000).clip(-32_768, 32_767)
        return pcm.astype(np.int16), (np.arange(count) * NS_PER_S) // rate_hz

    @pytest.mark.parametrize("rate_hz", [16_000, 48_000, 44_100, 8_000])
    def test_hops_compute_only_what_is_new(
        self, rate_hz: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        computed: list[int] = []

        def counted(signal: NDArray) -> NDArray:
            frames = log_mel(signal)
            computed.append(len(frames))
            return frames

        ticks, t_ns = self.recording(rate_hz, 6)
        stream = AUDIO.stream()
        skipped = 0 if rate_hz == 16_000 else 2
        for hop in range(9):
            live = self.live(ticks, t_ns, (2 * NS_PER_S) + hop * NS_PER_S // 2, rate_hz)
            expected = AUDIO(live)
            with monkeypatch.context() as patched:
                patched.setattr(imagebind_audio, "log_mel", counted)
                views = stream(live)
            atol = 1e-5 if rate_hz == 16_000 else 2e-3
            np.testing.assert_allclose(views[..., skipped:], expected[..., skipped:], atol=atol)
        assert computed[0] == 198
        assert set(computed[1:]) == {50 + skipped}

    @settings(max_examples=40)
    @given(data=st.data(), rate_hz=st.sampled_from([16_000, 48_000, 44_100, 22_050]))
    def test_any_sequence_is_as_from_scratch(self, data: st.DataObject, rate_hz: int) -> None:
        """Hops of any length, windows seen twice, ticks that are lost, and stamps that jump."""
        ticks, t_ns = self.recording(rate_hz, 8, seed=data.draw(st.integers(0, 3)))
        step_s = st.sampled_from([0.01, 0.02, 0.25, 0.5, 0.5, 0.5, 1.0, 3.0, 0.0, 0.0037, -0.5])
        changes = data.draw(st.sampled_from(["none", "gap", "jump", "other"]))
        at = data.draw(st.integers(rate_hz, len(ticks) - rate_hz))
        if changes == "gap":
            lost = data.draw(st.integers(1, rate_hz))
            ticks, t_ns = (
                np.delete(ticks, np.s_[at : at + lost], 0),
                np.delete(t_ns, np.s_[at : at + lost]),
            )
        elif changes == "jump":
            t_ns = t_ns + np.where(np.arange(len(t_ns)) < at, 0, NS_PER_S // 3)
        stream = AUDIO.stream()
        end_ns = 2 * NS_PER_S
        for number in range(8):
            live = self.live(ticks, t_ns, end_ns, rate_hz)
            if not len(live.data):
                break
            if changes == "other" and number == 4:  # the same stamps, other sound
                ticks = ticks[::-1].copy()
                live = self.live(ticks, t_ns, end_ns, rate_hz)
            skipped, atol = (0, 1e-5) if rate_hz == 16_000 else (2, 2e-3)
            views, expected = stream(live), AUDIO(live)
            np.testing.assert_allclose(views[..., skipped:], expected[..., skipped:], atol=atol)
            end_ns += round(data.draw(step_s) * NS_PER_S)

    def test_the_first_frames_have_the_sound_before_them(self) -> None:
        """What from-scratch cannot have: compared with one resampling of all there is."""
        ticks, t_ns = self.recording(48_000, 4)
        stream = AUDIO.stream()
        stream(self.live(ticks, t_ns, 2 * NS_PER_S, 48_000))
        views = stream(self.live(ticks, t_ns, 5 * NS_PER_S // 2, 48_000))
        whole = soxr.resample(ticks[:, 0] / np.float32(32_768), 48_000, 16_000)
        frames = log_mel(whole)[50:248]
        np.testing.assert_allclose(views[0, 0, :, :196], AUDIO.view(frames)[0, :, :196], atol=2e-3)

    def test_same_windows_same_bytes(self) -> None:
        ticks, t_ns = self.recording(48_000, 5)
        ends = [2 * NS_PER_S + hop * NS_PER_S // 2 for hop in range(6)]
        windows = [self.live(ticks, t_ns, end_ns, 48_000) for end_ns in ends]
        first, second = AUDIO.stream(), AUDIO.stream()
        for live in windows:
            np.testing.assert_array_equal(first(live), second(live))

    def test_goes_on_after_a_window_it_cannot_use(self) -> None:
        ticks, t_ns = self.recording(16_000, 4)
        stream = AUDIO.stream()
        live = self.live(ticks, t_ns, 2 * NS_PER_S, 16_000)
        stream(live)
        bad = Window(live.stream, 0, 1, np.zeros((1, 1, 1), bool), np.zeros(1, np.int64))
        empty = Window(live.stream, 0, 1, live.data[:0], live.t_ns[:0])
        for unusable in (bad, empty):
            with pytest.raises(EncodeFailed, match="stream mic"):
                stream(unusable)
        later = self.live(ticks, t_ns, 3 * NS_PER_S, 16_000)
        np.testing.assert_array_equal(stream(later), AUDIO(later))

    def test_a_file_of_the_same_name_does_not_disturb_a_stream(self) -> None:
        ticks, t_ns = self.recording(48_000, 5)
        windows = [
            self.live(ticks, t_ns, 2 * NS_PER_S + hop * NS_PER_S // 2, 48_000) for hop in range(4)
        ]
        alone, disturbed = PerStream(AUDIO), PerStream(AUDIO)
        file = window("audio", windows[0].data[::-1], 48_000.0)
        for live in windows:
            disturbed(file)
            np.testing.assert_array_equal(alone(live), disturbed(live))

    def test_streams_are_kept_apart_and_forgotten(self) -> None:
        ticks, t_ns = self.recording(48_000, 3)
        early, late = 2 * NS_PER_S, 5 * NS_PER_S // 2
        views = PerStream(AUDIO)
        names = [f"mic_{number}" for number in range(MAX_STREAMS + 1)]
        for name in names:
            views(self.live(ticks, t_ns, early, 48_000, name))
        scratch = AUDIO(self.live(ticks, t_ns, late, 48_000))
        kept = views(self.live(ticks, t_ns, late, 48_000, names[-1]))
        assert (kept != scratch).any()
        np.testing.assert_array_equal(
            views(self.live(ticks, t_ns, late, 48_000, names[0])), scratch
        )
        views.clear()
        np.testing.assert_array_equal(
            views(self.live(ticks, t_ns, late, 48_000, names[-1])), scratch
        )

    def test_a_tower_keeps_its_streams_until_it_is_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks, t_ns = self.recording(16_000, 5)
        ends = [2 * NS_PER_S + hop * NS_PER_S // 2 for hop in range(5)]
        windows = [self.live(ticks, t_ns, end_ns, 16_000) for end_ns in ends]
        computed: list[int] = []

        def counted(signal: NDArray) -> NDArray:
            frames = log_mel(signal)
            computed.append(len(frames))
            return frames

        encoder = open_space(str(write_space(tmp_path)), RuntimeOptions()).encoder("audio")
        encoder.load()
        monkeypatch.setattr(imagebind_audio, "log_mel", counted)
        live = vectors([encoder.encode([one])[0] for one in windows])
        assert computed == [198, 50, 50, 50, 50]
        files = vectors([encoder.encode([replace(one, arrival_ns=0)])[0] for one in windows])
        assert computed[5:] == [198] * 5
        np.testing.assert_allclose(live, files, atol=1e-5)
        encoder.close()
        encoder.load()
        computed.clear()
        again = vectors(encoder.encode(windows))
        assert computed == [198, 50, 50, 50, 50]
        np.testing.assert_allclose(again, live, atol=1e-6)
