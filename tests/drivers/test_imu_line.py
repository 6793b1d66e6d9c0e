"""A bad line through the whole way: pseudo-terminal, pyserial, driver and pump, at true rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.clock import SystemClock
from agent.config import DriverConfig
from agent.stream.pump import Pump, StreamState
from agent.supervise import ThreadGroup
from agent.types import Array, Sample
from drivers.imu import PLUGIN, ImuConfig
from tests.fakes.imu_messages import MESSAGES, NUMBERED, at_rate, expected
from tests.fakes.serial_device import SerialDevice

pytest.importorskip("serial", reason="needs pip install 'sensebind[imu]'")

RATES_HZ = [100, 1000]
TICKS = {100: 60, 1000: 400}
PATIENCE_S = 20.0
NOISE = b"\x00\xaa\x55\xfa?\x01\n"
BROKEN_EACH, BROKEN = 20, 13  # of 20 messages the one of which the second half is missing
ROUND = 100  # after so many both the values and what is broken are the same again

both_rates = pytest.mark.parametrize("rate_hz", RATES_HZ)
each_protocol = pytest.mark.parametrize("protocol", sorted(MESSAGES))


def imu_config(path: object, protocol: str, rate_hz: int) -> ImuConfig:
    fields = {"port": str(path), "protocol": protocol, "rate_hz": rate_hz}
    return msgspec.convert({**fields, "text": MESSAGES[protocol][1]}, ImuConfig)


def disturbed(protocol: str, rate_hz: int) -> Callable[[int], bytes]:
    """Noise before some messages, half of some missing, and each write the second half of one
    with the first half of the next."""
    message, config = at_rate(protocol, rate_hz), imu_config("unused", protocol, rate_hz)

    def values(data: bytes) -> list[tuple[float, ...]]:
        return [reading.values for reading in config.decoder().feed(data)]

    def sent(number: int) -> bytes:
        whole = (NOISE[number % len(NOISE) :] if number % 3 == 0 else b"") + message(number)
        if number % BROKEN_EACH != BROKEN:
            return whole
        after = sent(number + 1)
        # A sum of one byte lets one cut in 256 pass, and no decoder could tell: not that one.
        cuts = (whole[:length] + b"\n" for length in range(len(whole) // 2, 0, -1))
        return next(cut for cut in cuts if values(cut + after) == values(after))

    def halves(number: int) -> bytes:
        this, before = sent(number), sent(number - 1) if number else b""
        return before[len(before) // 2 :] + this[: len(this) // 2]

    return halves


class Line:
    """A pump in its thread on a driver of a device that is plugged in."""

    def __init__(self, path: Path, protocol: str, rate_hz: int, *, good: bool = True) -> None:
        self.protocol = protocol
        message = at_rate(protocol, rate_hz) if good else disturbed(protocol, rate_hz)
        self.device = SerialDevice(path, message, rate_hz, keeps=not good)
        self.clock = SystemClock()
        common = DriverConfig(kind="imu", backoff_min_s=0.02, backoff_max_s=0.1)
        driver = PLUGIN("body", imu_config(path, protocol, rate_hz), self.clock)
        self.pump = Pump("body", driver, common, self.clock, lambda state: None)
        self.samples: list[Sample] = []
        self.pump.sinks.append(self.samples.append)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.device.plug()
        try:
            with ThreadGroup() as group:
                group.start("body", self.pump.run)
                yield
        finally:
            self.device.unplug()

    @property
    def state(self) -> StreamState:
        return self.pump.streams["body"]

    def wait_for(self, ticks: int) -> None:
        """Until so many more have come."""
        start = self.state.received if self.pump.streams else 0
        until(lambda: bool(self.pump.streams) and self.state.received >= start + ticks)


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.005)


def joined(samples: list[Sample]) -> tuple[Array, Array, Array]:
    """Numbers since connect, stamps and values of all ticks."""
    seqs = np.concatenate([s.seq + np.arange(len(s)) for s in samples])
    return (
        seqs,
        np.concatenate([s.t_ns for s in samples]),
        np.concatenate([s.data for s in samples]),
    )


def check(protocol: str, samples: list[Sample]) -> None:
    """Each message that was whole has come, once and in order, and the others count as lost."""
    seqs, t_ns, data = joined(samples)
    assert np.all(np.diff(t_ns) >= 0)
    sound = [n for n in range(3 * len(data) + 2 * ROUND) if n % BROKEN_EACH != BROKEN]
    wanted = np.array([expected(protocol, n) for n in range(ROUND)], np.float32)
    starts = [
        at
        for at in range(ROUND)
        if np.abs(wanted[np.array(sound[at : at + len(data)]) % ROUND] - data).max() < 0.003
    ]
    assert starts, "the values are not those of the whole messages in order"
    if protocol in NUMBERED:
        numbers = np.array(sound[starts[0] : starts[0] + len(data)])
        np.testing.assert_array_equal(np.diff(seqs), np.diff(numbers))
    lost = sum(s.lost for s in samples)
    assert seqs[-1] + 1 == len(data) + lost


@both_rates
@each_protocol
def test_noise_half_messages_and_a_plug_pulled(tmp_path: Path, protocol: str, rate_hz: int) -> None:
    line = Line(tmp_path / "tty", protocol, rate_hz, good=False)
    with line.running():
        line.wait_for(TICKS[rate_hz])
        line.device.unplug()
        until(lambda: line.state.state == "offline")
        before = list(line.samples)
        assert "is gone" in line.state.reason
        line.device.plug()
        line.wait_for(TICKS[rate_hz])
    after = line.samples[len(before) :]
    for part in (before, after):
        check(protocol, part)
        assert part[0].seq == part[0].lost
    assert after[0].t_ns[0] >= before[-1].t_ns[-1]
    assert (line.state.reconnects, line.state.state) == (1, "online")
    assert line.state.lost == sum(s.lost for s in line.samples)
    assert line.state.bad > 0
    assert (line.state.lost > 0) == (protocol in NUMBERED)


def stamp_errors_ms(line: Line) -> Array:
    """Of each tick, its stamp after when the device says it measured, or, without a clock, sent."""
    seqs, t_ns, data = joined(line.samples)
    sent_ns = np.array(line.device.sent_ns)
    if line.state.clock is not None:
        period_ns = 1e9 / line.device.rate_hz
        sent_ns = line.device.start_ns + np.rint(np.arange(len(sent_ns)) * period_ns)
    shift_ns = line.clock.now_ns() - time.monotonic_ns()
    wanted = np.array([expected(line.protocol, n) for n in range(50)], np.float32)
    middle = len(data) // 2
    phase = int(np.abs(wanted - data[middle]).max(axis=1).argmin())
    numbers = np.arange(phase, len(sent_ns), 50)
    at = int(numbers[np.abs(sent_ns[numbers] + shift_ns - t_ns[middle]).argmin()])
    return (t_ns - shift_ns - sent_ns[at + seqs - seqs[middle]]) / 1e6


@both_rates
@each_protocol
def test_stamps_follow_the_device(
    tmp_path: Path, protocol: str, rate_hz: int, record_property: Callable[[str, object], None]
) -> None:
    line = Line(tmp_path / "tty", protocol, rate_hz)
    with line.running():
        line.wait_for(TICKS[rate_hz])
    errors_ms = np.abs(stamp_errors_ms(line))
    # Quiet machine: p99 below 5 ms. The bound is for a busy one: no wrong tick, rate or clock.
    record_property("stamp_p99_ms", float(np.percentile(errors_ms, 99)))
    assert np.percentile(errors_ms, 50) < 25
