"""The agent as `python -m agent` runs it, with a note taken of each block that its sensors give.

    python -m tests.soak.tapped_agent CONFIG TAP SECONDS

A line of TAP: stream, arrival, stamp and device's stamp of the block's last tick, ticks, lost,
code. Times are CLOCK_MONOTONIC in ns. code: of a picture its own time in us (clock_picture.py);
of sound the first value; else 0.
"""

from __future__ import annotations

import os
import sys

from agent.app import Agent
from agent.clock import SystemClock
from agent.config_file import load_config
from agent.core import Core
from agent.types import Sample
from tests.fakes.clock_picture import read_us


def _note(sample: Sample, clock: SystemClock) -> str:
    _, anchor_ns = clock.anchor
    info = sample.stream
    code = 0
    if info.name == "camera":
        code = read_us(sample.data[-1])
    elif info.modality == "audio":
        code = int(sample.data[0, 0])
    device_ns = 0 if sample.device_t_ns is None else int(sample.device_t_ns[-1])
    stamps = (sample.arrival_ns - anchor_ns, int(sample.t_ns[-1]) - anchor_ns, device_ns)
    return f"{info.name} {' '.join(map(str, stamps))} {len(sample)} {sample.lost} {code}\n"


class TappedCore(Core):
    """`tap` and `noted_by` are set before the agent opens."""

    tap: int
    noted_by: SystemClock

    def push(self, sample: Sample) -> None:
        # One write of one line, as the drivers' threads share the file.
        os.write(self.tap, _note(sample, self.noted_by).encode())
        super().push(sample)


def main(config: str, tap: str, seconds: str) -> None:
    clock = SystemClock()
    app = Agent(load_config(config), clock)
    app.core.__class__ = TappedCore
    app.core.noted_by = clock
    app.core.tap = os.open(tap, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    app.open()
    for name, address in app.endpoints.items():
        print(name, address, clock.anchor[1], flush=True)
    app.run(float(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
