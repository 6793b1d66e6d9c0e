"""A Boson's control port on a pseudo-terminal: answers, noise, half packets, unplugging."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from drivers._flir.fslp import Fslp, encode
from tests.fakes.pty_port import PtyPort

__all__ = ["BosonPort"]

ANSWERS = {
    0x0005_0002: (0x8E9E_AE01).to_bytes(4, "big"),  # each byte that has to be stuffed
    0x0005_0004: b"20640A012-6PAAX\0\0\0\0\0",
    0x0005_0030: (314).to_bytes(2, "big"),
    0x0005_0015: (2).to_bytes(4, "big"),
}


class BosonPort(PtyPort):
    """noise goes out before each answer; split_s: an answer comes in two halves, so far apart;
    silent: it answers nothing.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.correcting = False
        self.noise = b""
        self.split_s = 0.0
        self.silent = False
        self.refused = 0
        self.asked: list[tuple[int, bytes]] = []

    def _serve(self) -> None:
        decoder = Fslp()
        while not self._stop.is_set():
            if not select.select([self._master], [], [], 0.01)[0]:
                continue
            for request in decoder.feed(os.read(self._master, 4096)):
                self.asked.append((request.function, request.data))
                if self.silent:
                    continue
                data = ANSWERS.get(request.function, b"")
                if request.function == 0x0005_000C:
                    data = (2 if self.correcting else 3).to_bytes(2, "big")
                answer = encode(request.sequence, request.function, data, self.refused)
                half = len(answer) // 2
                os.write(self._master, self.noise + answer[:half])
                time.sleep(self.split_s)
                os.write(self._master, answer[half:])
