"""What every protocol of an inertial sensor has in common: bytes in, readings out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["DEGREE", "IMU_CHANNELS", "STANDARD_GRAVITY", "Decoder", "FrameDecoder", "Reading"]

STANDARD_GRAVITY = 9.80665  # m/s^2 in 1 g, by definition (3rd CGPM, 1901)
DEGREE = math.pi / 180  # rad

IMU_CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")


@dataclass(frozen=True)
class Reading:
    """One tick. values: in the decoder's unit, in the order of its channels.

    count: the message's own number, modulo `Decoder.count_modulo`. device_ns: when the device
    measured it, on its own clock, modulo `Decoder.time_modulo_ns`. None where not sent.
    """

    values: tuple[float, ...]
    count: int | None = None
    device_ns: int | None = None


class Decoder(ABC):
    """Readings out of a stream of bytes that may be cut anywhere and hold garbage.

    What comes out depends on the bytes only, never on how they were cut into calls of `feed`.
    """

    modality = "imu"
    channels: tuple[str, ...] = IMU_CHANNELS
    unit = "m/s^2,rad/s"
    baud = 115200
    """Bits a second as the device is delivered."""
    count_modulo: int | None = None
    time_modulo_ns: int | None = None

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.bad_bytes = 0
        """Bytes so far that were no part of a sound message."""

    @abstractmethod
    def feed(self, data: bytes) -> list[Reading]:
        """The readings that `data` completes, in order; what is half there is kept."""


class FrameDecoder(Decoder):
    """A decoder of messages with a header, a length and a checksum."""

    header: bytes

    def feed(self, data: bytes) -> list[Reading]:
        """The readings that `data` completes, in order; what is half there is kept."""
        buffer, readings = self._buffer, []
        buffer += data
        while self._align():
            length = self._length(buffer)
            if length is None or len(buffer) < length:
                break
            frame = bytes(buffer[:length])
            if length == 0 or not self._is_sound(frame):
                # The header was part of something else, and the true one may be inside.
                self._skip(1)
                continue
            del buffer[:length]
            reading = self._parse(frame)
            if reading is not None:
                readings.append(reading)
        return readings

    def _align(self) -> bool:
        """Drop what stands before the next header; False where there is no whole one."""
        at = self._buffer.find(self.header)
        if at >= 0:
            self._skip(at)
            return True
        tail = len(self.header) - 1
        while tail and not self._buffer.endswith(self.header[:tail]):
            tail -= 1
        self._skip(len(self._buffer) - tail)
        return False

    def _skip(self, count: int) -> None:
        del self._buffer[:count]
        self.bad_bytes += count

    @abstractmethod
    def _length(self, start: bytearray) -> int | None:
        """Bytes of the message that begins `start`; 0 where it is none, None if not known yet."""

    @abstractmethod
    def _is_sound(self, frame: bytes) -> bool:
        """Whether the checksum of a whole message is right."""

    @abstractmethod
    def _parse(self, frame: bytes) -> Reading | None:
        """The tick that a sound message completes, or None."""
