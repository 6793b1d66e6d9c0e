"""What the RealSense driver makes of readings and depths, without the SDK."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers._realsense.frames import Millimetres
from drivers._realsense.imu import MAX_GAP_NS, ImuMerger, Reading
from tests.fakes.realsense_driver import MS


def reading(t_ms: float, *values: float, lost: int = 0) -> Reading:
    return Reading(round(t_ms * MS), round(t_ms * MS), np.array(values, np.float32), lost)


class TestMerging:
    @given(
        accel=st.sets(st.integers(0, 400), min_size=1),
        gyro=st.sets(st.integers(0, 400)),
        late=st.integers(0, 60),
    )
    def test_each_gyroscope_reading_is_told_once_or_counted(
        self, accel: set[int], gyro: set[int], late: int
    ) -> None:
        merger = ImuMerger()
        told: list[Reading] = []
        queue = [(t + late, "accel", t) for t in accel] + [(t, "gyro", t) for t in gyro]
        for _, kind, t in sorted(queue):
            if kind == "accel":
                told += merger.add_accel(reading(t, t, 0, 0))
            else:
                told += merger.add_gyro(reading(t, 0, t, 0))
        told += merger.flush()
        stamps = [r.device_ns // MS for r in told]
        assert stamps == sorted(set(stamps))
        assert set(stamps) <= gyro
        missing = sorted(gyro - set(stamps))
        assert sum(r.lost for r in told) == len([t for t in missing if t < max(stamps, default=0)])
        first, last = min(accel), max(accel)
        for r in told:
            t = r.device_ns / MS
            assert r.values[4] == t
            near = [a for a in accel if abs(a - t) <= MAX_GAP_NS / MS]
            assert near
            if first <= t <= last and len(near) == len(accel) and late == 0:
                assert r.values[0] == pytest.approx(t, abs=1e-3)

    def test_a_silent_accelerometer_costs_readings_and_no_memory(self) -> None:
        merger = ImuMerger()
        told = merger.add_accel(reading(0, 1, 2, 3))
        for t in range(0, 5000, 5):
            told += merger.add_gyro(reading(t, 0, 0, 0))
        assert [r.device_ns // MS for r in told] == list(range(0, 251, 5))
        told = merger.add_accel(reading(5000, 4, 5, 6))
        assert [r.device_ns // MS for r in told] == list(range(4750, 5000, 5))
        assert told[0].lost == (4750 - 255) // 5

    def test_a_clock_that_is_set_back_does_not_mix_times(self) -> None:
        merger = ImuMerger()
        merger.add_accel(reading(9000, 9, 9, 9))
        merger.add_accel(reading(10, 1, 1, 1))
        merger.add_gyro(reading(15, 0, 0, 0))
        (told,) = merger.add_accel(reading(20, 3, 3, 3))
        assert told.values[0] == 2


@given(units=st.sampled_from([0.001, 0.0001, 0.00025, 0.0005, 0.002]), raw=st.integers(0, 65535))
def test_a_depth_is_its_count_times_the_unit(units: float, raw: int) -> None:
    stored = float(np.float32(units))  # as the SDK tells it
    (got,) = Millimetres()(np.array([raw], np.uint16), stored)
    mm = round(raw * units * 1000)
    assert got == (0 if mm > 65535 else pytest.approx(mm, abs=0 if units == 0.001 else 1))
