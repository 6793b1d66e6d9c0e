"""VectorNav: binary output messages, whatever fields they are set to hold.

Layout, sizes and units: VectorNav, VN-100 and VN-200 User Manual, "Binary Output Messages" and the
tables of each group: FA, groups (uint8), the fields of each group (uint16), the fields' data in the
order of groups and bits, and a CRC-16 (CCITT, begun with 0) big-endian; the rest is little-endian.
TimeStartup is uint64 in ns; AngularRate float32 in rad/s; Accel float32 in m/s^2. Imu is both as
measured, before compensation, acceleration first; UncompAccel and UncompGyro are the same alone.

A message with a field of no fixed length (satellites, raw GNSS), with one that firmwares disagree
about, or with the extension of the groups (bit 7) is refused: where it ends is not known.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from functools import lru_cache

from drivers.imu_protocols.base import FrameDecoder, Reading

__all__ = ["VectorNav"]

COMMON, TIME, IMU = 0, 1, 2
_GNSS = (8, 8, 2, 1, 1, 24, 24, 12, 12, 12, 4, 4)
# Bytes of each group's fields, bit 0 first.
SIZES = (
    (8, 8, 8, 12, 16, 12, 24, 12, 12, 24, 20, 28, 2, 4, 8),  # common
    (8, 8, 8, 2, 8, 8, 8, 4, 4, 1),  # time
    (2, 12, 12, 12, 4, 4, 16, 12, 12, 12, 12, 2, 40),  # IMU
    _GNSS,
    (2, 12, 16, 36, 12, 12, 12, 12, 12, 12, 28, 24),  # attitude
    (2, 24, 24, 12, 12, 12, 12, 12, 12, 4, 4, 68, 64),  # INS
    _GNSS,  # of the second receiver
)
# (group, bit), the first that a message has.
TIME_STARTUP = ((COMMON, 0), (TIME, 0))
COMPENSATED = (((COMMON, 8), (COMMON, 5)), ((IMU, 9), (IMU, 10)))  # acceleration, angular rate
RAW = (IMU, 2), (IMU, 3)
RAW_BOTH = (COMMON, 9)
_VECTOR = struct.Struct("<3f")
_TIME = struct.Struct("<Q")


class VectorNav(FrameDecoder):
    """Accel and AngularRate where a message has both, else as measured, else no reading."""

    header = b"\xfa"

    def _length(self, start: bytearray) -> int | None:
        if len(start) < 2:
            return None
        groups = start[1]
        if groups == 0 or groups >> len(SIZES):
            return 0
        if len(start) < 2 + 2 * groups.bit_count():
            return None
        return _layout(bytes(start[1 : 2 + 2 * groups.bit_count()]))[0]

    def _is_sound(self, frame: bytes) -> bool:
        return crc_hqx(frame[1:], 0) == 0

    def _parse(self, frame: bytes) -> Reading | None:
        _, offsets = _layout(frame[1 : 2 + 2 * frame[1].bit_count()])
        pair = next((p for p in (*COMPENSATED, RAW) if p[0] in offsets and p[1] in offsets), None)
        if pair is not None:
            at, rate_at = offsets[pair[0]], offsets[pair[1]]
        elif RAW_BOTH in offsets:
            at = offsets[RAW_BOTH]
            rate_at = at + _VECTOR.size
        else:
            return None
        values = _VECTOR.unpack_from(frame, at) + _VECTOR.unpack_from(frame, rate_at)
        times = [offsets[field] for field in TIME_STARTUP if field in offsets]
        device_ns = _TIME.unpack_from(frame, times[0])[0] if times else None
        return Reading(values, device_ns=device_ns)


@lru_cache(maxsize=64)  # a device sends a few, and noise makes up any number
def _layout(header: bytes) -> tuple[int, dict[tuple[int, int], int]]:
    """Bytes of the whole message and where its fields begin, by its groups and their fields.

    0 bytes where it cannot be told.
    """
    groups = [group for group in range(len(SIZES)) if header[0] >> group & 1]
    at, offsets = 1 + len(header), {}
    for n, group in enumerate(groups):
        fields = int.from_bytes(header[1 + 2 * n : 3 + 2 * n], "little")
        if fields == 0 or fields >> len(SIZES[group]):
            return 0, {}
        for bit, size in enumerate(SIZES[group]):
            if fields >> bit & 1:
                offsets[group, bit] = at
                at += size
    return at + 2, offsets
