"""Test patterns of the synthetic driver: for each sense a quiet scene, and an event in it.

A pattern is a pure function of (seed, stream name, tick number), so that the same seed gives the
same bits however it is read. What is costly is made once, in the constructor.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.types import Array, Int64Array

__all__ = ["OTHER", "SENSES", "Bool", "Pattern", "Sense", "Spec"]

GRAVITY_M_S2 = 9.80665  # standard gravity, CGPM 1901

Bool = NDArray[np.bool_]


class Pattern(Protocol):
    """render: data of consecutive ticks, (n, *shape), freshly made.

    ticks: int64 (n,), tick numbers. t_s: float64 (n,), their times since connect. active: bool
    (n,), whether an event is on.
    """

    def render(self, ticks: Int64Array, t_s: Array, active: Bool) -> Array: ...


@dataclass(frozen=True)
class Spec:
    """What a pattern is made for; rng is seeded with the driver's seed and the stream's name."""

    rate_hz: float
    width: int
    height: int
    channels: int
    rng: np.random.Generator

    @classmethod
    def of(cls, name: str, seed: int, rate_hz: float, size: tuple[int, int], channels: int) -> Spec:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        return cls(rate_hz, *size, channels, rng)


def _sweep(tick: int, step: int, span: int) -> int:
    """A position that runs from 0 to span - 1 and back, `step` a tick."""
    period = 2 * (span - 1) or 1
    at = tick * step % period
    return min(at, period - at)


class _Image:
    """A colour gradient that drifts by 2 pixels a frame and a white square, red and twice as
    large during an event.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        x = np.arange(2 * spec.width) * (2 * math.pi / spec.width)
        y = np.linspace(0.0, 1.0, spec.height)[:, np.newaxis]
        phases = spec.rng.uniform(0, 2 * math.pi, spec.channels)
        planes = [96 + 48 * np.sin(x + phase) + 48 * y for phase in phases]
        # Two periods wide: a frame is a slice of it.
        self._wide = np.stack(planes, axis=-1).astype(np.uint8)
        self._event = np.array([255, 32, 32][: spec.channels], np.uint8)

    def render(self, ticks: Int64Array, t_s: Array, active: Bool) -> Array:
        spec, tick = self._spec, int(ticks[0])
        start = 2 * tick % spec.width
        frame: Array = self._wide[:, start : start + spec.width].copy()
        side = min(spec.width, spec.height) // (3 if active[0] else 6)
        left, top = _sweep(tick, 5, spec.width - side), _sweep(tick, 3, spec.height - side)
        frame[top : top + side, left : left + side] = self._event if active[0] else 255
        return frame[np.newaxis] if spec.channels > 1 else frame[np.newaxis, ..., 0]


class _Depth:
    """A wall 3 m away that leans back and a box before it at 1.2 m, at 0.5 m during an event.

    Two pixels in a hundred, and the strip that the box hides from one eye of a stereo camera,
    are 0: not measured.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        wall = np.linspace(3000, 3600, spec.height)[:, np.newaxis] + np.zeros(spec.width)
        wall[spec.rng.random(wall.shape) < 0.02] = 0
        self._wall = wall.astype(np.uint16)

    def render(self, ticks: Int64Array, t_s: Array, active: Bool) -> Array:
        spec, tick = self._spec, int(ticks[0])
        frame: Array = self._wall.copy()
        width, height = spec.width // 4, spec.height // 3
        left, top = _sweep(tick, 4, spec.width - width), spec.height // 3
        rows = slice(top, top + height)
        frame[rows, max(0, left - spec.width // 40) : left] = 0
        frame[rows, left : left + width] = 500 if active[0] else 1200
        return frame[np.newaxis]


class _Thermal:
    """A room at 22 C with 0.05 K of noise and a warm body, in centikelvin as FLIR's TLinear mode
    counts; the body is 8 K warmer than the room and 60 K during an event.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        rows = 2 * spec.height
        self._room = (29515 + spec.rng.normal(0, 5, (rows, spec.width))).astype(np.uint16)
        side = max(2, min(spec.width, spec.height) // 3)
        near = np.linspace(-2, 2, side)
        self._blob = np.exp(-(near[:, np.newaxis] ** 2 + near**2))

    def render(self, ticks: Int64Array, t_s: Array, active: Bool) -> Array:
        spec, tick = self._spec, int(ticks[0])
        first = 7 * tick % spec.height
        frame: Array = self._room[first : first + spec.height].copy()
        side = len(self._blob)
        left, top = _sweep(tick, 2, spec.width - side), (spec.height - side) // 2
        warmth = (6000 if active[0] else 800) * self._blob
        frame[top : top + side, left : left + side] += warmth.astype(np.uint16)
        return frame[np.newaxis]


class _Audio:
    """A noise floor at -61 dB of full scale; during an event a 1 kHz tone at -12 dB."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        length = max(1, round(spec.rate_hz))
        self._noise = spec.rng.normal(0, 30, (length, spec.channels)).astype(np.int16)

    def render(self, ticks: Int64Array, t_s: Array, active: Bool) -> Array:
        data: Array = self._noise[ticks % len(self._noise)]
        if active.any():
            tone = np.sin(2 * math.pi * 1000 * t_s) * np.where(active, 8192, 0)
            data += tone.astype(np.int16)[:, np.newaxis]
        return data


class _Imu:
    """At rest, nodding by 0.1 rad at 0.2 Hz about y; during an event shaken at 4 Hz.

    ax ay az in m/s^2 with gravity, gx gy gz in rad/s, with white noise.
    """

    def __init__(self, spec: Spec) -> None:
        deviation = [0.02, 0.02, 0.02, 0.002, 0.002, 0.002]
        self._noise = spec.rng.normal(0, deviation, (997, 6)).astype(np.float32)

    def render(self, ticks: Int64Array, t_s: Array, active: Bool) -> Array:
        data: Array = self._noise[ticks % len(self._noise)]
        omega = 2 * math.pi * 0.2
        angle = 0.1 * np.sin(omega * t_s)
        data[:, 0] -= GRAVITY_M_S2 * np.sin(angle)
        data[:, 2] += GRAVITY_M_S2 * np.cos(angle)
        data[:, 4] += 0.1 * omega * np.cos(omega * t_s)
        shake = np.sin(2 * math.pi * 4 * t_s) * active
        data[:, :3] += shake[:, np.newaxis] * (4.0, 6.0, 3.0)
        data[:, 3:] += shake[:, np.newaxis] * (1.0, 2.0, 1.5)
        return data


class _Waves:
    """A sine in each channel, of 0.5, 1, 1.5 ... Hz and amplitude 1, 3 during an event."""

    def __init__(self, spec: Spec) -> None:
        self._omega = math.pi * np.arange(1, spec.channels + 1)
        self._phase = spec.rng.uniform(0, 2 * math.pi, spec.channels)

    def render(self, ticks: Int64Array, t_s: Array, active: Bool) -> Array:
        waves = np.sin(t_s[:, np.newaxis] * self._omega + self._phase)
        data: Array = (waves * np.where(active, 3, 1)[:, np.newaxis]).astype(np.float32)
        return data


@dataclass(frozen=True)
class Sense:
    """Defaults of a modality. channels: allowed numbers, the first is the default; empty for any.

    block_s: span of a block; 0 for one tick at a time. size: None where ticks are no pictures.
    """

    make: Callable[[Spec], Pattern]
    dtype: str
    unit: str
    rate_hz: float
    channels: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    block_s: float = 0.0
    names: tuple[str, ...] = ()


SENSES = {
    "image": Sense(_Image, "uint8", "rgb8", 30, (3, 1), (640, 480)),
    "depth": Sense(_Depth, "uint16", "mm", 30, (1,), (640, 480)),
    "thermal": Sense(_Thermal, "uint16", "counts", 9, (1,), (160, 120)),
    "audio": Sense(_Audio, "int16", "full_scale", 16000, block_s=0.02),
    "imu": Sense(
        _Imu,
        "float32",
        "m/s^2,rad/s",
        100,
        (6,),
        block_s=0.01,
        names=("ax", "ay", "az", "gx", "gy", "gz"),
    ),
}
OTHER = Sense(_Waves, "float32", "", 10, block_s=0.01)
