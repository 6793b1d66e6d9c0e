"""A sensor that gets stuck, from its log through the tower to the health message."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from agent.clock import to_s
from agent.config_file import load_config
from agent.core import Core
from agent.health import Latencies
from agent.replay import ReplayOptions, replay
from agent.status import Reporter
from agent.types import Embedding
from tools.made_log import write_log
from tools.planted_motion import HZ, IMU, motion, samples

START_NS = 1_767_225_600_000_000_000
STUCK_S, FREE_S, SECONDS = 24 * 60, 30 * 60, 33 * 60
CONFIG = """
agent: test
space: {towers: {imu: {hop_s: 5}}}
bus: {enabled: false}
"""


def test_a_watch_that_is_stuck_is_told_in_health_until_it_moves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = motion([], SECONDS, np.random.default_rng(3))
    data[round(STUCK_S * HZ) : round(FREE_S * HZ)] = data[round(STUCK_S * HZ)]
    log = tmp_path / "watch.mcap"
    write_log(log, [IMU], samples(data, START_NS), agent="made", metadata={})
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    reporters: list[Reporter] = []
    doubts: list[tuple[float, str]] = []

    def on_streams(core: Core) -> None:
        reporters.append(Reporter(core, Latencies()))

    def on_embedding(embedding: Embedding) -> None:
        (watch,) = reporters[0].report(None).streams
        doubts.append((to_s(embedding.end_ns - START_NS), watch.doubt))

    with caplog.at_level(logging.INFO, "agent.status"):
        replay(
            load_config(tmp_path / "config.yaml", ()),
            log,
            ReplayOptions(),
            lambda event: None,
            on_embedding=on_embedding,
            on_streams=on_streams,
        )
    told_s = [t_s for t_s, doubt in doubts if doubt]
    assert STUCK_S + 120 < told_s[0] < STUCK_S + 300
    assert FREE_S < told_s[-1] < FREE_S + 150
    assert len(told_s) == sum(told_s[0] <= t_s <= told_s[-1] for t_s, _ in doubts), "all the while"
    first, last = (record.getMessage() for record in caplog.records)
    assert first.startswith("stream watch has hardly changed for")
    assert last == "stream watch is as it used to be again"
