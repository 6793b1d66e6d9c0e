"""How the agent itself is doing: latencies by hop, the process, the machine."""

from __future__ import annotations

from collections import deque
from threading import Lock

import numpy as np

from agent.wire import HopLatency

__all__ = ["HOPS", "Latencies", "Process"]

# capture: tick stamped -> arrived; window: last tick arrived, or window ended -> taken by its
# lane; encode: one window through its tower; match: vector ready -> scored; publish: event made
# -> handed to ZeroMQ.
HOPS = ("capture", "window", "encode", "match", "publish")
KEEP = 4096


class Latencies:
    """The newest latencies of each hop. Any thread may add; one thread reads."""

    def __init__(self) -> None:
        self._hops: dict[str, deque[float]] = {hop: deque(maxlen=KEEP) for hop in HOPS}
        self._lock = Lock()

    def add(self, hop: str, latency_s: float) -> None:
        """One passage through `hop`; a negative latency (clock mapping) counts as 0."""
        with self._lock:
            self._hops[hop].append(max(0.0, latency_s))

    def report(self) -> list[HopLatency]:
        """p50, p95 and p99 in ms of what has come since the last report; silent hops left out."""
        with self._lock:
            taken = {hop: np.array(seen) for hop, seen in self._hops.items() if seen}
            for seen in self._hops.values():
                seen.clear()
        out = []
        for hop, seen_s in taken.items():
            p50, p95, p99 = (round(float(p) * 1e3, 3) for p in np.percentile(seen_s, [50, 95, 99]))
            out.append(HopLatency(hop=hop, count=len(seen_s), p50=p50, p95=p95, p99=p99))
        return out


class Process:
    """CPU, memory and temperature, through psutil; the first CPU reading is since birth."""

    def __init__(self) -> None:
        import psutil  # here, so that --list and --check do not pay for it

        self._process = psutil.Process()
        self._process.cpu_percent()
        self._sensors = getattr(psutil, "sensors_temperatures", dict)

    def cpu_percent(self) -> float:
        """Of one core, since the last call: 200 is two cores busy."""
        return round(float(self._process.cpu_percent()), 1)

    def rss_mb(self) -> float:
        """Resident memory in 10^6 bytes."""
        return round(float(self._process.memory_info().rss) / 1e6, 1)

    def temperature_c(self) -> float | None:
        """The hottest sensor of the machine; None where it has none."""
        readings = [entry.current for group in self._sensors().values() for entry in group]
        return max(readings, default=None)
