"""Readings of an inertial sensor as blocks of ticks: numbered, stamped, cut where some are lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from agent.clock import NS_PER_S
from agent.types import Int64Array, Sample, StreamInfo
from drivers._imu.orientation import Orientation
from drivers.imu_protocols import Decoder, Reading

__all__ = ["ReadingBlocks"]

# No sensor measures as much (m/s^2, rad/s), and float32 holds it.
MAX_VALUE = 1e6
# A counter that jumps further has started again: a device was reset, and nothing is known lost.
MAX_GAP_S = 10.0


class ReadingBlocks:
    """From connect to disconnect. not_before_ns: no stamp is earlier; `newest_ns` is the last one.

    orientation: where given, its block follows each of the readings.
    """

    def __init__(
        self,
        info: StreamInfo,
        rate_hz: float,
        decoder: Decoder,
        not_before_ns: int,
        orientation: Orientation | None,
    ) -> None:
        self.newest_ns = not_before_ns
        self._info, self._decoder, self._orientation = info, decoder, orientation
        self._step_ns = NS_PER_S / rate_hz
        self._max_gap = math.ceil(MAX_GAP_S * rate_hz)
        self._next_seq = 0
        self._lost = 0  # unusable readings since the last good one
        self._last_count: int | None = None
        self._device_ns: int | None = None

    def samples(self, readings: Sequence[Reading], arrival_ns: int) -> list[Sample]:
        """Blocks without gaps; a reading that cannot be is a lost one."""
        seqs: list[int] = []
        device: list[int] = []
        rows: list[tuple[float, ...]] = []
        starts: list[tuple[int, int]] = []
        on_device = self._info.clock == "device"
        for reading in readings:
            lost = self._missing(reading)
            usable = all(abs(v) <= MAX_VALUE for v in reading.values)
            if not usable or (reading.device_ns is None) == on_device:
                self._lost += lost + 1
                continue
            lost, self._lost = lost + self._lost, 0
            self._next_seq += lost
            if lost or not rows:
                starts.append((len(rows), lost))
            seqs.append(self._next_seq)
            self._next_seq += 1
            rows.append(reading.values)
            if reading.device_ns is not None:
                device.append(self._unwrapped(reading.device_ns))
        if not rows:
            return []
        data = np.array(rows, np.float32)
        t_ns = self._stamps(np.array(seqs, np.int64), arrival_ns)
        device_t_ns = np.array(device, np.int64) if device else None
        samples = []
        for (a, lost), (b, _) in pairwise([*starts, (len(rows), 0)]):
            own_ns = None if device_t_ns is None else device_t_ns[a:b]
            block = Sample(self._info, seqs[a], t_ns[a:b], arrival_ns, data[a:b], own_ns, lost)
            samples.append(block)
            if self._orientation is not None:
                samples.append(self._orientation.follow(block))
        return samples

    def _stamps(self, seqs: Int64Array, arrival_ns: int) -> Int64Array:
        back_ns = np.rint((seqs[-1] - seqs) * self._step_ns).astype(np.int64)
        t_ns: Int64Array = np.maximum(arrival_ns - back_ns, self.newest_ns)
        self.newest_ns = int(t_ns[-1])
        return t_ns

    def _missing(self, reading: Reading) -> int:
        """Readings between the last one and this, as far as they are numbered."""
        last, self._last_count = self._last_count, reading.count
        modulo = self._decoder.count_modulo
        if last is None or reading.count is None or modulo is None:
            return 0
        missing = (reading.count - last - 1) % modulo
        # The same number again leaves all others missing, as does a counter begun anew.
        return missing if missing < min(modulo - 1, self._max_gap) else 0

    def _unwrapped(self, raw_ns: int) -> int:
        """The device's stamp without its wraps: less than half a turn from the one before."""
        modulo, last = self._decoder.time_modulo_ns, self._device_ns
        if last is not None and modulo is not None:
            raw_ns = last + (raw_ns - last + modulo // 2) % modulo - modulo // 2
        self._device_ns = raw_ns
        return raw_ns
