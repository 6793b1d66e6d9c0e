"""BNO08x in UART-RVC mode: 19 bytes, 100 times a second, at 115200 baud.

Layout and units: CEVA (Hillcrest), BNO08X Data Sheet 1000-3927, "UART-RVC": AA AA, index (uint8,
counts up), yaw, pitch, roll (int16, little-endian, 0.01 degree), ax, ay, az (int16, mg), three
reserved bytes, and the sum modulo 256 of the bytes from the index on.

That sum lets one in 256 broken messages through; nothing else in them could tell.

The mode sends no angular rate, so the stream is no `imu`: modality `motion`, angles first.
"""

from __future__ import annotations

import struct

from drivers.imu_protocols.base import DEGREE, STANDARD_GRAVITY, FrameDecoder, Reading

__all__ = ["Bno08xRvc"]

_BODY = struct.Struct("<2xB6h4x")


class Bno08xRvc(FrameDecoder):
    """yaw, pitch, roll in rad, then ax, ay, az in m/s^2 with gravity."""

    modality = "motion"
    channels = ("yaw", "pitch", "roll", "ax", "ay", "az")
    unit = "rad,m/s^2"
    count_modulo = 256
    header = b"\xaa\xaa"

    def _length(self, start: bytearray) -> int | None:
        return _BODY.size

    def _is_sound(self, frame: bytes) -> bool:
        return sum(frame[2:-1]) % 256 == frame[-1]

    def _parse(self, frame: bytes) -> Reading:
        index, *raw = _BODY.unpack(frame)
        angles = (0.01 * DEGREE * v for v in raw[:3])
        accelerations = (0.001 * STANDARD_GRAVITY * v for v in raw[3:])
        return Reading((*angles, *accelerations), count=index)
