"""Sound at another rate, block by block, with the time of each tick that comes out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import soxr

from agent.types import Array, Int64Array
from drivers._pacing import ticks_ns

__all__ = ["Resampler"]


class Resampler:
    """int16 (n, channels) of one rate to another, by soxr at its quality HQ.

    soxr holds ticks back (up to 40 ms at 16 kHz, as it works in blocks) and does not shift them:
    tick k that comes out belongs to k / rate_out_hz from the first that went in, so stamps need no
    correction for its delay. A gap ends the sound before it: see `flush`.
    """

    def __init__(self, rate_in_hz: int, rate_out_hz: int, channels: int) -> None:
        self._soxr = soxr.ResampleStream(rate_in_hz, rate_out_hz, channels, dtype="int16")
        self._empty = np.empty((0, channels), np.int16)
        self._in_ns = Fraction(1_000_000_000, rate_in_hz)
        self._out_ns = Fraction(1_000_000_000, rate_out_hz)
        self._ratio = Fraction(rate_out_hz, rate_in_hz)
        self._taken = self._given = 0
        self._end_ns = 0

    def lost(self, count: int) -> int:
        """How many ticks out so many missing ticks in are; at least one."""
        return max(1, round(count * self._ratio))

    def push(self, data: Array, first_ns: int) -> tuple[Array, Int64Array]:
        """Ticks that are ready, perhaps none, with their capture times int64 (m,).

        data: int16 (n, channels), contiguous with what was pushed before; first_ns: capture time
        of its first tick.
        """
        start_ns = first_ns - self._taken * self._in_ns
        self._taken += len(data)
        self._end_ns = first_ns + round(len(data) * self._in_ns)
        return self._out(self._soxr.resample_chunk(np.ascontiguousarray(data)), start_ns)

    def flush(self) -> tuple[Array, Int64Array]:
        """What is held back, and then begin anew: what follows is not of the same sound."""
        if not self._taken:
            return self._empty, np.empty(0, np.int64)
        start_ns = self._end_ns - self._taken * self._in_ns
        out = self._out(self._soxr.resample_chunk(self._empty, last=True), start_ns)
        self._soxr.clear()
        self._taken = self._given = 0
        return out

    def _out(self, data: Array, start_ns: Fraction) -> tuple[Array, Int64Array]:
        t_ns = ticks_ns(start_ns + self._given * self._out_ns, self._out_ns, len(data))
        self._given += len(data)
        return data, t_ns
