"""The microphone driver: real PortAudio on a real sound server, and made-up faults."""

from __future__ import annotations

import ctypes.util
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import NS_PER_S, Clock, ManualClock, SystemClock, to_s
from agent.contracts import Driver
from agent.errors import ConfigError, DeviceBusy, DeviceLost, DeviceNotFound, ReadTimeout
from agent.types import Sample
from drivers._microphone.timeline import MAX_ERROR_NS, AudioTimeline
from drivers.microphone import PLUGIN, MicrophoneConfig, MicrophoneDriver
from tests.contracts.driver_contract import START_NS, LiveDriverContract, read_all
from tests.fakes.portaudio import FakeSounddevice
from tests.fakes.pulse import RATE_HZ, PulseServer, isolated_microphone, why_not

MISSING = why_not()
real = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

MS = 1_000_000


def build(clock: Clock | None = None, **fields: Any) -> MicrophoneDriver:
    return PLUGIN("mic", MicrophoneConfig(**fields), clock or SystemClock())


def wave(seconds: float, hz: float = 1000.0, peak: int = 8000) -> np.ndarray:
    """int16 (n, 1) at RATE_HZ."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (peak * np.sin(2 * np.pi * hz * time_s)).astype(np.int16)[:, np.newaxis]


def drain(driver: Driver, timeout_s: float = 0) -> list[Sample]:
    """What can be read until it is silent for `timeout_s`: what waits now, where that is 0."""
    samples: list[Sample] = []
    while True:
        try:
            samples += driver.read(timeout_s)
        except ReadTimeout:
            return samples


@real
class TestMicrophone(LiveDriverContract):
    max_reads = 300  # of 5 ms, and while one waits only 1 ms for each the first takes 20 or more

    @pytest.fixture
    def make_driver(self, pulse: PulseServer) -> Callable[[], Driver]:
        return lambda: isolated_microphone(rate_hz=16000, block_s=0.005)

    @pytest.fixture
    def unplug(self, pulse: PulseServer) -> Callable[[], Any]:
        return pulse.stop

    @pytest.fixture
    def broken(self, pulse_home: PulseServer) -> Iterator[tuple[Driver, Callable[[], Any]]]:
        yield isolated_microphone(), pulse_home.start
        pulse_home.stop()


@real
class TestSound:
    @pytest.mark.parametrize("rate_hz", [16000, 48000])
    def test_a_tone_has_its_pitch_level_length_and_time(
        self, pulse: PulseServer, rate_hz: int
    ) -> None:
        clock = SystemClock()
        driver = build(clock, rate_hz=rate_hz, queue_s=30)
        driver.connect()
        before_ns = clock.now_ns()
        pulse.play(wave(1.0))
        after_ns = clock.now_ns()
        samples = drain(driver)
        driver.disconnect()
        assert sum(s.lost for s in samples) == 0
        sound = np.concatenate([s.data for s in samples])[:, 0].astype(float)
        t_ns = np.concatenate([s.t_ns for s in samples])
        loud = np.flatnonzero(np.abs(sound) > 4000)
        assert before_ns < t_ns[loud[0]] < t_ns[loud[-1]] < after_ns
        # A busy machine stretches what paplay plays; test_microphone_sound.py is about stamps.
        assert abs(t_ns[loud[-1]] - t_ns[loud[0]] - NS_PER_S) < 100 * MS
        middle = sound[loud[0] :][rate_hz // 4 : 3 * rate_hz // 4]
        assert 20 * np.log10(middle.std() * np.sqrt(2) / 8000) == pytest.approx(0, abs=0.2)
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert np.argmax(spectrum) * rate_hz / len(middle) == pytest.approx(1000, abs=2)

    def test_blocks_join_without_seams(self, pulse: PulseServer) -> None:
        driver = build(rate_hz=16000)
        driver.connect()
        samples = list(read_all(driver, 110))
        driver.disconnect()
        assert {len(s) for s in samples} == {320}
        for before, after in pairwise(samples[60:]):  # before, it makes up for its first reading
            assert abs(after.t_ns[0] - before.t_ns[-1] - NS_PER_S // 16000) < MS

    def test_the_stream_is_what_the_kernel_expects_of_sound(self, pulse: PulseServer) -> None:
        driver = build(channels=2)
        assert driver.streams == ()
        driver.connect()
        (info,) = driver.streams
        driver.disconnect()
        assert (info.name, info.modality, info.unit) == ("mic", "audio", "full_scale")
        assert (info.dtype, info.shape, info.rate_hz) == ("int16", (2,), 44100)

    def test_a_device_by_name_and_by_index(self, pulse: PulseServer) -> None:
        driver = build(device="PULS")
        driver.connect()
        assert driver.streams[0].topic == "portaudio:pulse"
        driver.disconnect()
        driver = build(device="0")
        driver.connect()
        assert next(read_all(driver, 20))
        driver.disconnect()

    @pytest.mark.parametrize("device", ["nosuch", "99"])
    def test_a_device_that_is_not_there(self, pulse: PulseServer, device: str) -> None:
        with pytest.raises(
            DeviceNotFound, match=rf"'{device}': is no input: .* 0 'pulse' of ALSA, 1 '"
        ):
            build(device=device).connect()

    def test_more_channels_than_there_are(self, pulse: PulseServer) -> None:
        with pytest.raises(DeviceNotFound, match=r"rate_hz 44100, channels 64: .*number of ch"):
            build(channels=64).connect()

    def test_without_a_server_there_is_no_input(self, pulse_home: PulseServer) -> None:
        with pytest.raises(
            DeviceNotFound, match=r"^microphone mic: device 'default': there is no sound i"
        ):
            build().connect()

    def test_a_killed_server_is_a_lost_device_that_can_come_back(self, pulse: PulseServer) -> None:
        driver = isolated_microphone(rate_hz=16000)
        driver.connect()
        assert next(read_all(driver, 20))
        pulse.stop()
        with pytest.raises(DeviceLost, match=r"has stopped|hangs"):
            list(read_all(driver, 1000))
        with pytest.raises(DeviceNotFound):
            driver.connect()
        pulse.start()
        driver.connect()
        assert next(read_all(driver, 20)).seq == 0
        driver.disconnect()

    def test_a_server_that_hangs_is_silent_and_then_goes_on(self, pulse: PulseServer) -> None:
        driver = build(rate_hz=16000)
        driver.connect()
        samples = list(read_all(driver, 5))
        pulse.hang()
        try:
            samples += drain(driver, 0.3)
        finally:
            pulse.go_on()
        samples += read_all(driver, 40)
        driver.disconnect()
        for before, after in pairwise(samples):
            assert after.seq == before.seq + len(before) + after.lost
            assert after.t_ns[0] >= before.t_ns[-1]

    def test_two_at_once(self, pulse: PulseServer) -> None:
        one, two = build(rate_hz=16000), build(rate_hz=48000)
        one.connect()
        two.connect()
        two.disconnect()
        two.connect()  # finds its device while PortAudio cannot be started anew
        assert next(read_all(one, 20))
        assert next(read_all(two, 20))
        one.disconnect()
        two.disconnect()


class TestFaults:
    """With a made-up PortAudio."""

    def test_blocks_without_room_are_dropped_and_counted(self, sd: FakeSounddevice) -> None:
        clock = ManualClock(START_NS)
        driver = build(clock, queue_s=0.06)
        driver.connect()
        give(sd, clock, range(5))
        assert [(s.seq, s.lost) for s in drain(driver)] == [(0, 0), (320, 0), (640, 0)]
        give(sd, clock, range(5, 7))
        late, last = drain(driver)
        driver.disconnect()
        assert (late.seq, late.lost, last.seq, last.lost) == (1600, 640, 1920, 0)
        assert late.t_ns[0] == START_NS + 100 * MS
        assert late.data[0, 0] == 5

    def test_the_memory_is_ours(self, sd: FakeSounddevice) -> None:
        driver = build(ManualClock(START_NS))
        driver.connect()
        assert sd.stream is not None
        sound = np.arange(-160, 160, dtype=np.int16)[:, np.newaxis]
        sd.stream.give(sound)
        (sample,) = driver.read(0)
        np.testing.assert_array_equal(sample.data, sound)
        driver.disconnect()

    @pytest.mark.parametrize(("gap_ms", "lost"), [(0, 1), (10, 160), (1000, 16000)])
    def test_an_overflow_is_as_long_as_the_clock_says(
        self, sd: FakeSounddevice, gap_ms: int, lost: int
    ) -> None:
        clock = ManualClock(START_NS)
        driver = build(clock)
        driver.connect()
        give(sd, clock, range(2))
        clock.advance_to_ns(clock.now_ns() + gap_ms * MS)
        give(sd, clock, [2], overflow=True)
        _, before, after = drain(driver)
        driver.disconnect()
        assert (after.lost, after.seq) == (lost, before.seq + 320 + lost)
        assert after.t_ns[0] == START_NS + (40 + gap_ms) * MS

    def test_the_epoch_of_portaudio_does_not_matter(self, sd: FakeSounddevice) -> None:
        for epoch_s in (0.5, 1.7e9):
            clock = ManualClock(START_NS)
            driver = build(clock)
            driver.connect()
            assert sd.stream is not None
            clock.advance_to_ns(START_NS + 100 * MS)
            sd.stream.give(np.zeros((320, 1), np.int16), epoch_s + 0.03, epoch_s + 0.1)
            (sample,) = driver.read(0)
            driver.disconnect()
            assert abs(sample.t_ns[0] - (START_NS + 30 * MS)) < 1000

    def test_without_a_capture_time_it_is_a_block_before_arrival(self, sd: FakeSounddevice) -> None:
        clock = ManualClock(START_NS + NS_PER_S)
        driver = build(clock)
        driver.connect()
        assert sd.stream is not None
        sd.stream.give(np.zeros((320, 1), np.int16), 0.0, 1.7e9)
        (sample,) = driver.read(0)
        driver.disconnect()
        assert sample.t_ns[0] == START_NS + 980 * MS

    @pytest.mark.parametrize("when", ["refuse_open", "refuse_start"])
    @pytest.mark.parametrize(("code", "error"), [(-9985, DeviceBusy), (-9997, DeviceNotFound)])
    def test_what_portaudio_refuses(
        self, sd: FakeSounddevice, when: str, code: int, error: type[Exception]
    ) -> None:
        setattr(sd, when, sd.PortAudioError("Error starting stream: why not", code))
        driver = build(channels=2)
        with pytest.raises(error, match=r"rate_hz 16000, channels 2: Error starting .*: why n"):
            driver.connect()
        assert sd.held == 0
        setattr(sd, when, None)
        driver.connect()
        driver.disconnect()
        assert sd.held == 0

    def test_devices_are_looked_for_anew_unless_that_would_end_a_stream(
        self, sd: FakeSounddevice
    ) -> None:
        one, two = build(), build()
        one.connect()
        two.connect()
        assert (sd.starts, sd.held) == (1, 2)
        one.disconnect()
        two.disconnect()
        one.connect()
        one.disconnect()
        assert (sd.starts, sd.held) == (2, 0)

    def test_no_portaudio(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("_sounddevice", reason="needs pip install 'sensebind[microphone]'")
        monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
        monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
        with pytest.raises(ConfigError, match=r"PortAudio .* apt-get install libportaudio2"):
            build().connect()


def give(sd: FakeSounddevice, clock: ManualClock, numbers: Any, overflow: bool = False) -> None:
    """Blocks of 20 ms at 16 kHz, each filled with its number, as they come from a device."""
    assert sd.stream is not None
    for number in numbers:
        clock.advance_to_ns(clock.now_ns() + 20 * MS)
        now_s = 7 + to_s(clock.now_ns() - START_NS)
        sd.stream.give(np.full((320, 1), number, np.int16), now_s - 0.02, now_s, overflow)


jitters = st.lists(st.integers(0, 100 * MS), min_size=2, max_size=60)


class TestTimeline:
    @given(jitters, st.sampled_from([8000, 11025, 16000, 44100, 48000]), st.integers(1, 5000))
    def test_stamps_are_in_order_not_after_arrival_and_no_worse_than_measured(
        self, jitter_ns: list[int], rate_hz: int, count: int
    ) -> None:
        line = AudioTimeline(rate_hz)
        last_ns = 0
        for number, late_ns in enumerate(jitter_ns):
            ticks = np.arange(number * count, (number + 1) * count)
            exact_ns = START_NS + ticks * NS_PER_S // rate_hz
            arrival_ns = int(exact_ns[-1]) + 5 * MS
            t_ns, lost = line.stamp(count, int(exact_ns[0]) + late_ns, arrival_ns, 0, False)
            assert lost == 0
            assert t_ns[0] >= last_ns
            assert (np.diff(t_ns) >= 0).all()
            assert t_ns[-1] <= arrival_ns
            # Each block rounds to a nanosecond, and each rounding is drawn back.
            assert (t_ns - exact_ns).min() >= -100
            assert (t_ns - exact_ns).max() <= max(jitter_ns) + 100
            last_ns = int(t_ns[-1])

    @settings(max_examples=15, deadline=None)
    @given(st.integers(-300, 300))
    def test_a_crystal_that_is_off_is_followed(self, drift_ppm: int) -> None:
        line = AudioTimeline(16000)
        for number in range(2000):
            first_ns = START_NS + round(number * 20 * MS * (1 + drift_ppm * 1e-6))
            t_ns, lost = line.stamp(320, first_ns, first_ns + 50 * MS, 0, False)
            assert lost == 0
            assert abs(int(t_ns[0]) - first_ns) < MS // 2

    @given(st.integers(0, 5000), st.sampled_from([8000, 16000, 44100]))
    def test_dropped_ticks_are_a_gap_of_their_length(self, dropped: int, rate_hz: int) -> None:
        line = AudioTimeline(rate_hz)
        for n in range(60):
            first_ns = START_NS + round(100 * n * NS_PER_S / rate_hz)
            before, _ = line.stamp(100, first_ns, first_ns + NS_PER_S, 0, False)
        gap_ns = round((dropped + 1) * NS_PER_S / rate_hz)
        measured_ns = int(before[-1]) + gap_ns + 9 * MS
        after, lost = line.stamp(100, measured_ns, measured_ns + NS_PER_S, dropped, False)
        assert lost == dropped
        assert abs(int(after[0]) - int(before[-1]) - gap_ns - 9 * MS / 50) < 100

    @given(st.integers(0, 50 * MS))
    def test_a_wrong_first_reading_is_made_up_for_within_a_second(self, wrong_ns: int) -> None:
        """PulseAudio's is up to 50 ms out; a fiftieth of it a block would take three seconds."""
        line = AudioTimeline(16000)
        for n in range(50):
            true_ns = START_NS + 20 * MS * n
            said_ns = true_ns - (0 if n else wrong_ns)
            t_ns, lost = line.stamp(320, said_ns, true_ns + NS_PER_S, 0, False)
            assert lost == 0
        assert abs(int(t_ns[0]) - true_ns) < 2 * MS

    @given(st.integers(-3 * NS_PER_S, 3 * NS_PER_S))
    def test_a_jump_is_a_gap_forwards_and_never_goes_back(self, jump_ns: int) -> None:
        line = AudioTimeline(16000)
        before, _ = line.stamp(320, START_NS, START_NS + NS_PER_S, 0, False)
        expected_ns = START_NS + 20 * MS
        after, lost = line.stamp(320, expected_ns + jump_ns, expected_ns + 9 * NS_PER_S, 0, False)
        assert after[0] >= before[-1]
        if jump_ns > MAX_ERROR_NS:
            assert lost == round(jump_ns * 16000 / NS_PER_S)
            assert after[0] == expected_ns + jump_ns
        else:
            assert lost == 0


class TestConfig:
    def test_defaults(self) -> None:
        config = msgspec.convert({"device": "default"}, MicrophoneConfig)
        assert (config.rate_hz, config.channels, config.block_s) == (None, 1, 0.02)

    @pytest.mark.parametrize(
        "fields", [{"device": ""}, {"channels": 0}, {"rate_hz": 0}, {"block_s": 0}, {"gain": 2}]
    )
    def test_what_may_not_be(self, fields: dict[str, Any]) -> None:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(fields, MicrophoneConfig)
