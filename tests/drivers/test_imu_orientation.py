"""The stream of orientation: real imufusion, on motions of which the truth is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import SystemClock
from agent.types import Array, Sample, StreamInfo
from drivers.imu import PLUGIN, ImuConfig
from tests.contracts.driver_contract import by_stream, read_all
from tests.fakes.imu_messages import TEXT_CSV, at_rate
from tests.fakes.serial_device import SerialDevice

pytest.importorskip("imufusion", reason="needs pip install 'sensebind[imu]'")
pytest.importorskip("serial", reason="needs pip install 'sensebind[imu]'")

from drivers._imu.orientation import Orientation

G = 9.80665
UPRIGHT = (0.0, 0.0, G)
IMU = StreamInfo("body", "imu", "float32", (6,), rate_hz=100, unit="m/s^2,rad/s")


def block(data: Array, seq: int = 0, lost: int = 0, device_ns: Array | None = None) -> Sample:
    t_ns = (seq + np.arange(len(data))) * 10_000_000
    return Sample(IMU, seq, t_ns, int(t_ns[-1]), data.astype(np.float32), device_ns, lost)


def ticks(
    count: int, acceleration: tuple[float, ...] = UPRIGHT, rate: tuple[float, ...] = (0, 0, 0)
) -> Array:
    return np.tile([*acceleration, *rate], (count, 1))


def matrix(quaternion: Array) -> Array:
    """Sensor to Earth, by the textbook; imufusion has one too, and this is to check it."""
    w, x, y, z = map(float, quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


class TestTruth:
    @pytest.mark.parametrize("rate_hz", [100, 1000])
    def test_a_constant_turn_about_the_vertical_is_integrated(self, rate_hz: int) -> None:
        orientation = Orientation(replace(IMU, rate_hz=rate_hz))
        yaw_rate = np.deg2rad(90.0)
        sample = orientation.follow(block(ticks(2 * rate_hz + 1, rate=(0, 0, yaw_rate))))
        for at_s, wanted_deg in ((0.5, 45), (1, 90), (2, 180)):
            turned = matrix(sample.data[round(at_s * rate_hz)]) @ [1.0, 0.0, 0.0]
            wanted = np.deg2rad(wanted_deg)
            # Counter-clockwise seen from above: from x towards y.
            np.testing.assert_allclose(turned, [np.cos(wanted), np.sin(wanted), 0], atol=0.002)

    @given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1))
    @settings(deadline=None)
    def test_gravity_is_upright_from_the_first_tick_on(
        self, direction: tuple[float, float, float]
    ) -> None:
        up = np.array(direction) / np.linalg.norm(direction)
        sample = Orientation(IMU).follow(block(ticks(50, tuple(G * up))))
        for quaternion in sample.data:
            np.testing.assert_allclose(matrix(quaternion) @ up, [0, 0, 1], atol=0.002)

    def test_a_turn_about_a_tilted_axis_keeps_gravity_upright(self) -> None:
        # Nodding by 60 degrees and back in 2 s; the accelerometer sees gravity alone.
        t = np.arange(201) / 100
        angle = np.deg2rad(30) * (1 - np.cos(np.pi * t))
        rate = np.deg2rad(30) * np.pi * np.sin(np.pi * t)
        data = np.zeros((len(t), 6))
        data[:, 1], data[:, 2], data[:, 3] = G * np.sin(angle), G * np.cos(angle), rate
        sample = Orientation(IMU).follow(block(data))
        for quaternion, wanted in zip(sample.data, angle, strict=True):
            got = 2 * np.arctan2(quaternion[1], quaternion[0])
            # A step's turn is 0.94 degrees at most, and it is taken at the rate of the step's end.
            assert abs(got - wanted) < np.deg2rad(0.94)

    @given(st.integers(0, 2**32 - 1), st.integers(1, 300))
    @settings(deadline=None, max_examples=30)
    def test_any_motion_gives_unit_quaternions(self, seed: int, count: int) -> None:
        data = np.random.default_rng(seed).normal(0, 20, (count, 6))
        sample = Orientation(IMU).follow(block(data))
        assert np.all(np.isfinite(sample.data))
        np.testing.assert_allclose(np.linalg.norm(sample.data, axis=1), 1, atol=1e-6)

    def test_free_fall_from_the_start(self) -> None:
        sample = Orientation(IMU).follow(block(ticks(2, (0.0, 0.0, 0.0))))
        np.testing.assert_array_equal(sample.data[0], [1, 0, 0, 0])


class TestTime:
    def test_the_devices_clock_goes_before_the_nominal_rate(self) -> None:
        # Set to 50 Hz where the config says 100: half a turn and not a quarter.
        orientation = Orientation(IMU)
        device_ns = np.arange(101) * 20_000_000
        sample = orientation.follow(block(ticks(101, rate=(0, 0, np.pi / 2)), device_ns=device_ns))
        turned = matrix(sample.data[-1]) @ [1.0, 0.0, 0.0]
        np.testing.assert_allclose(turned, [-1, 0, 0], atol=0.005)

    def test_a_clock_that_is_coarser_than_the_rate(self) -> None:
        device_ns = np.arange(101) // 2 * 20_000_000  # two ticks with each stamp
        sample = Orientation(IMU).follow(
            block(ticks(101, rate=(0, 0, np.pi / 2)), device_ns=device_ns)
        )
        turned = matrix(sample.data[-1]) @ [1.0, 0.0, 0.0]
        np.testing.assert_allclose(turned, [0, 1, 0], atol=0.03)

    def test_a_few_that_are_lost_are_bridged_and_many_begin_anew(self) -> None:
        orientation = Orientation(IMU)
        turning = ticks(51, rate=(0, 0, np.pi / 2))
        orientation.follow(block(turning))
        bridged = orientation.follow(block(turning[:1], seq=101, lost=50))
        np.testing.assert_allclose(matrix(bridged.data[0]) @ [1, 0, 0], [0, 1, 0], atol=0.03)
        anew = orientation.follow(block(turning[:1], seq=300, lost=198))
        np.testing.assert_array_equal(anew.data[0], [1, 0, 0, 0])


class TestStream:
    @pytest.mark.parametrize("protocol", ["csv", "witmotion"])
    def test_it_goes_beside_the_readings(self, tmp_path: Path, protocol: str) -> None:
        device = SerialDevice(tmp_path / "imu", at_rate(protocol, 200), 200)
        device.plug()
        fields: dict[str, Any] = {"port": str(device.path), "protocol": protocol, "rate_hz": 200}
        fields["text"] = TEXT_CSV if protocol == "csv" else None
        config = msgspec.convert(fields | {"orientation": True}, ImuConfig)
        driver = PLUGIN("body", config, SystemClock())
        try:
            driver.connect()
            imu, orientation = driver.streams
            streams = by_stream(list(read_all(driver, 20)))
        finally:
            driver.disconnect()
            device.unplug()
        assert (orientation.name, orientation.modality) == ("body_orientation", "orientation")
        assert (orientation.shape, orientation.dtype) == ((4,), "float32")
        assert (orientation.channels, orientation.unit) == (("w", "x", "y", "z"), "quaternion")
        assert (orientation.rate_hz, orientation.clock) == (imu.rate_hz, imu.clock)
        for reading, turn in zip(streams["body"], streams["body_orientation"], strict=True):
            assert (turn.seq, turn.lost, turn.arrival_ns, len(turn)) == (
                reading.seq,
                reading.lost,
                reading.arrival_ns,
                len(reading),
            )
            np.testing.assert_array_equal(turn.t_ns, reading.t_ns)
