"""WitMotion's standard protocol (WT61, WT901, HWT905 and others): 11 bytes a quantity.

Layout and units: WitMotion, WT901 manual, "Communication Protocol": 0x55, type, eight bytes, and
the sum modulo 256 of the ten before. Type 0x51 is acceleration, int16 little-endian, its range /
32768; type 0x52 is angular rate, likewise; a cycle sends them in this order. As delivered the
ranges are 16 g and 2000 degree/s; nothing sent tells them. Other types (time, angle, magnetic
field) are passed over. The time packet is off as delivered and a date in whole milliseconds: the
host's arrival is no worse a stamp.
"""

from __future__ import annotations

import struct

from drivers.imu_protocols.base import DEGREE, STANDARD_GRAVITY, FrameDecoder, Reading

__all__ = ["WitMotion"]

_PACKET = struct.Struct("<xB3h3x")
ACCELERATION, ANGULAR_RATE = 0x51, 0x52
TYPES = range(0x50, 0x60)
ACCEL_RANGE_G, GYRO_RANGE_DPS = 16.0, 2000.0


class WitMotion(FrameDecoder):
    """The two halves of a cycle as one reading. Cycles are counted here, also half ones.

    accel_range_g, gyro_range_dps: what the sensor calls full scale; g and degree/s.
    """

    baud = 9600
    count_modulo = 2**32
    header = b"\x55"

    def __init__(
        self, accel_range_g: float = ACCEL_RANGE_G, gyro_range_dps: float = GYRO_RANGE_DPS
    ) -> None:
        super().__init__()
        self._acceleration_step = accel_range_g * STANDARD_GRAVITY / 32768  # m/s^2
        self._rate_step = gyro_range_dps * DEGREE / 32768  # rad/s
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
            self._acceleration = tuple(self._acceleration_step * v for v in raw)
        elif kind == ANGULAR_RATE:
            acceleration, self._acceleration = self._acceleration, None
            if acceleration is not None:
                rates = (self._rate_step * v for v in raw)
                return Reading((*acceleration, *rates), count=self._cycle)
            self._cycle = (self._cycle + 1) % self.count_modulo
        return None
