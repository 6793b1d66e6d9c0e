"""The synthetic driver: its patterns, its time line, its faults."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import NS_PER_S, Clock, ManualClock
from agent.contracts import Driver
from agent.errors import DeviceLost, EndOfStream, ReadTimeout
from agent.types import Sample
from drivers.synthetic import PLUGIN, SyntheticConfig, SyntheticDriver
from tests.contracts.driver_contract import START_NS, DriverContract, by_stream, read_all

ALL = {
    "camera": {"modality": "image", "size": [64, 48]},
    "grey": {"modality": "image", "size": [64, 48], "channels": 1, "rate_hz": 15},
    "depth": {"modality": "depth", "size": [64, 48]},
    "thermal": {"modality": "thermal"},
    "microphone": {"modality": "audio"},
    "imu": {"modality": "imu"},
    "gas": {"modality": "gas", "channels": 3},
}


def build(streams: dict[str, Any], clock: Clock | None = None, **fields: Any) -> SyntheticDriver:
    config = msgspec.convert({"streams": streams, **fields}, SyntheticConfig)
    return PLUGIN("test", config, clock or ManualClock(START_NS))


def play(streams: dict[str, Any], **fields: Any) -> list[Sample]:
    driver = build(streams, speed=0, **fields)
    driver.connect()
    return list(read_all(driver, 100_000))


class TestPaced(DriverContract):
    @pytest.fixture
    def make_driver(self, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(ALL, clock, duration_s=1.5)


class TestUnpaced(DriverContract):
    @pytest.fixture
    def make_driver(self, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(ALL, clock, duration_s=1.5, speed=0)


class TestWithFaults(DriverContract):
    @pytest.fixture
    def make_driver(self, clock: Clock) -> Callable[[], Driver]:
        return lambda: build(ALL, clock, duration_s=2, jitter_ms=80, drop_every=3, seed=5)


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "rate_hz", "unit"),
    [
        ("camera", "uint8", (48, 64, 3), 30, "rgb8"),
        ("grey", "uint8", (48, 64), 15, "mono8"),
        ("depth", "uint16", (48, 64), 30, "mm"),
        ("thermal", "uint16", (120, 160), 9, "counts"),
        ("microphone", "int16", (1,), 16000, "full_scale"),
        ("imu", "float32", (6,), 100, "m/s^2,rad/s"),
        ("gas", "float32", (3,), 10, ""),
    ],
)
def test_streams_are_what_the_kernel_expects_of_their_sense(
    name: str, dtype: str, shape: tuple[int, ...], rate_hz: float, unit: str
) -> None:
    info = {i.name: i for i in build(ALL).streams}[name]
    assert (info.dtype, info.shape, info.rate_hz, info.unit) == (dtype, shape, rate_hz, unit)


def test_number_of_ticks_is_rate_times_duration() -> None:
    ticks = {n: sum(map(len, b)) for n, b in by_stream(play(ALL, duration_s=1.01)).items()}
    assert ticks == {
        "camera": 31,
        "grey": 16,
        "depth": 31,
        "thermal": 10,
        "microphone": 16160,
        "imu": 101,
        "gas": 11,
    }


@settings(max_examples=30, deadline=None)
@given(
    rate_hz=st.sampled_from([0.5, 9, 25, 29.97, 30000 / 1001, 59.94, 100, 441.1]),
    speed=st.sampled_from([0.25, 1, 1.1, 4]),
)
def test_stamps_are_exact_and_do_not_drift(rate_hz: float, speed: float) -> None:
    clock = ManualClock(START_NS)
    driver = build({"gas": {"modality": "gas", "rate_hz": rate_hz}}, clock, speed=speed)
    driver.connect()
    samples = list(read_all(driver, 400))
    rate = Fraction(rate_hz).limit_denominator(1001) * Fraction(speed).limit_denominator(1000)
    for sample in samples:
        for k, t_ns in enumerate(sample.t_ns.tolist()):
            exact_ns = START_NS + (sample.seq + k) * NS_PER_S / rate
            assert exact_ns - 1 < t_ns <= exact_ns
        assert sample.arrival_ns >= sample.t_ns[-1]


def test_the_same_seed_gives_the_same_bits_however_it_is_read() -> None:
    one = by_stream(play(ALL, duration_s=1.3, seed=7))
    clock = ManualClock(START_NS)
    driver = build(ALL, clock, duration_s=1.3, seed=7)
    driver.connect()
    paced: list[Sample] = []
    while True:
        clock.advance_to_ns(clock.now_ns() + 170_000_000)  # a slow reader gets several at once
        try:
            paced += driver.read(0)
        except ReadTimeout:
            continue
        except EndOfStream:
            break
    two = by_stream(paced)
    assert one.keys() == two.keys()
    for name in one:
        for a, b in zip(one[name], two[name], strict=True):
            assert (a.seq, a.data.tobytes()) == (b.seq, b.data.tobytes())
            np.testing.assert_array_equal(a.t_ns, b.t_ns)


def test_another_seed_or_name_gives_other_bits() -> None:
    def first(name: str, seed: int) -> bytes:
        return play({name: {"modality": "audio"}}, duration_s=0.1, seed=seed)[0].data.tobytes()

    assert len({first("a", 1), first("a", 2), first("b", 1)}) == 3


def test_a_late_reader_gets_a_bounded_number_of_blocks_at_once() -> None:
    clock = ManualClock(START_NS)
    driver = build({"imu": {"modality": "imu"}}, clock)
    driver.connect()
    clock.advance_to_ns(START_NS + 10 * NS_PER_S)
    assert [len(driver.read(0)) for _ in range(2)] == [64, 64]


class TestPatterns:
    """What an event looks like in each sense. Events: 1 s to 1.25 s."""

    def ticks(self, modality: str, **fields: Any) -> tuple[np.ndarray, np.ndarray]:
        """Data of the two seconds, and whether the event is on, for each tick."""
        blocks = play({"x": {"modality": modality, **fields}}, duration_s=2)
        t_s = np.concatenate([b.t_ns for b in blocks]) - START_NS
        on = (t_s >= NS_PER_S - 2) & (t_s < 1.25 * NS_PER_S - 2)
        return np.concatenate([b.data for b in blocks]).astype(float), on

    def test_every_picture_differs_from_the_one_before(self) -> None:
        for modality in ("image", "depth", "thermal"):
            data, _ = self.ticks(modality)
            assert (np.abs(np.diff(data, axis=0)).reshape(len(data) - 1, -1).max(1) > 0).all()

    def test_image_shows_red(self) -> None:
        data, on = self.ticks("image", size=[64, 48])
        red = ((data[..., 0] == 255) & (data[..., 1] == 32)).any((1, 2))
        np.testing.assert_array_equal(red, on)

    def test_depth_comes_near_and_has_holes(self) -> None:
        data, on = self.ticks("depth", size=[64, 48])
        nearest = np.where(data > 0, data, np.inf).min((1, 2))
        np.testing.assert_array_equal(nearest, np.where(on, 500, 1200))
        assert 0.01 < (data == 0).mean() < 0.1

    def test_thermal_grows_hot(self) -> None:
        data, on = self.ticks("thermal")
        celsius = data.max((1, 2)) / 100 - 273.15
        assert (celsius[on] > 75).all()
        assert (celsius[~on] < 35).all()

    def test_audio_has_a_1_khz_tone_over_a_quiet_floor(self) -> None:
        data, on = self.ticks("audio")
        assert data[~on].std() == pytest.approx(30, rel=0.05)
        spectrum = np.abs(np.fft.rfft(data[on, 0]))
        assert np.fft.rfftfreq(int(on.sum()), 1 / 16000)[spectrum.argmax()] == 1000

    def test_imu_feels_gravity_and_is_shaken(self) -> None:
        data, on = self.ticks("imu")
        force = np.linalg.norm(data[:, :3], axis=1)
        assert np.abs(force[~on] - 9.80665).max() < 0.2
        assert np.abs(data[on, 3:]).max() > 1 > np.abs(data[~on, 3:]).max()

    def test_other_senses_wave_higher(self) -> None:
        data, on = self.ticks("gas", channels=4, rate_hz=50)
        assert np.abs(data[~on]).max() <= 1 < np.abs(data[on]).max() <= 3

    def test_events_can_be_left_out_and_placed(self) -> None:
        loud = [
            [float(np.abs(b.data).max()) > 1000 for b in play(config, duration_s=1)]
            for config in (
                {"x": {"modality": "audio", "events": []}},
                {"x": {"modality": "audio", "events": [{"at_s": 0.5, "for_s": 0.1}]}},
            )
        ]
        assert sum(loud[0]) == 0
        assert [i for i, is_loud in enumerate(loud[1]) if is_loud] == [25, 26, 27, 28, 29]


class TestFaults:
    def test_dropped_blocks_are_counted_as_lost(self) -> None:
        blocks = play({"x": {"modality": "audio"}}, duration_s=1, drop_every=5)
        assert len(blocks) == 40
        assert {b.lost for b in blocks} == {0, 320}
        assert blocks[-1].seq + len(blocks[-1]) + 320 == 16000  # the very last one is dropped too

    def test_jitter_delays_arrival_and_never_the_stamp(self) -> None:
        on_time = play({"x": {"modality": "imu"}}, duration_s=5)
        late = play({"x": {"modality": "imu"}}, duration_s=5, jitter_ms=4)
        delays = [b.arrival_ns - int(b.t_ns[-1]) for b in late]
        assert min(delays) >= 0
        assert 3_000_000 < max(delays) <= 4_000_000
        np.testing.assert_array_equal([b.t_ns for b in on_time], [b.t_ns for b in late])

    def test_a_frozen_stream_repeats_its_block_and_its_stamps_go_on(self) -> None:
        blocks = play(
            {"x": {"modality": "image", "size": [64, 48]}}, duration_s=2, freeze_after_s=1
        )
        frames = [b.data.tobytes() for b in blocks]
        assert len(set(frames[:31])) == 31
        assert set(frames[30:]) == {frames[30]}
        assert all(np.diff([b.t_ns[0] for b in blocks]) > 0)

    def test_the_device_is_lost_once_and_comes_back(self) -> None:
        driver = build({"x": {"modality": "imu"}}, fail_after_s=0.5, duration_s=1)
        driver.connect()
        before = [driver.read(1)[0] for _ in range(50)]
        assert before[-1].seq == 49
        with pytest.raises(DeviceLost, match=r"lost on purpose after 0\.5 s"):
            driver.read(1)
        with pytest.raises(DeviceLost, match="not connected"):
            driver.read(1)
        driver.disconnect()
        driver.connect()
        after = list(read_all(driver, 1000))
        assert sum(map(len, after)) == 100


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ({"modality": "image", "channels": 4}, "channels: got 4, expected 3 or 1 for image"),
        ({"modality": "audio", "size": [64, 48]}, "size: a stream of audio has no pictures"),
        ({"modality": "image", "rate_hz": 0}, "rate_hz"),
        ({"modality": "image", "size": [2, 48]}, "size"),
        ({"modality": "Image"}, "modality"),
        ({"modality": "imu", "events": [{"at_s": -1}]}, "at_s"),
        ({"modality": "imu", "colour": 1}, "colour"),
    ],
)
def test_bad_config_is_refused_before_anything_runs(stream: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        build({"x": stream})


def test_a_config_without_streams_or_with_a_bad_name_is_refused() -> None:
    for streams in ({}, {"Front Camera": {"modality": "image"}}):
        with pytest.raises(msgspec.ValidationError):
            build(streams)
