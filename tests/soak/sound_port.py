"""Sound at its pace into a FIFO that PulseAudio makes an input of; says when tick 0 is due.

What nobody listens to is dropped, as a microphone's is: a full FIFO would come first, and at once.
Ticks are counted modulo RAMP, so that any stretch of 1.25 s is known.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from contextlib import suppress

import numpy as np

RATE_HZ, RAMP = 48_000, 60_000
BLOCK = RATE_HZ // 500  # PulseAudio takes what it reads to be captured just then
F_SETPIPE_SZ = 1031  # of Linux's fcntl.h; fcntl has it since Python 3.10 where the kernel's does
PIPE_BYTES = 4096  # 43 ms

if __name__ == "__main__":
    out = os.open(sys.argv[1], os.O_WRONLY)
    fcntl.fcntl(out, F_SETPIPE_SZ, PIPE_BYTES)
    os.set_blocking(out, False)
    start_ns = time.monotonic_ns()
    print(start_ns, flush=True)
    number = 0
    while True:
        due_ns = start_ns + (number + BLOCK) * 1_000_000_000 // RATE_HZ
        time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
        ticks = np.arange(number, number + BLOCK) % RAMP - RAMP // 2
        with suppress(BlockingIOError):
            os.write(out, ticks.astype("<i2").tobytes())
        number += BLOCK
