"""A sound server that is killed, hangs, loses its input or is not read: with a real PulseAudio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from agent.clock import NS_PER_S, SystemClock, to_s
from agent.config import DriverConfig
from agent.contracts import Driver
from agent.errors import DeviceBusy, DeviceLost, DeviceNotFound, DriverError, ReadTimeout
from agent.stream.pump import Pump, StreamState
from agent.supervise import ThreadGroup
from agent.types import Sample
from drivers._microphone.portaudio import PORTAUDIO
from drivers.microphone import PLUGIN, MicrophoneConfig, MicrophoneDriver
from tests.contracts.driver_contract import open_handles, read_all
from tests.fakes.pulse import PulseServer, isolated_microphone, why_not

MISSING = why_not()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

RATE_HZ = 16_000
PATIENCE_S = 30  # of a wait that ends much earlier; how long it took is printed


def build(**fields: Any) -> MicrophoneDriver:
    return PLUGIN("mic", MicrophoneConfig(**{"rate_hz": RATE_HZ, **fields}), SystemClock())


def until(done: Callable[[], bool]) -> float:
    """Wait until `done`; how many seconds it took."""
    start_s = time.monotonic()
    while not done():
        assert time.monotonic() - start_s < PATIENCE_S
        time.sleep(0.01)
    return time.monotonic() - start_s


def read_until_lost(driver: Driver) -> DeviceLost:
    with pytest.raises(DeviceLost) as lost:
        list(read_all(driver, 1000))
    return lost.value


class Agent:
    """A pump with a microphone, in the thread and with the process that it has in the agent."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.states: list[tuple[str, str]] = []
        config = DriverConfig(kind="microphone")
        driver = isolated_microphone(rate_hz=RATE_HZ)
        self.pump = Pump("mic", driver, config, SystemClock(), self._told)
        self.pump.sinks.append(self.samples.append)

    def _told(self, state: StreamState) -> None:
        self.states.append((state.state, state.reason))

    def is_(self, state: str) -> bool:
        return bool(self.states) and self.states[-1][0] == state

    def hears(self) -> bool:
        """Online, and a block came within the last 0.2 s."""
        age_ns = SystemClock().now_ns() - self.samples[-1].arrival_ns if self.samples else NS_PER_S
        return self.is_("online") and age_ns < NS_PER_S // 5


@pytest.fixture
def agent(pulse: PulseServer) -> Iterator[Agent]:
    agent = Agent()
    with ThreadGroup() as group:
        group.start("mic", agent.pump.run)
        until(agent.hears)
        yield agent


class TestInTheAgent:
    def test_killed_and_back(self, pulse: PulseServer, agent: Agent) -> None:
        pulse.stop()
        lost_s = until(lambda: agent.is_("offline"))
        time.sleep(2)
        pulse.start()
        back_s = until(agent.hears)
        print(f"killed: told after {lost_s:.2f} s, heard {back_s:.2f} s after the server was back")
        assert any("has stopped" in reason or "hangs" in reason for _, reason in agent.states)
        assert agent.pump.streams["mic"].reconnects == 1

    @pytest.mark.parametrize("hung_s", [1.5, 4.0])
    def test_hung_and_back(self, pulse: PulseServer, agent: Agent, hung_s: float) -> None:
        pulse.hang()
        lost_s = until(lambda: agent.is_("offline"))
        time.sleep(hung_s)
        pulse.go_on()
        back_s = until(agent.hears)
        print(f"hung: told after {lost_s:.2f} s, heard {back_s:.2f} s after the server went on")
        assert any("the sound server or the device hangs" in why for _, why in agent.states)
        stamps = np.concatenate([s.t_ns for s in agent.samples])
        assert (np.diff(stamps) >= 0).all()
        # What the server kept while it hung is not told as if it were heard now.
        age_ns = [s.arrival_ns - int(s.t_ns[-1]) for s in agent.samples]
        assert min(age_ns) >= 0
        spans = [to_s(int(b.t_ns[0] - a.t_ns[-1])) for a, b in pairwise(agent.samples)]
        assert max(spans) > hung_s

    def test_hung_and_then_killed(self, pulse: PulseServer, agent: Agent) -> None:
        pulse.hang()
        until(lambda: agent.is_("offline"))
        pulse.stop()
        pulse.start()
        until(agent.hears)

    def test_its_input_unplugged(self, pulse: PulseServer, agent: Agent) -> None:
        pulse.unplug()
        print(f"unplugged: told after {until(lambda: agent.is_('offline')):.2f} s")
        pulse.stop()
        pulse.start()
        until(agent.hears)

    def test_the_agent_ends_while_the_server_hangs(self, pulse: PulseServer) -> None:
        agent = Agent()
        with ThreadGroup(join_timeout_s=5) as group:
            group.start("mic", agent.pump.run)
            until(agent.hears)
            pulse.hang()
            time.sleep(0.4)  # it is silent, and not yet long enough to be lost
        # The group raises where a thread does not end.


class TestHang:
    def test_a_backlog_has_the_times_at_which_it_was_heard(self, pulse: PulseServer) -> None:
        driver = build(watchdog_s=8, queue_s=20)
        driver.connect()
        samples = list(read_all(driver, 30))
        pulse.hang()
        time.sleep(1.5)
        pulse.go_on()
        time.sleep(1)
        while True:
            try:
                samples += driver.read(0)
            except ReadTimeout:
                break
        driver.disconnect()
        for before, after in pairwise(samples):
            assert after.seq == before.seq + len(before) + after.lost
        t_ns = np.concatenate([s.t_ns for s in samples])
        seq = np.concatenate([s.seq + np.arange(len(s)) for s in samples])
        # The count of ticks and the clock tell the same time, before, within and after the hang.
        off_ms = (t_ns - t_ns[0]) / 1e6 - (seq - seq[0]) * 1000 / RATE_HZ
        late_s = max(to_s(s.arrival_ns - int(s.t_ns[0])) for s in samples)
        print(f"backlog: oldest {late_s:.2f} s late, stamps off by {np.abs(off_ms).max():.1f} ms")
        assert late_s > 1
        assert np.abs(off_ms).max() < 60

    def test_while_it_hangs_nobody_waits_for_it(self, pulse: PulseServer) -> None:
        driver = build(watchdog_s=0.5)
        driver.connect()
        next(read_all(driver, 20))
        pulse.hang()
        assert "hangs" in str(read_until_lost(driver))
        start_s = time.monotonic()
        driver.disconnect()
        with pytest.raises(DeviceNotFound, match="its sound server still hangs"):
            driver.connect()
        took_s = time.monotonic() - start_s
        pulse.go_on()
        assert took_s < 2
        until(lambda: connects(driver))
        next(read_all(driver, 20))
        driver.disconnect()

    def test_one_that_waits_in_portaudio_does_not_stop_another(self, pulse: PulseServer) -> None:
        one, two = build(watchdog_s=0.5), build(device="pulse")
        one.connect()
        next(read_all(one, 20))
        pulse.hang()
        with ThreadGroup() as group:
            group.start("two", lambda stop: two.connect())  # PortAudio waits for the server
            read_until_lost(one)
            one.disconnect()
            with pytest.raises(DeviceBusy, match="PortAudio is held by an input that hangs"):
                one.connect()
            pulse.go_on()
        two.disconnect()
        until(lambda: connects(one))
        one.disconnect()


def connects(driver: MicrophoneDriver) -> bool:
    try:
        driver.connect()
    except DriverError:
        return False
    return True


class TestReader:
    def test_what_is_not_read_is_lost_and_counted(self, pulse: PulseServer) -> None:
        driver = build(queue_s=0.2)
        driver.connect()
        samples = list(read_all(driver, 10))
        time.sleep(1.5)
        samples += read_all(driver, 30)
        driver.disconnect()
        lost = sum(s.lost for s in samples)
        print(f"not read for 1.5 s with a queue of 0.2 s: {lost / RATE_HZ:.2f} s lost")
        assert 1.0 < lost / RATE_HZ < 1.6
        for before, after in pairwise(samples):
            assert after.seq == before.seq + len(before) + after.lost
            gap_s = to_s(int(after.t_ns[0] - before.t_ns[-1]))
            assert abs(gap_s - (after.lost + 1) / RATE_HZ) < 0.06

    def test_nothing_grows_over_deaths(self, pulse: PulseServer) -> None:
        driver = isolated_microphone(device_rate_hz=48_000)

        def again() -> tuple[int, int]:
            driver.connect()
            list(read_all(driver, 3))
            pulse.stop()
            read_until_lost(driver)
            driver.disconnect()
            with pytest.raises(DeviceNotFound):
                driver.connect()
            pulse.start()
            return open_handles()

        again()
        first = again()
        handles = [again() for _ in range(5)]
        print(f"(files, threads) before {first}, after 5 kills {handles[-1]}")
        assert max(handles) <= first

    def test_nothing_grows_over_reconnects(self, pulse: PulseServer) -> None:
        def again() -> tuple[int, int]:
            driver = build(device_rate_hz=48_000)
            driver.connect()
            list(read_all(driver, 3))
            driver.disconnect()
            return open_handles()

        again()
        first = again()
        handles = [again() for _ in range(20)]
        print(f"(files, threads) before {first}, after 20 times {handles[-1]}")
        assert max(handles) <= first
        assert not PORTAUDIO._open
        assert not PORTAUDIO._hung
