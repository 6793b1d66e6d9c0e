"""Has anything changed? A window like the last encoded one need not be encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent.clock import from_s
from agent.types import Array, Embedding, Window

__all__ = ["Change", "Fingerprint", "fingerprint"]

Float32Array = NDArray[np.float32]

GRID = (36, 64)  # blocks of a picture: so many rows, and up to twice so many columns
ROWS = 2  # rows of pixels that are looked at in each block
LEAST_CONTRAST = 0.02  # of the brightest an 8-bit picture can be, or of the mean of any other

SLICES = 8  # of a sequence
FRAMES = 2  # spectra in a slice, at least
# Mean square in a band below which two sounds are the same silence, 70 dB below full scale, and
# two motions the same rest, 0.03 m/s^2 or rad/s.
SILENCE = 1e-7
REST = 1e-3


@dataclass(frozen=True)
class Fingerprint:
    """values: float32, (rows, columns) of a picture or (slices, bands) of a sequence. contrast: of
    a picture, in the unit of its values; None of a sequence.
    """

    values: Float32Array
    contrast: float | None

    def difference(self, other: Fingerprint) -> float:
        """How far `other` is from this one: 0 the same, infinite for another shape.

        Of a picture: in the block where it is greatest, as a share of this one's contrast. Of a
        sequence: the mean over its slices in the band where that is greatest, in bels: 0.3 is
        twice the energy.
        """
        if self.values.shape != other.values.shape:
            return float("inf")
        apart = np.abs(self.values - other.values)
        if self.contrast is None:
            return float(apart.mean(axis=0).max())
        return float(apart.max()) / self.contrast


def fingerprint(window: Window) -> Fingerprint:
    """Of the newest tick where a tick is a picture (two axes or more), else of all ticks.

    Pictures: mean grey of some 36 x 64 blocks, and twice their standard deviation as the contrast,
    so that a threshold means the same in a dark room as in the sun, and in counts, Celsius or mm.
    Sequences: log10 of the energy in octaves, in 8 slices that are put in order of energy, so
    that when a sound comes within the window does not matter.
    """
    if window.data.ndim >= 3:
        return _picture(window.data[-1])
    return _sequence(window.data, window.stream.modality == "audio")


class Change:
    """The change gate of one stream.

    A window is compared with the last one that was encoded, not with the one before it, so that
    what drifts slowly does not stay unseen.
    """

    def __init__(self, threshold: float, max_reuse_s: float) -> None:
        self._threshold, self._max_reuse_ns = threshold, from_s(max_reuse_s)
        self._seen: Fingerprint | None = None
        self._end_ns = 0
        self._embedding: Embedding | None = None

    def is_new(self, window: Window) -> bool:
        """Whether `window` is to be encoded; it is then what later ones are compared with."""
        now = fingerprint(window)
        new = (
            self._seen is None
            or window.end_ns - self._end_ns >= self._max_reuse_ns
            or self._seen.difference(now) > self._threshold
        )
        if new:
            self._seen, self._end_ns = now, window.end_ns
        return new

    def keep(self, embedding: Embedding | None) -> None:
        """The embedding of the newest window that was new; None where it could not be encoded."""
        self._embedding = embedding
        if embedding is None:
            self._seen = None

    def again(self, window: Window) -> Embedding | None:
        """The kept embedding, as that of `window`, which was not new."""
        if self._embedding is None:
            return None
        return replace(
            self._embedding,
            start_ns=window.start_ns,
            end_ns=window.end_ns,
            arrival_ns=window.arrival_ns,
            reused=True,
        )


def _picture(frame: Array) -> Fingerprint:
    height, width = frame.shape[:2]
    rows, block = min(GRID[0], height), max(1, width // GRID[1])
    columns = width // block
    # A few whole rows of each block: rows are in one piece in memory, and with all the pixels of
    # these few the noise of a sensor is averaged as well as need be. What columns are left over,
    # fewer than a block has, are left out on both sides alike.
    looked_at = (np.arange(rows * ROWS) * 2 + 1) * height // (rows * ROWS * 2)
    left = (width - columns * block) // 2
    pixels = frame[looked_at, left : left + columns * block].astype(np.float32)
    blocks = pixels.reshape(rows, ROWS, columns, -1)
    means: Float32Array = (blocks @ np.ones(blocks.shape[-1], np.float32)).sum(axis=1)
    means /= ROWS * blocks.shape[-1]
    mean = float(means.mean())
    around = (means - np.float32(mean)).ravel()
    top = 255.0 if frame.dtype == np.uint8 else float(np.abs(means).mean())
    contrast = 2 * math.sqrt(float(around @ around) / around.size) + LEAST_CONTRAST * top
    return Fingerprint(means, max(contrast, 1e-6))


def _sequence(ticks: Array, sound: bool) -> Fingerprint:
    count, channels = len(ticks), int(np.prod(ticks.shape[1:]))
    length = 1 << max(0, (count // (SLICES * FRAMES)).bit_length() - 1)
    frames = count // length
    values = ticks[count - frames * length :].astype(np.float32).reshape(frames, length, channels)
    if ticks.dtype.kind in "iu":
        values /= np.float32(np.iinfo(ticks.dtype).max)
    # Hann's window, or what is loud in one band would hide what is quiet in the next; its scale
    # makes the energies of all bins add up to the mean square.
    taper = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    taper /= np.sqrt((taper**2).sum() * length)
    spectra = np.fft.rfft(values * taper.astype(np.float32)[:, np.newaxis], axis=1)
    energy = spectra.real**2 + spectra.imag**2
    energy[:, 1:] *= 2
    bands = np.add.reduceat(energy, _octaves(length, sound), axis=1).reshape(frames, -1)
    starts = np.arange(min(SLICES, frames)) * frames // min(SLICES, frames)
    sizes = np.diff(starts, append=frames)[:, np.newaxis]
    means = np.add.reduceat(bands, starts, axis=0) / sizes
    floor = SILENCE if sound else REST
    return Fingerprint(np.sort(np.log10(means + floor), axis=0).astype(np.float32), None)


def _octaves(length: int, sound: bool) -> list[int]:
    """First bins of the bands of a spectrum of `length` ticks.

    The mean is a band of its own, as it says how an accelerometer is held; a microphone's says
    nothing and is left out, and its lowest band is wide, as the few bins of a narrow one jump.
    """
    first, lowest = (1, 4) if sound else (0, 1)
    octaves = [lowest << n for n in range(length.bit_length()) if lowest << n < length // 2]
    return [min(first, length // 2), *octaves]
