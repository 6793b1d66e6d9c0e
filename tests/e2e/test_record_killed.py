"""A recorder that is killed loses at most the last second, and what it leaves can be played."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from agent.clock import ManualClock, from_s
from agent.errors import EndOfStream
from drivers.log import LogConfig, LogDriver

KILLS = 10


def play(path: Path) -> tuple[LogDriver, list[tuple[str, int, int, int]]]:
    driver = LogDriver("log", LogConfig(path=path, speed=0), ManualClock(0))
    driver.connect()
    found: list[tuple[str, int, int, int]] = []
    try:
        while True:
            found += [
                (s.stream.name, s.seq, s.arrival_ns, int(s.data.astype(np.float64).sum()))
                for s in driver.read(1)
            ]
    except EndOfStream:
        driver.disconnect()
    return driver, found


def test_a_killed_recorder_loses_at_most_a_second(tmp_path: Path) -> None:
    moments = random.Random(20)
    command = [sys.executable, "-m", "tests.e2e.record_child"]
    children = []
    for i in range(KILLS):
        path = tmp_path / f"{i}.mcap"
        process = subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True)
        children.append((process, path))
    for process, _ in children:
        assert process.stdout is not None
        assert process.stdout.readline()  # it records
    for process, _ in children:
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
    older_than_a_second = 0
    for process, path in children:
        assert process.stdout is not None
        with process.stdout:
            lines = process.stdout.read().splitlines()
        process.wait()
        put = [tuple(line.split()) for line in lines if line.count(" ") == 3]
        told = [(name, int(seq), int(now), int(total)) for name, seq, now, total in put]
        driver, found = play(path)
        assert not driver.complete
        in_time = [sample for sample in told if sample[2] < told[-1][2] - from_s(1)]
        assert set(in_time) <= set(found)
        older_than_a_second += len(in_time)
        for name in ("depth", "imu"):
            whole = [sample for sample in found if sample[0] == name]
            assert [s[1] for s in whole] == sorted({s[1] for s in whole})
        assert driver.ledger().get("/depth", {}).get("lost", 0) == 0
    assert older_than_a_second > 100
