"""Pump: what a driver does wrong, and what the agent makes of it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S, ManualClock
from agent.config import DriverConfig
from agent.errors import (
    BadData,
    ConfigError,
    DeviceBusy,
    DeviceLost,
    DeviceNotFound,
    NotDue,
    ReadTimeout,
)
from agent.stream.pump import Pump, StreamState
from agent.stream.ring import Ring
from agent.stream.windows import Windows
from agent.types import Sample, StreamInfo, WindowSpec
from tests.fakes.driver import FakeDriver
from tests.fakes.streams import block, stream

MS = 1_000_000
INFO = stream()


class Rig:
    """A pump on a clock moved by hand, with what came out of it and what it said."""

    def __init__(
        self,
        reads: Iterable[Sequence[Sample] | Exception] = (),
        connects: Iterable[Sequence[StreamInfo] | Exception] = ((INFO,),),
        **config: Any,
    ) -> None:
        self.clock = ManualClock()
        self.driver = FakeDriver(connects, reads)
        self.said: list[tuple[int, str, str, str]] = []
        self.samples: list[Sample] = []
        self.pump = Pump(
            "card", self.driver, DriverConfig(kind="fake", **config), self.clock, self._say
        )
        self.pump.sinks.append(self.samples.append)

    def _say(self, state: StreamState) -> None:
        now_ms = self.clock.now_ns() // MS
        self.said.append((now_ms, state.info.name, state.state, state.reason))

    def run(self) -> None:
        self.pump.run(threading.Event())

    @property
    def state(self) -> StreamState:
        return self.pump.streams["mic"]

    @property
    def states(self) -> list[str]:
        return [state for _, _, state, _ in self.said]

    def ticks(self) -> list[int]:
        return [int(number) for sample in self.samples for number in sample.data[:, 0]]


def connected(**config: Any) -> Rig:
    rig = Rig(**config)
    rig.pump.connect()
    return rig


def test_a_source_plays_to_its_end() -> None:
    rig = Rig([[block(INFO, 0, [1, 2])], [], [block(INFO, 2, [3]), block(INFO, 3, [4])]])
    rig.run()
    assert rig.ticks() == [0, 1, 2, 3]
    assert rig.states == ["online", "ended"]
    assert rig.driver.log == ["connect", *["read"] * 4, "disconnect"]
    assert rig.pump.ended
    assert (rig.state.received, rig.state.lost, rig.state.bad) == (4, 0, 0)


def test_a_lost_device_is_connected_again_with_growing_pauses() -> None:
    gone = DeviceNotFound("card: not there")
    rig = Rig(
        [[block(INFO, 0, [1])], DeviceLost("card: unplugged"), [block(INFO, 0, [9])]],
        connects=[(INFO,), gone, gone, gone, DeviceBusy("card: taken"), (INFO,)],
        backoff_min_s=0.5,
        backoff_max_s=3.0,
    )
    rig.run()
    assert rig.said == [
        (0, "mic", "online", ""),
        (0, "mic", "offline", "card: unplugged"),
        (500, "mic", "offline", "card: not there"),
        (500 + 1000 + 2000 + 3000, "mic", "offline", "card: taken"),
        (500 + 1000 + 2000 + 3000 + 3000, "mic", "online", ""),
        (500 + 1000 + 2000 + 3000 + 3000, "mic", "ended", "the source has played to its end"),
    ]
    assert rig.ticks() == [0, 0]
    assert rig.state.received == 2, "counters go on"
    assert rig.state.reconnects == 1, "one outage, however many attempts"
    assert rig.state.lost == 0, "a reconnected device counts from anew"


def test_a_device_that_only_connects_is_retried_with_growing_pauses_too() -> None:
    lost = DeviceLost("card: unplugged")
    rig = Rig([lost, lost, lost, [block(INFO, 0, [1])], lost], backoff_min_s=1.0, backoff_max_s=9)
    rig.run()
    at = [t for t, _, state, _ in rig.said if state == "offline"]
    assert at == [0, 1000, 3000, 7000], "the block has set the pause back to the least"
    assert rig.clock.now_ns() == 8 * NS_PER_S


def test_a_driver_that_is_not_there_at_first_is_tried_again() -> None:
    rig = Rig([[block(INFO, 0, [1])]], connects=[DeviceNotFound("card: not there"), (INFO,)])
    rig.run()
    assert rig.states == ["online", "ended"]
    assert rig.clock.now_ns() == NS_PER_S // 2
    assert rig.state.reconnects == 0


def test_an_error_that_is_no_drivers_ends_the_pump_and_frees_the_device() -> None:
    rig = Rig([ConfigError("package 'x' is not installed")])
    with pytest.raises(ConfigError):
        rig.run()
    assert rig.driver.log[-1] == "disconnect"
    assert rig.pump.ended


def test_a_stop_during_the_pause_ends_it() -> None:
    rig = Rig([DeviceLost("card: unplugged")])
    stop = threading.Event()
    rig.pump.connect()
    rig.said.clear()
    say = rig.pump._on_state

    def say_and_stop(state: StreamState) -> None:
        say(state)
        stop.set()

    rig.pump._on_state = say_and_stop
    rig.pump.run(stop)
    assert rig.states == ["offline"]
    assert rig.driver.log == ["connect", "read", "disconnect", "disconnect"]


def test_so_many_silent_reads_in_a_row_count_as_lost() -> None:
    silent = ReadTimeout("card: nothing")
    rig = Rig([silent, silent, [block(INFO, 0, [1])], *[silent] * 3], timeouts=3)
    rig.run()
    assert [reason for _, _, state, reason in rig.said if state == "offline"] == [
        "card: silent for 3 reads"
    ]
    assert rig.driver.log.count("connect") == 2


def test_a_recording_that_waits_for_its_time_is_not_silent() -> None:
    rig = Rig([NotDue("log: due in 60 s")] * 9 + [[block(INFO, 0, [1])]], timeouts=3)
    rig.run()
    assert rig.states == ["online", "ended"]
    assert rig.ticks() == [0]


def test_bad_data_is_counted_and_is_not_silence() -> None:
    silent, bad = ReadTimeout("card: nothing"), BadData("stream mic: block has a hole")
    rig = Rig([silent, bad, silent, bad, silent, [block(INFO, 0, [1])]], timeouts=2)
    rig.run()
    assert rig.states == ["online", "ended"]
    assert (rig.state.bad, rig.state.received) == (2, 1)


def test_bad_data_is_counted_where_its_message_says() -> None:
    infos = [stream("cam"), stream("cam_1"), stream("cam_10")]
    rig = Rig(
        [BadData(f"stream {name}: bad") for name in ("cam_10", "cam_1", "cam_10")]
        + [BadData("a packet of nobody's")],
        connects=[infos],
    )
    rig.run()
    assert {name: s.bad for name, s in rig.pump.streams.items()} == {
        "cam": 1,
        "cam_1": 1,
        "cam_10": 2,
    }


def test_gaps_in_the_sequence_are_lost_ticks() -> None:
    rig = connected()
    for seq, t_ns, lost in ((0, [1, 2], 0), (5, [3], 0), (6, [4], 2), (8, [5], 9)):
        rig.pump.accept(block(INFO, seq, t_ns, lost=lost))
    assert [sample.lost for sample in rig.samples] == [0, 3, 2, 9]
    assert rig.state.lost == 14


def test_ticks_that_go_backwards_are_dropped_and_counted_once() -> None:
    rig = connected()
    rig.pump.accept(block(INFO, 0, [10, 20]))
    rig.pump.accept(block(INFO, 2, [5, 15]))
    rig.pump.accept(block(INFO, 4, [18, 19, 20, 21]))
    rig.pump.accept(block(INFO, 8, [22]))
    assert rig.ticks() == [0, 1, 6, 7, 8]
    assert [sample.seq for sample in rig.samples] == [0, 6, 8]
    assert (rig.state.bad, rig.state.lost, rig.state.received) == (4, 0, 5)


def test_a_loss_told_by_a_dropped_block_is_not_forgotten() -> None:
    rig = connected()
    rig.pump.accept(block(INFO, 0, [10]))
    rig.pump.accept(block(INFO, 4, [5, 6]))
    rig.pump.accept(block(INFO, 6, [9, 11], lost=0))
    assert rig.state.lost == 3
    assert rig.state.bad == 3


@given(
    blocks=st.lists(
        st.tuples(st.integers(-80, 80), st.lists(st.integers(0, 20), min_size=1, max_size=8)),
        min_size=1,
        max_size=30,
    )
)
def test_windows_see_only_ticks_in_order(blocks: list[tuple[int, list[int]]]) -> None:
    """Bursts, duplicates and backward stamps: what arrives in order is cut, the rest counted."""
    rig = connected()
    ring = Ring(INFO, 1000)
    rig.pump.sinks.append(ring.push)
    t, seq, kept, newest = 1000, 0, [], -1
    for jump, deltas in blocks:
        t = max(0, t + jump)
        stamps = [(t := t + delta) * MS for delta in deltas]
        rig.pump.accept(block(INFO, seq, stamps))
        seq += len(stamps)
        kept += [s for s in stamps if s >= newest]
        newest = max(newest, *stamps)
    assert [int(s) for sample in rig.samples for s in sample.t_ns] == kept
    assert rig.state.received == len(kept) == seq - rig.state.bad
    assert rig.state.lost == 0
    windows = Windows(ring, WindowSpec(0.05, 0.05)).take(10**18)
    cut = [s for window in windows for s in window.t_ns.tolist()]
    first = windows[0].start_ns if windows else 10**18
    assert cut == [s for s in kept if s >= first]


def test_a_frozen_frame_is_degraded_and_dropped_until_it_changes() -> None:
    rig = connected(frozen_s=1.0)
    frame = np.array([[7, 7]])

    def show(t_ms: int, data: Any) -> None:
        rig.clock.advance_to_ns(t_ms * MS)
        rig.pump.accept(block(INFO, len(rig.samples), [t_ms * MS], data=data))

    show(0, np.array([[1, 1]]))
    for t_ms in (500, 1000, 1499):
        show(t_ms, frame)
    assert rig.states == ["online"]
    show(1500, frame)
    show(2500, frame)
    assert rig.said[1:] == [(1500, "mic", "degraded", "frozen: the same data for 1 s")]
    show(2600, frame + 1)
    assert rig.said[2:] == [(2600, "mic", "online", "")]
    assert [int(sample.t_ns[0]) // MS for sample in rig.samples] == [0, 500, 1000, 1499, 2600]


def test_a_frame_that_a_reconnect_repeats_is_not_frozen_at_once() -> None:
    frame = np.array([[7, 7]])
    rig = Rig(
        [
            [block(INFO, 0, [0], data=frame)],
            DeviceLost("card: unplugged"),
            [block(INFO, 0, [5 * NS_PER_S], data=frame)],
        ],
        frozen_s=1.0,
    )
    rig.run()
    assert "degraded" not in rig.states
    assert len(rig.samples) == 2


def test_frozen_frames_may_be_allowed() -> None:
    rig = connected()
    for n in range(5):
        rig.pump.accept(block(INFO, n, [n * NS_PER_S], data=np.array([[7, 7]])))
    assert rig.states == ["online"]
    assert len(rig.samples) == 5


def test_the_watchdog_sees_silence_in_one_stream_of_two() -> None:
    infos = [INFO, stream("cam", "image")]
    rig = connected(connects=[infos], stale_s=2.0)
    rig.clock.advance_to_ns(2000 * MS)
    rig.pump.accept(block(INFO, 0, [1900 * MS], arrival_ns=2000 * MS))
    rig.pump.watch(2000 * MS)
    assert rig.states == ["online", "online"]
    rig.clock.advance_to_ns(2100 * MS)
    rig.pump.watch(2100 * MS)
    assert rig.said[2:] == [(2100, "cam", "degraded", "no data for 2.1 s")]
    rig.pump.watch(3000 * MS)
    assert len(rig.said) == 3, "said once"
    rig.pump.accept(block(infos[1], 0, [3100 * MS]))
    assert rig.said[3:] == [(2100, "cam", "online", "")]


def test_the_watchdog_leaves_an_offline_or_ended_stream_alone() -> None:
    rig = Rig([DeviceLost("card: unplugged")], connects=[(INFO,), DeviceNotFound("card: gone")])
    rig.pump.connect()
    with pytest.raises(DeviceLost):
        rig.pump.step(1.0)
    rig.pump._lost("card: unplugged")
    rig.pump.watch(100 * NS_PER_S)
    assert rig.states == ["online", "offline"]
    ended = Rig()
    ended.run()
    ended.pump.watch(100 * NS_PER_S)
    assert ended.states == ["online", "ended"]


@pytest.mark.parametrize(
    "after",
    [
        (stream(shape=(3,)),),
        (stream(modality="imu"),),
        (stream(unit="v"),),
        (stream("other"),),
        (),
    ],
)
def test_a_device_that_comes_back_as_another_is_refused(after: Sequence[StreamInfo]) -> None:
    rig = Rig([DeviceLost("card: unplugged")], connects=[(INFO,), after, (INFO,)])
    rig.run()
    assert rig.said[2][2] == "offline"
    assert rig.said[2][3].startswith("card: came back with")
    assert rig.states == ["online", "offline", "offline", "online", "ended"]
    assert rig.driver.log == [
        "connect", "read", "disconnect",
        "connect", "disconnect", "disconnect",
        "connect", "read", "disconnect",
    ]  # fmt: skip
    assert list(rig.pump.streams) == ["mic"]


def test_a_rate_may_change_and_a_stream_may_be_added() -> None:
    again = (stream(rate_hz=30.0), stream("cam", "image"))
    rig = Rig([DeviceLost("card: unplugged")], connects=[(INFO,), again])
    told: list[list[str]] = []
    rig.pump.on_connected = lambda pump: told.append(list(pump.streams))
    rig.run()
    assert told == [["mic"], ["mic", "cam"]]
    assert rig.pump.streams["cam"].reconnects == 0
    assert rig.state.reconnects == 1


DEVICE = stream(clock="device")


def device_rig() -> Rig:
    return connected(connects=[(DEVICE,)])


def test_device_stamps_are_mapped_and_kept() -> None:
    rig = device_rig()
    for n in range(100):
        stamps = [n * 10 * MS, n * 10 * MS + 5 * MS]
        arrival = 10**15 + stamps[1] + (2 + n % 3) * MS
        rig.pump.accept(block(DEVICE, 2 * n, [0, 0], device_t_ns=stamps, arrival_ns=arrival))
    last = rig.samples[-1]
    assert last.device_t_ns is not None
    assert last.device_t_ns.tolist() == [990 * MS, 995 * MS]
    assert last.t_ns.tolist() == [10**15 + 992 * MS, 10**15 + 997 * MS]


@given(
    moves=st.lists(
        st.tuples(
            st.one_of(st.integers(1, 100), st.sampled_from([-5000, -700, 700, 5000])),
            st.integers(0, 300),
            st.lists(st.integers(0, 20), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_mapped_stamps_never_go_backwards_nor_past_their_arrival(moves: list[Any]) -> None:
    """Whatever the device's clock does: set forward, set back, delayed."""
    rig = device_rig()
    device, host, arrived = 10**6, 10**9, 0
    for number, (step_ms, delay_ms, deltas) in enumerate(moves):
        device += step_ms
        host += abs(step_ms)
        stamps = [(device := device + delta) * MS for delta in deltas]
        host += sum(deltas)
        arrived = max(arrived, (host + delay_ms) * MS)
        rig.pump.accept(
            block(DEVICE, number, [0] * len(stamps), device_t_ns=stamps, arrival_ns=arrived)
        )
    flat = [int(t) for sample in rig.samples for t in sample.t_ns]
    assert flat == sorted(flat)
    assert all(int(s.t_ns[-1]) <= s.arrival_ns for s in rig.samples)
    assert rig.state.bad == 0


def test_a_reconnect_learns_the_devices_clock_anew() -> None:
    first = block(DEVICE, 0, [0], device_t_ns=[10**12], arrival_ns=10**15)
    again = block(DEVICE, 0, [0], device_t_ns=[0], arrival_ns=10**15 + NS_PER_S)
    rig = Rig([[first], DeviceLost("card: unplugged"), [again]], connects=[(DEVICE,)])
    rig.run()
    assert [int(sample.t_ns[0]) for sample in rig.samples] == [10**15, 10**15 + NS_PER_S]
    assert rig.state.clock is not None
    assert rig.state.clock.steps == 0
