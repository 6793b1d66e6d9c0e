"""Kind `live_realsense`: the real driver and SDK on a camera that this process makes up, at true
rates. `rs.context` knows no software device from Python, so that the list of devices is ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pyrealsense2 as rs

from agent.clock import Clock
from agent.types import Sample, StreamInfo
from drivers.realsense import RealSenseConfig, RealSenseDriver
from tests.fakes.realsense_device import ACCEL_HZ, GYRO_HZ, VIDEO_HZ, DeviceList, Event, RealSense

__all__ = ["LiveRealSense"]

SIZE = (640, 480)
RATES = {"depth": VIDEO_HZ, "colour": VIDEO_HZ, "accel": ACCEL_HZ, "gyro": GYRO_HZ}


class LiveRealSense:
    """Stamps are CLOCK_MONOTONIC in ms, of the moment at which a frame is given."""

    Config = RealSenseConfig

    def __init__(self, name: str, config: RealSenseConfig, clock: Clock) -> None:
        self._driver = RealSenseDriver(name, config, clock)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return self._driver.streams

    def connect(self) -> None:
        self.disconnect()
        camera = RealSense(size=SIZE)
        there = DeviceList([camera])
        rs.context = lambda: there
        self._stop.clear()
        self._thread = threading.Thread(target=_play, args=(camera, self._stop), daemon=True)
        self._thread.start()
        self._driver.connect()

    def read(self, timeout_s: float) -> Sequence[Sample]:
        return self._driver.read(timeout_s)

    def disconnect(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        self._driver.disconnect()


def _play(camera: RealSense, stop: threading.Event) -> None:
    width, height = SIZE
    noise = np.random.default_rng(0)
    depths = noise.integers(300, 9000, (8, height, width), np.uint16)
    colours = noise.integers(0, 256, (8, height, width, 3), np.uint8)
    numbers = dict.fromkeys(RATES, 0)
    start_ns = time.monotonic_ns()
    while True:
        kind = min(RATES, key=lambda kind: numbers[kind] / RATES[kind])
        due_ns = start_ns + numbers[kind] * 1_000_000_000 // RATES[kind]
        if stop.wait(max(0, due_ns - time.monotonic_ns()) / 1e9):
            return
        number = numbers[kind]
        numbers[kind] += 1
        data = {
            "depth": depths[number % 8],
            "colour": colours[number % 8],
            "accel": np.array([0.1, 9.8, -0.1 * (number % 7)], np.float32),
            "gyro": np.array([0.01 * (number % 5), 0, 0.1], np.float32),
        }[kind]
        camera.give(Event(time.monotonic_ns() / 1e6, kind, number + 1, data))
