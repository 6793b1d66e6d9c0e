"""VectorNav: binary output messages of the common group.

Layout, sizes and units: VectorNav, VN-100 User Manual, "Binary Output Messages" and "Common Group":
FA, groups (uint8), the fields of each group (uint16), the fields' data in the order of their bits,
and a CRC-16 (CCITT, begun with 0) big-endian; the rest is little-endian. TimeStartup is uint64 in
ns; AngularRate float32 in rad/s; Accel float32 in m/s^2; Imu both as measured, before
compensation, acceleration first.

Only messages of the common group (groups = 1) are read: the length of another is not known.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx

from drivers.imu_protocols.base import FrameDecoder, Reading

__all__ = ["VectorNav"]

COMMON = 0x01
# Bytes of the common group's fields, bit 0 first.
SIZES = (8, 8, 8, 12, 16, 12, 24, 12, 12, 24, 20, 28, 2, 4, 8)
TIME_STARTUP, ANGULAR_RATE, ACCEL, IMU = 0, 5, 8, 9
_VECTOR = struct.Struct("<3f")
_TWO_VECTORS = struct.Struct("<6f")


class VectorNav(FrameDecoder):
    """Accel and AngularRate where a message has both, else Imu, else no reading."""

    header = b"\xfa\x01"  # the sync byte and groups

    def _length(self, start: bytearray) -> int | None:
        if len(start) < 4:
            return None
        fields = int.from_bytes(start[2:4], "little")
        if fields == 0 or fields >> len(SIZES):
            return 0
        return 6 + sum(size for bit, size in enumerate(SIZES) if fields >> bit & 1)

    def _is_sound(self, frame: bytes) -> bool:
        return crc_hqx(frame[1:], 0) == 0

    def _parse(self, frame: bytes) -> Reading | None:
        fields, at, offsets = int.from_bytes(frame[2:4], "little"), 4, {}
        for bit, size in enumerate(SIZES):
            if fields >> bit & 1:
                offsets[bit] = at
                at += size
        if ACCEL in offsets and ANGULAR_RATE in offsets:
            values = _VECTOR.unpack_from(frame, offsets[ACCEL])
            values += _VECTOR.unpack_from(frame, offsets[ANGULAR_RATE])
        elif IMU in offsets:
            values = _TWO_VECTORS.unpack_from(frame, offsets[IMU])
        else:
            return None
        device_ns = None
        if TIME_STARTUP in offsets:
            at = offsets[TIME_STARTUP]
            device_ns = int.from_bytes(frame[at : at + 8], "little")
        return Reading(values, device_ns=device_ns)
