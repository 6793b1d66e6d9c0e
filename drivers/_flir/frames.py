"""What a source of thermal frames gives the driver `flir`, whatever bus it is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from agent.radiometry import ToCelsius
from agent.types import Array

__all__ = ["Frame", "FrameSource"]


@dataclass(frozen=True)
class Frame:
    """One raw picture.

    pixels: uint16 or uint8 (height, width), its own copy. t_ns: capture on the agent's clock as
    well as the host can tell; arrival_ns: when it was whole. device_t_ns: the camera's own stamp,
    None where it has none. lost: frames known to be missing just before it.
    """

    pixels: Array
    t_ns: int
    arrival_ns: int
    device_t_ns: int | None = None
    lost: int = 0


class FrameSource(Protocol):
    """A camera, from `open` to `close`. No threads and no retries of its own."""

    @property
    def topic(self) -> str:
        """Its address or path, as StreamInfo.topic."""

    @property
    def clock_domain(self) -> str:
        """What `device_t_ns` counts; "" where frames have none."""

    @property
    def rate_hz(self) -> float | None:
        """Nominal, as the camera says, once open."""

    @property
    def celsius(self) -> ToCelsius | None:
        """How its counts become Celsius, once open; None where the camera does not say."""

    def open(self) -> None:
        """All or nothing. Raises DeviceNotFound, DeviceBusy, ConfigError."""

    def grab(self, timeout_s: float) -> Frame:
        """The next whole frame. Raises ReadTimeout, DeviceLost, BadData."""

    def close(self) -> None:
        """Idempotent; never raises for a camera that is gone."""
