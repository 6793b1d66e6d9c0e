"""Boson's control port: FLIR's serial line protocol (FSLP), and the few commands a driver needs.

A frame is 0x8E, then stuffed, big-endian: channel 0, sequence number (32 bits), function (32),
status (32; all ones in a request), data, CRC-16 of all of it (CCITT, begun at 0x1D0F); then 0xAE.
0x8E, 0x9E and 0xAE inside are sent as 0x9E and themselves less 0x0D. Source: FLIR's "Boson
Software Interface Description Document" (102-2013-42); the frames in the tests are a real
camera's.
"""

from __future__ import annotations

import binascii
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.clock import Clock, from_s, to_s
from agent.errors import BadData, DeviceLost, ReadTimeout
from drivers._serial_ports import one_line, open_port

if TYPE_CHECKING:
    import serial

__all__ = ["BAUD", "BosonControl", "Fslp", "Reply", "encode"]

BAUD = 921_600
START, ESCAPE, END = 0x8E, 0x9E, 0xAE
SPECIAL = (START, ESCAPE, END)
SHIFT = 0x0D
REQUEST = 0xFFFF_FFFF
HEAD = struct.Struct(">BIII")  # channel, sequence, function, status
MAX_BYTES = 1024  # the longest answer is some 300

GET_SERIAL, GET_PART, RUN_FFC = 0x0005_0002, 0x0005_0004, 0x0005_0007
GET_FFC_STATE, SET_FFC_MODE = 0x0005_000C, 0x0005_0012
SET_GAIN, GET_GAIN, GET_FPA = 0x0005_0014, 0x0005_0015, 0x0005_0030
FFC_MODES = {"manual": 0, "auto": 1, "external": 2}
GAINS = {"high": 0, "low": 1, "auto": 2}
FFC_IN_PROGRESS = 2

ANSWER_S = 0.1  # the camera answers within some 2 ms
TRIES = 2


@dataclass(frozen=True)
class Reply:
    """A frame that the camera sent. status: 0 where it did what it was asked for."""

    sequence: int
    function: int
    status: int
    data: bytes


def encode(sequence: int, function: int, data: bytes = b"", status: int = REQUEST) -> bytes:
    """A whole frame."""
    body = HEAD.pack(0, sequence, function, status) + data
    body += binascii.crc_hqx(body, 0x1D0F).to_bytes(2, "big")
    stuffed = bytearray()
    for byte in body:
        stuffed += bytes((ESCAPE, byte - SHIFT)) if byte in SPECIAL else bytes((byte,))
    return bytes((START, *stuffed, END))


class Fslp:
    """Bytes as they come, in any pieces, to replies; what is broken is dropped and counted."""

    def __init__(self) -> None:
        self.bad = 0
        self._body: bytearray | None = None  # None between frames
        self._escaped = False

    def feed(self, data: bytes) -> list[Reply]:
        replies = []
        for byte in data:
            if byte == START:
                self.bad += self._body is not None
                self._body, self._escaped = bytearray(), False
            elif self._body is None:
                continue  # noise between frames
            elif byte == END:
                reply = self._whole(self._body)
                self.bad += reply is None
                replies += [reply] if reply is not None else []
                self._body = None
            elif byte == ESCAPE:
                self._escaped = True
            else:
                self._body.append((byte + SHIFT) & 0xFF if self._escaped else byte)
                self._escaped = False
                if len(self._body) > MAX_BYTES:
                    self._body, self.bad = None, self.bad + 1
        return replies

    @staticmethod
    def _whole(body: bytearray) -> Reply | None:
        size = len(body) - 2
        if size < HEAD.size or binascii.crc_hqx(body[:size], 0x1D0F) != int.from_bytes(
            body[size:], "big"
        ):
            return None
        _, sequence, function, status = HEAD.unpack_from(body)
        return Reply(sequence, function, status, bytes(body[HEAD.size : size]))


class BosonControl:
    """A Boson's control port, open until `close`. One command at a time, each answered.

    Each raises ReadTimeout where no answer comes, DeviceLost once the port is gone, and
    BadData where the camera refuses.
    """

    def __init__(self, path: str, label: str, clock: Clock) -> None:
        """Open it. Raises DeviceNotFound, DeviceBusy."""
        self._label, self._clock = f"{label}: control port {path}", clock
        self._port: serial.Serial = open_port(path, BAUD, label)
        self._decoder = Fslp()
        self._sequence = 0

    def serial_number(self) -> int:
        return int.from_bytes(self.ask(GET_SERIAL, size=4), "big")

    def part_number(self) -> str:
        return self.ask(GET_PART, size=1).partition(b"\0")[0].decode("ascii", "replace")

    def fpa_c(self) -> float:
        """Temperature of the sensor in Celsius, in steps of 0.1."""
        return int.from_bytes(self.ask(GET_FPA, size=2)[:2], "big", signed=True) / 10

    def correcting(self) -> bool:
        """Whether a flat-field correction is in progress: the shutter is shut."""
        return int.from_bytes(self.ask(GET_FFC_STATE, size=2)[:2], "big") == FFC_IN_PROGRESS

    def correct(self) -> None:
        """Begin a flat-field correction."""
        self.ask(RUN_FFC)

    def set_ffc_mode(self, mode: str) -> None:
        self.ask(SET_FFC_MODE, FFC_MODES[mode].to_bytes(4, "big"))

    def set_gain(self, gain: str) -> None:
        self.ask(SET_GAIN, GAINS[gain].to_bytes(4, "big"))

    def gain(self) -> int:
        """By the numbers of GAINS, or one beyond them."""
        return int.from_bytes(self.ask(GET_GAIN, size=4), "big")

    def ask(self, function: int, data: bytes = b"", size: int = 0) -> bytes:
        """The data of the answer, at least `size` bytes."""
        import serial

        try:
            for _ in range(TRIES):
                reply = self._exchange(function, data)
                if reply is not None:
                    break
            else:
                raise ReadTimeout(f"{self._label}: no answer to 0x{function:08x}")
        except (serial.SerialException, OSError) as exc:
            raise DeviceLost(f"{self._label}: is gone: {one_line(exc)}") from exc
        if reply.status or len(reply.data) < size:
            raise BadData(
                f"{self._label}: 0x{function:08x} gave status 0x{reply.status:x} and "
                f"{len(reply.data)} bytes, expected 0 and at least {size}"
            )
        return reply.data

    def close(self) -> None:
        """Idempotent."""
        with suppress(OSError):
            self._port.close()

    def _exchange(self, function: int, data: bytes) -> Reply | None:
        # FLIR's own SDK keeps bytes that would be stuffed out of the sequence number.
        self._sequence = self._sequence % 127 + 1
        self._port.write(encode(self._sequence, function, data))
        until_ns = self._clock.now_ns() + from_s(ANSWER_S)
        while (left_ns := until_ns - self._clock.now_ns()) > 0:
            self._port.timeout = to_s(left_ns)
            for reply in self._decoder.feed(self._port.read(max(1, self._port.in_waiting))):
                # An answer that came too late for its own question is not this one's.
                if (reply.sequence, reply.function) == (self._sequence, function):
                    return reply
        return None
