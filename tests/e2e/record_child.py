"""A recorder to be killed: puts a picture and IMU ticks, and says of each what it has put."""

from __future__ import annotations

import sys
import threading

import numpy as np

from agent.clock import SystemClock, from_s
from agent.record.writer import LogWriter
from agent.types import Sample
from tests.fakes.log_streams import STREAMS, ticks

PERIOD_S = 0.02


def main(path: str) -> None:
    clock = SystemClock()
    log = LogWriter(path, clock=clock, agent="child", boot_id="b")
    for name in ("depth", "imu"):
        log.add_stream(STREAMS[name])
    stop = threading.Event()
    threading.Thread(target=log.run, args=(stop,), daemon=True).start()
    rng = np.random.default_rng(0)
    seq = {"depth": 0, "imu": 0}
    due_ns = clock.now_ns()
    while True:
        for name, count in (("depth", 1), ("imu", 4)):
            info = STREAMS[name]
            now = clock.now_ns()
            t_ns = now - 1000 * np.arange(count, 0, -1, dtype=np.int64)
            sample = Sample(info, seq[name], t_ns, now, ticks(info, count, rng), t_ns - 7)
            log.put(sample)
            seq[name] += count
            print(name, sample.seq, now, int(sample.data.astype(np.float64).sum()), flush=True)
        due_ns += from_s(PERIOD_S)
        clock.wait_until_ns(due_ns)


if __name__ == "__main__":
    main(sys.argv[1])
