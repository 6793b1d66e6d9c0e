"""Driver realsense, named `cam`, and what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.clock import Clock, ManualClock
from agent.types import Sample
from drivers.realsense import PLUGIN, RealSenseConfig, RealSenseDriver
from tests.contracts.driver_contract import START_NS

__all__ = ["MS", "build", "device_ms"]

MS = 1_000_000


def build(clock: Clock | None = None, **fields: Any) -> RealSenseDriver:
    return PLUGIN("cam", RealSenseConfig(**fields), clock or ManualClock(START_NS))


def device_ms(blocks: list[Sample]) -> np.ndarray:
    stamps = [s.device_t_ns for s in blocks if s.device_t_ns is not None]
    assert len(stamps) == len(blocks)
    return np.concatenate(stamps) / MS
