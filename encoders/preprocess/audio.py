"""Sound to log-mel spectrograms of loudness-normalised stretches."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import soxr
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.errors import ConfigError, EncodeFailed
from agent.types import Int64Array, Settings, Window, read_only
from encoders.preprocess.base import (
    Float32Array,
    bad_ticks,
    span_s,
    tick_rate_hz,
    window_starts,
)

__all__ = ["PLUGIN", "AudioPreprocess", "fill_gaps", "heard", "mel_filters", "mono"]

RMS = 0.1  # what a stretch is scaled to, of full scale
RMS_FLOOR = 1e-4  # added before dividing, so that silence stays silent
MAX_RATE_HZ = 1e6  # above any sound converter; bunched stamps without a rate_hz tell more
QUIET_RATIO = 0.15  # windows under this part of the loudest one's RMS say nothing
POWER_FLOOR = 1e-6
LOG_OFFSET, LOG_SCALE = 4.0, 4.0  # ln(power) of ordinary sound to about -1..2

FFT_POINTS = 512
FRAME_POINTS = 400  # 25 ms at 16 kHz
HOP_POINTS = 160  # 10 ms at 16 kHz
PAD_FRONT, PAD_BACK = 120, 232

# A step between two stamps longer than this beyond one tick is lost sound; shorter is jitter of
# the stamps, which drivers take once a block.
MAX_JITTER_NS = 20_000_000


class AudioPreprocess(Settings, frozen=True, kw_only=True):
    """int16 or float (n, channels) at any rate to float32 (k, 1, bands, frames).

    The channels' mean is brought to rate_hz; all of it is scaled to RMS 0.1; views are windows of
    length_s every hop_s (one zero-padded on both sides where it is shorter), without those far
    quieter than the loudest. bands: triangular mel filters between low_hz and high_hz; frames: of
    10 ms, the first ones of a window's 200.
    """

    rate_hz: int
    length_s: float
    hop_s: float
    bands: int
    low_hz: float
    high_hz: float
    frames: int

    def __post_init__(self) -> None:
        whole = (self._length + PAD_FRONT + PAD_BACK - FFT_POINTS) // HOP_POINTS + 1
        if not 0 < self.frames <= whole:
            raise ValueError(f"frames {self.frames} of a window, expected 1..{whole}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.bands, self.frames)

    @property
    def _length(self) -> int:
        return round(self.length_s * self.rate_hz)

    def __call__(self, window: Window) -> Float32Array:
        whole, rate_hz = heard(window)
        signal = soxr.resample(whole, rate_hz, self.rate_hz).astype(np.float64)
        if not len(signal):  # fewer ticks than one of rate_hz
            signal = np.zeros(1)
        signal *= RMS / (np.sqrt(np.mean(signal**2)) + RMS_FLOOR)
        missing = max(0, self._length - len(signal))
        signal = np.pad(signal, (missing // 2, missing - missing // 2))
        hop = round(self.hop_s * self.rate_hz)
        starts = window_starts(len(signal), self._length, hop)
        stretches = [signal[start : start + self._length] for start in starts]
        loudness = np.array([np.sqrt(np.mean(stretch**2)) for stretch in stretches])
        loud = np.flatnonzero(loudness >= QUIET_RATIO * loudness.max())
        return np.stack([self._log_mel(stretches[i]) for i in loud])

    def _log_mel(self, stretch: NDArray[np.float64]) -> Float32Array:
        padded = np.pad(stretch, (PAD_FRONT, PAD_BACK))
        frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_POINTS)[::HOP_POINTS]
        spectrum = np.fft.rfft(frames[: self.frames] * _hann())
        power = spectrum.real**2 + spectrum.imag**2
        bands = power @ mel_filters(self.rate_hz, self.bands, self.low_hz, self.high_hz).T
        log = (np.log(bands + POWER_FLOOR) + LOG_OFFSET) / LOG_SCALE
        view: Float32Array = log.T[np.newaxis].astype(np.float32)
        return view


def heard(window: Window, channel: int | None = None) -> tuple[Float32Array, float]:
    """As `mono`, with silence where ticks were lost, and its rate in Hz.

    Raises EncodeFailed for another kind of data, and for stamps that cannot be of sound.
    """
    rate_hz = tick_rate_hz(window)
    if rate_hz > MAX_RATE_HZ:
        raise EncodeFailed(
            f"stream {window.stream.name}: stamps tell {rate_hz:.3g} Hz, expected at most "
            f"{MAX_RATE_HZ:.3g}: give its rate_hz"
        )
    signal = mono(window, channel)
    span_s(window, rate_hz)
    return fill_gaps(signal, window.t_ns, rate_hz), rate_hz


def mono(window: Window, channel: int | None = None) -> Float32Array:
    """One channel, or where it is None the channels' mean, in -1..1, float32 (n,).

    Raises EncodeFailed for another kind of data, or where there is no such channel.
    """
    data = window.data
    if data.ndim != 2 or not data.size or data.dtype.kind not in "if":
        raise bad_ticks(window, "int16[n, channels] or float32[n, channels] in -1..1")
    if channel is not None and channel >= data.shape[1]:
        raise bad_ticks(window, f"at least {channel + 1} channels")
    full_scale = 1.0 if data.dtype.kind == "f" else -float(np.iinfo(data.dtype).min)
    one = data.mean(axis=1, dtype=np.float32) if channel is None else data[:, channel]
    signal: Float32Array = one.astype(np.float32) / np.float32(full_scale)
    return signal


def fill_gaps(signal: Float32Array, t_ns: Int64Array, rate_hz: float) -> Float32Array:
    """`signal` with silence where its stamps say that ticks were lost, so that time stays true."""
    steps_ns = np.diff(t_ns)
    gaps = np.flatnonzero(steps_ns > NS_PER_S / rate_hz + MAX_JITTER_NS)
    if not len(gaps):
        return signal
    missing = np.rint(steps_ns[gaps] * (rate_hz / NS_PER_S)).astype(np.int64) - 1
    return np.insert(signal, np.repeat(gaps + 1, missing), 0)


@lru_cache(maxsize=1)
def _hann() -> NDArray[np.float64]:
    """float64 (512,): a periodic Hann window of 400 points, centred."""
    phase = 2 * np.pi * np.arange(FRAME_POINTS) / FRAME_POINTS
    side = (FFT_POINTS - FRAME_POINTS) // 2
    hann: NDArray[np.float64] = read_only(np.pad(0.5 - 0.5 * np.cos(phase), side))
    return hann


@lru_cache(maxsize=4)
def mel_filters(rate_hz: int, bands: int, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """float64 (bands, 257): triangles between points evenly spaced on the HTK mel scale,
    mel = 2595 log10(1 + f / 700), each times 100 / (its upper edge minus its lower edge in Hz).

    Raises ConfigError where a band is too narrow to hold any of the FFT's frequencies.
    """
    low_mel, high_mel = 2595 * np.log10(1 + np.array([low_hz, high_hz]) / 700)
    edges_hz = 700 * (10 ** (np.linspace(low_mel, high_mel, bands + 2) / 2595) - 1)
    lower, centre, upper = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    bin_hz = np.arange(FFT_POINTS // 2 + 1) * rate_hz / FFT_POINTS
    rising, falling = (bin_hz - lower) / (centre - lower), (upper - bin_hz) / (upper - centre)
    filters = np.maximum(0, np.minimum(rising, falling)) * (100 / (upper - lower))
    if not filters.any(axis=1).all():
        raise ConfigError(
            f"bands: {bands} between {low_hz} and {high_hz} Hz, expected fewer: one is empty"
        )
    table: NDArray[np.float64] = read_only(filters)
    return table


PLUGIN = AudioPreprocess
