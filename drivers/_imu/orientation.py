"""Orientation from angular rate and gravity, by imufusion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from agent.clock import NS_PER_S, from_s
from agent.extras import needs_extra
from agent.types import Array, Int64Array, Sample, StreamInfo
from drivers.imu_protocols import DEGREE, STANDARD_GRAVITY

if TYPE_CHECKING:
    import imufusion

__all__ = ["Orientation"]

# What happened in a longer gap nobody knows: it begins anew from gravity.
MAX_GAP_S = 1.0


class Orientation:
    """One more stream beside an `imu`: modality `orientation`, float32 (4,), a quaternion w x y z.

    It has length 1 and turns a vector from the sensor's axes to the Earth's: x y z with z up, and
    x where the sensor's x axis pointed at the start, seen from above (without a magnetometer there
    is no north, and that heading drifts with the gyroscope's bias). The first tick's tilt is that
    of its acceleration; from then on it is the complementary filter of S. Madgwick, "AHRS
    algorithms and calibration solutions to facilitate new applications using low-cost MEMS" (PhD
    thesis, Bristol 2014), chapter 7, with imufusion's own settings.

    Raises ConfigError without imufusion.
    """

    def __init__(self, imu: StreamInfo) -> None:
        with needs_extra("imu"):
            import imufusion
        self._filter: imufusion.Ahrs = imufusion.Ahrs()
        self._step_ns = NS_PER_S / (imu.rate_hz or 1.0)
        self._newest_ns: int | None = None
        self.info = replace(
            imu,
            name=f"{imu.name}_orientation",
            modality="orientation",
            shape=(4,),
            unit="quaternion",
            channels=("w", "x", "y", "z"),
        )

    def follow(self, sample: Sample) -> Sample:
        """The orientation at each tick of `sample`, the next block of the `imu` stream."""
        accelerations_g = sample.data[:, :3].astype(np.float64) / STANDARD_GRAVITY
        rates_dps = sample.data[:, 3:].astype(np.float64) / DEGREE
        data = np.empty((len(sample), 4), np.float32)
        periods_ns = self._periods_ns(sample).tolist()
        for n, period_ns in enumerate(periods_ns):
            if not 0 <= period_ns <= from_s(MAX_GAP_S):
                self._align(accelerations_g[n])
            elif period_ns:  # 0 where the device's clock is coarser than its rate
                self._filter.set_sample_period(period_ns / NS_PER_S)
                self._filter.update_no_magnetometer(rates_dps[n], accelerations_g[n])
            data[n] = self._filter.get_quaternion()
        data /= np.linalg.norm(data, axis=1, keepdims=True)
        return replace(sample, stream=self.info, data=data)

    def _periods_ns(self, sample: Sample) -> Int64Array:
        """From the tick before to each: by the device's clock, else by the nominal rate; -1 first.

        Arrivals are no measure: they jitter by more than a period.
        """
        times_ns = sample.device_t_ns
        if times_ns is None:
            seqs = sample.seq + np.arange(len(sample))
            times_ns = np.rint(seqs * self._step_ns).astype(np.int64)
        before_ns = int(times_ns[0]) + 1 if self._newest_ns is None else self._newest_ns
        self._newest_ns = int(times_ns[-1])
        periods_ns: Int64Array = np.diff(times_ns, prepend=before_ns)
        return periods_ns

    def _align(self, acceleration_g: Array) -> None:
        """Begin with the least turn that brings the acceleration, which is gravity's, upright."""
        self._filter.restart()
        self._filter.skip_startup()  # 3 s in which it would hold the heading at 0
        length = float(np.linalg.norm(acceleration_g))
        if not length:
            return
        x, y, z = acceleration_g / length
        quaternion = np.array([1 + z, y, -x, 0.0])
        if 1 + z < 1e-6:
            quaternion = np.array([0.0, 1.0, 0.0, 0.0])  # upside down: any half turn will do
        self._filter.set_quaternion(quaternion / np.linalg.norm(quaternion))
