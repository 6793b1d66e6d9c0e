"""Counts of a thermal camera to Celsius.

Planck's law in FLIR's form, with the constants that the camera itself stores: the radiance of a
black body at T kelvin is R / (exp(B / T) - F), and the counts are offset + gain * radiance. What
reaches the camera is the object's own radiance times its emissivity, what it reflects, and what
the air adds: Minkina and Dudzik, "Infrared Thermography: Errors and Uncertainties" (Wiley 2009),
section 2; the same equations, with the transmission of the air, are in the AcquisitionIR example
of Teledyne FLIR's Spinnaker SDK. The five constants of the air are FLIR's defaults, which its
cameras write into their pictures too (ExifTool, tags FLIR: AtmosphericTransAlpha1 and on).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from msgspec import Meta

from agent.types import Array, Settings

__all__ = ["ZERO_C_K", "Linear", "Planck", "Scene", "ToCelsius"]

ZERO_C_K = 273.15
ALPHA = (0.006569, 0.01262)
BETA = (-0.002276, -0.00667)
X = 1.9
MAX_K = 10_000.0

ToCelsius = Callable[[Array], Array]
"""uint16 counts of any shape to float32 Celsius, all finite."""

Celsius = Annotated[float, Meta(gt=-ZERO_C_K, lt=5000)]


class Scene(Settings, frozen=True, kw_only=True):
    """What lies between an object and the camera.

    emissivity: 0..1 of the surfaces looked at (skin and most paints 0.95 to 0.98, bare metal far
    less). reflected_c: what they mirror, most often the room. air_c, humidity (0..1), distance_m:
    the air in between; 0 m leaves it out.
    """

    emissivity: Annotated[float, Meta(gt=0, le=1)] = 0.95
    reflected_c: Celsius = 20.0
    air_c: Celsius = 20.0
    humidity: Annotated[float, Meta(ge=0, le=1)] = 0.5
    distance_m: Annotated[float, Meta(ge=0, le=10_000)] = 1.0

    def transmission(self) -> float:
        """Share of the radiance, 0..1, that the air lets through."""
        water = self.humidity * math.exp(
            1.5587 + 0.06939 * self.air_c - 2.7816e-4 * self.air_c**2 + 6.8455e-7 * self.air_c**3
        )
        near, far = (
            math.exp(-math.sqrt(self.distance_m) * (a + b * math.sqrt(water)))
            for a, b in zip(ALPHA, BETA, strict=True)
        )
        return min(1.0, X * near + (1 - X) * far)


@dataclass(frozen=True)
class Linear:
    """Counts that are a temperature already: kelvin = counts * kelvin_per_count."""

    kelvin_per_count: float

    def __call__(self, counts: Array) -> Array:
        celsius: Array = (counts * self.kelvin_per_count - ZERO_C_K).astype(np.float32)
        return celsius


@dataclass(frozen=True)
class Planck:
    """A camera's constants: counts = offset + gain * r / (exp(b / kelvin) - f).

    A GenICam camera names them R, B, F, J0 (offset) and J1 (gain); a radiometric picture R1, R2,
    B, F and O, with r = R1 / R2, offset = -O and gain 1. Counts below any radiance that the scene
    can give read as -273.15, and those above what the law can (F < 1) as MAX_K. Raises ValueError
    for constants that are no law.
    """

    r: float
    b: float
    f: float
    offset: float
    gain: float
    scene: Scene
    _table: Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            # 65536 logarithms once, and not 327680 for each frame.
            table = self._celsius(np.arange(65536, dtype=np.float64))
        except ArithmeticError as exc:
            raise ValueError(f"{self} is no law of a thermal camera") from exc
        object.__setattr__(self, "_table", table)

    def __call__(self, counts: Array) -> Array:
        celsius: Array = self._table[counts]
        return celsius

    def counts(self, celsius: float) -> float:
        """What the camera gives of a surface of `celsius` in the scene."""
        scene, tau = self.scene, self.scene.transmission()
        reaching = (
            scene.emissivity * tau * self._radiance(celsius)
            + (1 - scene.emissivity) * tau * self._radiance(scene.reflected_c)
            + (1 - tau) * self._radiance(scene.air_c)
        )
        return self.offset + self.gain * reaching

    def _radiance(self, celsius: float) -> float:
        return self.r / (math.exp(self.b / (celsius + ZERO_C_K)) - self.f)

    def _celsius(self, counts: Array) -> Array:
        scene, tau = self.scene, self.scene.transmission()
        elsewhere = (1 - scene.emissivity) * tau * self._radiance(scene.reflected_c)
        elsewhere += (1 - tau) * self._radiance(scene.air_c)
        own = ((counts - self.offset) / self.gain - elsewhere) / (scene.emissivity * tau)
        kelvin = np.zeros_like(own)
        inside = own > 0
        logarithm = np.log(np.maximum(self.r / own[inside] + self.f, 1.0))
        kelvin[inside] = self.b / np.maximum(logarithm, self.b / MAX_K)
        table: Array = (kelvin - ZERO_C_K).astype(np.float32)
        table.flags.writeable = False
        return table
