"""Xsens MTi: messages MTData2.

Layout and units: Xsens, MT Low-Level Communication Protocol Documentation (MT0605P), "MTData2":
FA, bus FF, message 36, length (FF: two more bytes hold it), packets, and a byte that makes the sum
of all but the first a multiple of 256. A packet is an identifier (uint16), a size and data, all
big-endian: 1020 a counter (uint16), 1060 the sample time in 0.1 ms (uint32), 4020 acceleration in
m/s^2, 8020 rate of turn in rad/s. The lowest two bits of an identifier tell the number's format:
float32, fixed point 12.20, 16.32 (not read here), float64.
"""

from __future__ import annotations

import struct

from drivers.imu_protocols.base import FrameDecoder, Reading

__all__ = ["Xsens"]

COUNTER, TIME_FINE, ACCELERATION, RATE_OF_TURN = 0x1020, 0x1060, 0x4020, 0x8020
TICK_NS = 100_000  # of the sample time
MAX_EXTENDED = 2048  # bytes of data in the longest message
_VECTORS = {0: struct.Struct(">3f"), 1: struct.Struct(">3i"), 3: struct.Struct(">3d")}
_SCALES = {0: 1.0, 1: 2.0**-20, 3: 1.0}


class Xsens(FrameDecoder):
    """A message without acceleration or rate of turn gives no reading."""

    count_modulo = 2**16
    time_modulo_ns = 2**32 * TICK_NS
    header = b"\xfa\xff\x36"

    def _length(self, start: bytearray) -> int | None:
        if len(start) < 4:
            return None
        if start[3] != 0xFF:
            return 5 + start[3]
        if len(start) < 6:
            return None
        size = int.from_bytes(start[4:6], "big")
        return 7 + size if size <= MAX_EXTENDED else 0

    def _is_sound(self, frame: bytes) -> bool:
        # One message in 256 that was cut short has the right sum by chance: its packets tell.
        return sum(frame[1:]) % 256 == 0 and _packets(frame) is not None

    def _parse(self, frame: bytes) -> Reading | None:
        fields = _packets(frame) or {}
        acceleration = _vector(*fields.get(ACCELERATION, (0, b"")))
        rate = _vector(*fields.get(RATE_OF_TURN, (0, b"")))
        if acceleration is None or rate is None:
            return None
        count = fields.get(COUNTER)
        time = fields.get(TIME_FINE)
        return Reading(
            acceleration + rate,
            count=None if count is None else int.from_bytes(count[1], "big"),
            device_ns=None if time is None else int.from_bytes(time[1], "big") * TICK_NS,
        )


def _packets(frame: bytes) -> dict[int, tuple[int, bytes]] | None:
    """Identifier -> (format of its numbers, data); None where packets do not fill the message."""
    at, end = (6 if frame[3] == 0xFF else 4), len(frame) - 1
    fields = {}
    while at + 3 <= end:
        identifier, size = int.from_bytes(frame[at : at + 2], "big"), frame[at + 2]
        fields[identifier & 0xFFF0] = identifier & 3, frame[at + 3 : at + 3 + size]
        at += 3 + size
    return fields if at == end else None


def _vector(number_format: int, data: bytes) -> tuple[float, ...] | None:
    layout = _VECTORS.get(number_format)
    if layout is None or len(data) != layout.size:
        return None
    return tuple(_SCALES[number_format] * v for v in layout.unpack(data))
