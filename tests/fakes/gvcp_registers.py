"""A GigE Vision camera of registers alone, for what Aravis's fake one has not: FLIR's own nodes.

It answers control on the standard's port of an address of the loopback, and sends one picture
over and over once it is started. Written from the standard's packets, not from pyGigEVision.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["START", "RegisterCamera"]

XML_AT = 0x10000
START = 0x9000
DENIED = 0x8006
MONO16 = 0x01100007


class RegisterCamera:
    """floats: by node name; enums: node name -> entry names, set at 0x9100 on, one word each."""

    def __init__(
        self,
        address: str,
        picture: NDArray[np.uint16],
        floats: Mapping[str, float],
        enums: Mapping[str, tuple[str, ...]],
        taken: bool = False,
    ) -> None:
        self.address, self._picture, self._taken = address, picture, taken
        nodes = [
            "<Command Name='AcquisitionStart'><pValue>Run</pValue><CommandValue>1</CommandValue>"
            "</Command><Command Name='AcquisitionStop'><pValue>Run</pValue><CommandValue>0"
            "</CommandValue></Command>" + _register("IntReg", "Run", START)
        ]
        self.memory = bytearray(0x20000)
        for number, (name, value) in enumerate(floats.items()):
            at = 0x9200 + 4 * number
            nodes.append(f"<Float Name='{name}'><pValue>{name}Reg</pValue></Float>")
            nodes.append(_register("FloatReg", f"{name}Reg", at))
            struct.pack_into(">f", self.memory, at, value)
        for number, (name, entries) in enumerate(enums.items()):
            inner = "".join(
                f"<EnumEntry Name='{entry}'><Value>{value}</Value></EnumEntry>"
                for value, entry in enumerate(entries)
            )
            nodes.append(f"<Enumeration Name='{name}'>{inner}<pValue>{name}Reg</pValue>")
            nodes.append("</Enumeration>" + _register("IntReg", f"{name}Reg", 0x9100 + 4 * number))
        xml = f"<RegisterDescription>{''.join(nodes)}</RegisterDescription>".encode()
        self.memory[XML_AT : XML_AT + len(xml)] = xml
        url = f"Local:made.xml;{XML_AT:x};{len(xml):x}".encode()
        self.memory[0x200 : 0x200 + len(url)] = url
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 3956))
        self._socket.settimeout(0.02)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def word(self, at: int) -> int:
        return int(struct.unpack_from(">I", self.memory, at)[0])

    def _serve(self) -> None:
        block = 0
        while not self._stop.is_set():
            try:
                self._answer(*self._socket.recvfrom(2048))
            except TimeoutError:
                if self.word(START):
                    block += 1
                    self._send(block)

    def _answer(self, request: bytes, peer: tuple[str, int]) -> None:
        _, _, command, _, number = struct.unpack_from(">BBHHH", request)
        status, answer = 0, b""
        if command == 0x80:
            (at,) = struct.unpack_from(">I", request, 8)
            answer = bytes(self.memory[at : at + 4])
        elif command == 0x82:
            at, value = struct.unpack_from(">II", request, 8)
            if self._taken:
                status = DENIED
            else:
                struct.pack_into(">I", self.memory, at, value)
        elif command == 0x84:
            at, size = struct.unpack_from(">I2xH", request, 8)
            answer = request[8:12] + bytes(self.memory[at : at + size])
        head = struct.pack(">HHHH", status, command + 1, len(answer), number)
        self._socket.sendto(head + answer, peer)

    def _send(self, block: int) -> None:
        height, width = self._picture.shape
        host = (socket.inet_ntoa(bytes(self.memory[0xD18:0xD1C])), self.word(0xD00))
        step = (self.word(0xD04) & 0xFFFF) - 36
        leader = struct.pack(">HHQIIIIIHH", 0, 1, block, MONO16, width, height, 0, 0, 0, 0)
        self._socket.sendto(struct.pack(">HHBxH", 0, block, 1, 0) + leader, host)
        data = self._picture.astype("<u2").tobytes()
        for number, at in enumerate(range(0, len(data), step), 1):
            head = struct.pack(">HHBxH", 0, block, 3, number)
            self._socket.sendto(head + data[at : at + step], host)


def _register(kind: str, name: str, at: int) -> str:
    return (
        f"<{kind} Name='{name}'><Address>0x{at:x}</Address><Length>4</Length>"
        f"<Endianess>BigEndian</Endianess></{kind}>"
    )
