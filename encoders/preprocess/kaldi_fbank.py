"""Kaldi's log-mel filter bank, as ImageBind was trained on it.

The recipe is that of Kaldi's documentation ("Feature extraction", compute-fbank-feats) with the
settings of ImageBind: frames of 25 ms every 10 ms without padding (snip edges), the mean of each
frame taken out, pre-emphasis 0.97, a Hann window (symmetric, Kaldi's "hanning"), a 512-point power
spectrum, 128 triangles between 20 Hz and 8 kHz, natural logarithm. No dither.

The package kaldi-native-fbank cannot stand in: it refuses 128 bands at 16 kHz because the lowest
ones lie between two frequencies of the FFT; the published model was trained with them empty.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from agent.extras import needs_extra
from agent.types import read_only
from encoders.preprocess.base import Float32Array

__all__ = ["BANDS", "FRAME_TICKS", "HOP_TICKS", "RATE_HZ", "log_mel"]

RATE_HZ = 16_000
FRAME_TICKS = 400  # 25 ms
HOP_TICKS = 160  # 10 ms
FFT_TICKS = 512
BANDS = 128
LOW_HZ, HIGH_HZ = 20.0, RATE_HZ / 2
PRE_EMPHASIS = np.float32(0.97)
FLOOR = np.finfo(np.float32).eps  # 2^-23, of a band's power

# Bands that are multiplied at once. A band holds at most a dozen frequencies, so small products
# do a tenth of the work of one with all 255; and OpenBLAS starts no threads for them, which
# would wait for a busy core longer than the product takes.
GROUP = 16


def log_mel(signal: Float32Array) -> Float32Array:
    """float32 (n,) at 16 kHz in -1..1 to float32 (frames, 128), newly made: ln(power), at least
    ln(2^-23) = -15.94. frames = (n - 400) // 160 + 1, none for n < 400.

    A frame depends on its own 400 ticks only, and a constant added to them changes nothing but
    rounding. Raises ConfigError where the extra `imagebind` is not installed.
    """
    if len(signal) < FRAME_TICKS:
        return np.zeros((0, BANDS), np.float32)
    with needs_extra("imagebind"):
        import cv2  # its FFT of short rows takes a third of the time of numpy's
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME_TICKS)[::HOP_TICKS]
    count, between = len(frames), FFT_TICKS // 2 - 1
    # All of the work in one block: several of them would be given back to the system after each
    # call, and taking their pages anew took as long as the rest (glibc's trim threshold).
    block = np.empty(count * FFT_TICKS + max(count * between, len(signal)), np.float32)
    padded = block[: count * FFT_TICKS].reshape(count, FFT_TICKS)
    rest = block[count * FFT_TICKS :]
    # Less the mean and pre-emphasised, (x - m) - 0.97 (x' - m), with the products taken once for
    # all frames. A frame's first tick has none before it, and meets the window's zero.
    emphasised = np.multiply(signal[:-1], -PRE_EMPHASIS, out=rest[: len(signal) - 1])
    emphasised += signal[1:]
    steps = np.lib.stride_tricks.sliding_window_view(emphasised, FRAME_TICKS - 1)[::HOP_TICKS]
    own = padded[:, :FRAME_TICKS]
    own[:, 0] = 0
    means = (1 - PRE_EMPHASIS) * frames.mean(axis=1, keepdims=True)
    np.subtract(steps, means, out=own[:, 1:])
    own *= _hann()
    padded[:, FRAME_TICKS:] = 0
    # OpenCV packs a row's spectrum as re(0), re(1), im(1), ..., re(256). The mel weights of the
    # first and the last, 0 Hz and 8 kHz, are zero.
    cv2.dft(padded, dst=padded, flags=cv2.DFT_ROWS)
    squares = np.square(padded, out=padded)
    power = rest[: count * between].reshape(count, between)
    np.add(squares[:, 1:-1:2], squares[:, 2:-1:2], out=power)
    bands = np.empty((len(power), BANDS), np.float32)
    for group, bins, weights in _mel_groups():
        bands[:, group] = power[:, bins] @ weights
    logarithm: Float32Array = np.log(np.maximum(bands, FLOOR, out=bands), out=bands)
    return logarithm


@lru_cache(maxsize=1)
def _hann() -> Float32Array:
    """float32 (400,), first and last 0."""
    phase = 2 * np.pi * np.arange(FRAME_TICKS) / (FRAME_TICKS - 1)
    window: Float32Array = read_only((0.5 - 0.5 * np.cos(phase)).astype(np.float32))
    return window


def _mel(frequency_hz: Any) -> Any:
    """Kaldi's mel scale, 1127 ln(1 + f / 700)."""
    return 1127 * np.log(1 + frequency_hz / 700)


@lru_cache(maxsize=1)
def _mel_groups() -> list[tuple[slice, slice, Float32Array]]:
    """Which bands, which of the frequencies 1..255 of the FFT, and float32 (frequencies, bands).

    A triangle's sides are straight on the mel scale and not, as elsewhere, in Hz.
    """
    edges = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), BANDS + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    bins = _mel(np.arange(1, FFT_TICKS // 2) * RATE_HZ / FFT_TICKS)[:, np.newaxis]
    sides = np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre))
    weights = np.maximum(0, sides).astype(np.float32)
    groups = []
    for first in range(0, BANDS, GROUP):
        own = weights[:, first : first + GROUP]
        (used,) = np.nonzero(own.any(axis=1))
        held = slice(int(used[0]), int(used[-1]) + 1)
        groups.append((slice(first, first + GROUP), held, np.ascontiguousarray(own[held])))
    return groups
