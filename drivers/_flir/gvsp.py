"""GVSP, GigE Vision's stream of datagrams, back into frames. No socket and no clock in here.

Written from the packet layout of the GigE Vision standard as pyGigEVision documents it. Its own
receiver is not used: it stamps no arrival, and hands a frame on at its trailer whether or not it
is whole (docs/adr/0010-gige-vision.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from agent.errors import BadData
from agent.types import Array

__all__ = ["PIXEL_FORMATS", "Assembler", "GvspFrame"]

LEADER, TRAILER, PAYLOAD = 1, 2, 3
IMAGE = 1
PIXEL_FORMATS = {
    0x01080001: ("Mono8", "u1"),
    0x01100003: ("Mono10", "<u2"),
    0x01100005: ("Mono12", "<u2"),
    0x01100025: ("Mono14", "<u2"),
    0x01100007: ("Mono16", "<u2"),
}
"""GenICam's Pixel Format Naming Convention: what fits one grey plane, little-endian on the wire."""

MAX_BYTES = 1 << 26
IP_UDP_BYTES = 28


@dataclass(frozen=True)
class GvspFrame:
    """A whole frame. ticks: the camera's stamp in ticks of its clock. first_ns: when its leader
    arrived. lost: frames since the last whole one that were not.
    """

    pixels: Array
    ticks: int
    first_ns: int
    lost: int


@dataclass
class _Open:
    """A frame of which a leader has come. left: packets that are still missing."""

    block: int
    dtype: str
    shape: tuple[int, int]
    ticks: int
    first_ns: int
    step: int
    data: bytearray
    seen: bytearray = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = -(-len(self.data) // self.step)
        self.seen = bytearray(self.left + 1)

    def put(self, number: int, payload: memoryview) -> None:
        start = (number - 1) * self.step
        if not 0 < number < len(self.seen) or self.seen[number]:
            return
        room = min(self.step, len(self.data) - start)
        if len(payload) < room:
            return  # cut short: as good as lost
        self.data[start : start + room] = payload[:room]
        self.seen[number] = 1
        self.left -= 1


class Assembler:
    """Datagrams in any order within a frame; a frame is given up once the next one begins.

    packet_bytes: size of a datagram with its IP and UDP headers, as the camera was told.
    """

    def __init__(self, packet_bytes: int) -> None:
        self._packet_bytes = packet_bytes
        self._open: _Open | None = None
        self._last_block: int | None = None

    def feed(self, packet: memoryview, arrival_ns: int) -> GvspFrame | None:
        """The frame that `packet` made whole, if it did.

        Raises BadData for a leader of what is no grey picture; other strange packets are ignored.
        """
        if len(packet) < 8:
            return None
        extended = bool(packet[4] & 0x80)  # ids of 64 and 32 bits, from GigE Vision 2.0 on
        if extended and len(packet) < 20:
            return None
        header = 20 if extended else 8
        kind = packet[4] & 0x0F
        if extended:
            block, number = struct.unpack_from(">QI", packet, 8)
        else:
            (block,) = struct.unpack_from(">H", packet, 2)
            number = int.from_bytes(packet[5:8], "big")
        if kind == LEADER:
            self._begin(
                block, packet[header:], arrival_ns, self._packet_bytes - IP_UDP_BYTES - header
            )
            return None
        frame = self._open
        if frame is None or frame.block != block or kind != PAYLOAD:
            return None
        frame.put(number, packet[header:])
        if frame.left:
            return None
        self._open = None
        lost = self._missing(block, 1 << 64 if extended else 0xFFFF)
        pixels = np.frombuffer(frame.data, frame.dtype).reshape(frame.shape)
        native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        return GvspFrame(native, frame.ticks, frame.first_ns, lost)

    def _begin(self, block: int, leader: memoryview, arrival_ns: int, step: int) -> None:
        if len(leader) < 36 or (self._open is not None and self._open.block == block):
            return
        self._open = None
        payload, ticks, code, width, height = struct.unpack_from(">2xHQIII", leader)
        padding = struct.unpack_from(">HH", leader, 32)
        if payload & 0x3FFF != IMAGE or code not in PIXEL_FORMATS or any(padding):
            names = ", ".join(name for name, _ in PIXEL_FORMATS.values())
            raise BadData(
                f"payload type {payload}, pixel format 0x{code:08x} and padding {padding}: "
                f"expected an image of {names} without padding"
            )
        dtype = PIXEL_FORMATS[code][1]
        size = width * height * np.dtype(dtype).itemsize
        if not 0 < size <= MAX_BYTES:
            raise BadData(f"a picture of {width} x {height} pixels, expected up to {MAX_BYTES} B")
        self._open = _Open(block, dtype, (height, width), ticks, arrival_ns, step, bytearray(size))

    def _missing(self, block: int, modulo: int) -> int:
        """Frames between the last whole one and this; ids of 16 bits leave out 0 as they wrap."""
        last, self._last_block = self._last_block, block
        missing = 0 if last is None else (block - last - 1) % modulo
        return missing if missing < modulo // 2 else 0  # it counts from anew
