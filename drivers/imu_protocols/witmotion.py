"""WitMotion's standard protocol (WT61, WT901, HWT905 and others): 11 bytes a quantity.

Layout and units: WitMotion, WT901 manual, "Communication Protocol": 0x55, type, eight bytes, and
the sum modulo 256 of the ten before. Type 0x51 is acceleration, int16 little-endian, 16 g /
32768; type 0x52 is angular rate, 2000 degree/s / 32768; a cycle sends them in this order. Other
types (time, angle, magnetic field) are passed over. The time packet is off as delivered and a
date in whole milliseconds: the host's arrival is no worse a stamp.
"""

from __future__ import annotations

import struct

from drivers.imu_protocols.base import DEGREE, STANDARD_GRAVITY, FrameDecoder, Reading

__all__ = ["WitMotion"]

_PACKET = struct.Struct("<xB3h3x")
ACCELERATION, ANGULAR_RATE = 0x51, 0x52
TYPES = range(0x50, 0x60)
ACCELERATION_STEP = 16 * STANDARD_GRAVITY / 32768  # m/s^2
ANGULAR_RATE_STEP = 2000 * DEGREE / 32768  # rad/s


class WitMotion(FrameDecoder):
    """The two halves of a cycle as one reading. Cycles are counted here, also half ones."""

    baud = 9600
    count_modulo = 2**32
    header = b"\x55"

    def __init__(self) -> None:
        super().__init__()
        self._cycle = 0
        self._acceleration: tuple[float, ...] | None = None

    def _length(self, start: bytearray) -> int | None:
        if len(start) < 2:
            return None
        return _PACKET.size if start[1] in TYPES else 0

    def _is_sound(self, frame: bytes) -> bool:
        return sum(frame[:-1]) % 256 == frame[-1]

    def _parse(self, frame: bytes) -> Reading | None:
        kind, *raw = _PACKET.unpack(frame)
        if kind == ACCELERATION:
            self._cycle = (self._cycle + 1) % self.count_modulo
            self._acceleration = tuple(ACCELERATION_STEP * v for v in raw)
        elif kind == ANGULAR_RATE:
            acceleration, self._acceleration = self._acceleration, None
            if acceleration is not None:
                rates = (ANGULAR_RATE_STEP * v for v in raw)
                return Reading((*acceleration, *rates), count=self._cycle)
            self._cycle = (self._cycle + 1) % self.count_modulo
        return None
