"""Two devices with clocks of their own in one agent: what happened at once is stamped at once.

Each device is simulated from a true time, a known offset and a known drift, behind a delay that is
never negative; what the pumps make of it is compared with the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from agent.clock import NS_PER_S, ManualClock
from agent.config import DriverConfig
from agent.stream.pump import Pump
from agent.types import Sample, StreamInfo
from tests.fakes.driver import FakeDriver
from tests.fakes.streams import block, stream

MS = 1_000_000
BOOT_NS = 1_700_000_000 * NS_PER_S


@dataclass
class Device:
    """offset_ns, drift_ppm: its clock is (1 + drift) * (true - BOOT_NS) + offset_ns."""

    info: StreamInfo
    offset_ns: int
    drift_ppm: float
    rate_hz: float
    jitter_ms: float
    rng: np.random.Generator
    got: list[Sample] = field(default_factory=list)
    true: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        driver = FakeDriver([(self.info,)])
        config = DriverConfig(kind="fake")
        self.pump = Pump("device", driver, config, ManualClock(), lambda state: None)
        self.pump.connect()
        self.pump.sinks.append(self.got.append)

    def stamp(self, true_ns: int) -> int:
        elapsed = true_ns - BOOT_NS
        return elapsed + round(elapsed * self.drift_ppm * 1e-6) + self.offset_ns

    def play(self, from_s: float, to_s: float) -> None:
        """Blocks of two ticks each."""
        for n in range(round(from_s * self.rate_hz), round(to_s * self.rate_hz), 2):
            true = [BOOT_NS + round((n + i) * NS_PER_S / self.rate_hz) for i in (0, 1)]
            arrival = true[1] + round((0.5 + self.rng.exponential(self.jitter_ms)) * MS)
            self.pump.accept(
                block(
                    self.info,
                    self.pump.streams[self.info.name].next_seq or 0,
                    [0, 0],
                    device_t_ns=[self.stamp(t) for t in true],
                    arrival_ns=arrival,
                )
            )
            self.true.extend(true)

    def errors_ms(self, last_s: float) -> np.ndarray:
        """Stamp minus truth of the ticks of the last `last_s`."""
        t_ns = np.concatenate([sample.t_ns for sample in self.got])
        true = np.array(self.true)
        keep = true > true[-1] - last_s * NS_PER_S
        return (t_ns - true)[keep] / 1e6


def devices() -> Iterator[Device]:
    """An IMU that counts from its own start and runs fast; a camera a year behind that is slow."""
    yield Device(
        stream("imu", clock="device"), 3 * NS_PER_S, 80.0, 200.0, 1.0, np.random.default_rng(1)
    )
    yield Device(
        stream("depth", clock="device"),
        -(10**16),
        -45.0,
        30.0,
        4.0,
        np.random.default_rng(2),
    )


def health(device: Device) -> tuple[float, float, float]:
    """(offset error in ms now, drift in ppm, uncertainty in ms) as health tells them."""
    clock = device.pump.streams[device.info.name].clock
    assert clock is not None
    guess = clock.estimate
    assert guess is not None
    now = device.stamp(device.true[-1])
    mapped = now + guess.offset_ns + guess.drift * (now - guess.reference_ns)
    return (mapped - device.true[-1]) / 1e6, guess.drift * 1e6, guess.uncertainty_ns / 1e6


def test_offset_and_drift_of_each_device_are_recovered() -> None:
    for device in devices():
        device.play(0, 60)
        offset_ms, drift_ppm, uncertainty_ms = health(device)
        # Agent time by device time is the inverse of how the device counts.
        assert drift_ppm == pytest.approx(-device.drift_ppm, abs=5)
        assert 0 <= offset_ms < 2.0
        assert uncertainty_ms < 2.0
        assert np.percentile(np.abs(device.errors_ms(30)), 99) < 3.0


def test_streams_are_aligned_again_after_a_clock_step_and_after_a_reconnect() -> None:
    imu, depth = devices()
    for device in (imu, depth):
        device.play(0, 30)
    imu.offset_ns -= 3600 * NS_PER_S  # somebody set it
    depth.pump.driver.disconnect()
    depth.offset_ns = 0  # unplugged: it counts from its own start again
    depth.pump.connect()
    for device in (imu, depth):
        device.play(32, 45)
        clock = device.pump.streams[device.info.name].clock
        assert clock is not None
        assert clock.steps == (1 if device is imu else 0)
        assert device.pump.streams[device.info.name].bad == 0
    # What both saw at once, a second after they came back and later, is within a few milliseconds.
    assert np.percentile(np.abs(imu.errors_ms(12)), 99) < 5.0
    assert np.percentile(np.abs(depth.errors_ms(12)), 99) < 8.0
