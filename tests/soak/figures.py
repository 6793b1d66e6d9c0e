"""Figures of a run: what came, when it truly was, what was lost and what was left open."""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from agent.wire import Health
from tests.fakes.gige_camera import FRAME_HZ
from tests.fakes.mjpeg_server import CLOCK_HZ
from tests.fakes.realsense_device import GYRO_HZ, VIDEO_HZ
from tests.soak.imu_port import RATE_HZ as IMU_HZ
from tests.soak.peers import Peer
from tests.soak.sound_port import RAMP
from tests.soak.sound_port import RATE_HZ as AUDIO_HZ

__all__ = [
    "RATES", "Outage", "Watch", "print_figures", "process_figures", "read_tap", "reconnects",
    "stream_figures",
]  # fmt: skip

# A block that was on its way when its device was killed is no loss of a device that works.
MARGIN_NS = 500_000_000
RATES = {
    "camera": CLOCK_HZ,
    "microphone": AUDIO_HZ,
    "imu": IMU_HZ,
    "thermal": FRAME_HZ,
    "realsense_depth": VIDEO_HZ,
    "realsense_colour": VIDEO_HZ,
    "realsense_imu": GYRO_HZ,
}


@dataclass
class Outage:
    """driver's peer was killed and, by CLOCK_MONOTONIC, was there again."""

    driver: str
    killed_ns: int
    back_ns: int = 0


@dataclass
class Watch:
    """What is seen of the agent from outside."""

    process: psutil.Process
    rows: list[tuple[float, int, int, int, int]] = field(default_factory=list)
    healths: list[Health] = field(default_factory=list)
    states: list[tuple[int, str, str]] = field(default_factory=list)
    gaps: dict[str, int] = field(default_factory=dict)

    def look(self, since_start_s: float) -> None:
        """Time, private bytes, threads and descriptors of the agent, and its processes.

        What is shared is mostly the ring of the isolated driver, as far as it was read: it says
        nothing of what grows.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            p = self.process
            memory = p.memory_info()
            private = memory.rss - memory.shared
            found = (private, p.num_threads(), p.num_fds(), len(p.children()))
            self.rows.append((since_start_s, *found))


def read_tap(path: Path) -> dict[str, list[tuple[int, ...]]]:
    notes: dict[str, list[tuple[int, ...]]] = {}
    for line in path.read_text().splitlines():
        name, *numbers = line.split()
        notes.setdefault(name, []).append(tuple(map(int, numbers)))
    return notes


def _outages_of(name: str, outages: list[Outage]) -> list[Outage]:
    return [outage for outage in outages if name.split("_")[0] == outage.driver]


def stream_figures(
    name: str,
    notes: list[tuple[int, ...]],
    peers: dict[str, Peer],
    outages: list[Outage],
    anchor_ns: int,
    settled_ns: int,
) -> dict[str, Any]:
    """Rate while it was there, losses apart from the outages, errors of stamps in ms.

    settled_ns: until when what is lost waited for the agent to open the other devices; the rate
    is that since.
    """
    assert notes, f"{name} gave nothing"
    own = _outages_of(name, outages)
    arrival = np.array([note[0] for note in notes])
    ticks = np.array([note[3] for note in notes])
    away = np.zeros(len(notes), bool)
    first_after = {}
    for outage in own:
        resumed = int(np.searchsorted(arrival, outage.back_ns))
        away |= (arrival > outage.killed_ns - MARGIN_NS) & (arrival < outage.back_ns)
        if resumed < len(notes):
            away[resumed] = True  # what it says was lost, was lost while it was away
            first_after[outage.killed_ns] = int(arrival[resumed])
    absent_ns = sum(end - start for start, end in first_after.items())
    lost = np.array([note[4] for note in notes])
    settled = arrival >= settled_ns
    opening = ~settled & ~away
    errors = np.array(
        [
            stamp - truth
            for note, gone in zip(notes, away, strict=True)
            for stamp in note[1:2]
            if not gone and (truth := _truth(name, note, peers, anchor_ns)) is not None
        ]
    )
    present_s = (arrival[-1] - arrival[settled][0] - absent_ns) / 1e9
    p1, p50, p99 = (float(p) for p in np.percentile(errors / 1e6, [1, 50, 99]))
    return {
        "nominal_hz": RATES[name],
        "hz": round(float(ticks[settled][1:].sum()) / present_s, 2),
        "ticks": int(ticks.sum()),
        "lost": int(lost[~away & ~opening].sum()),
        "lost_in_opening": int(lost[opening].sum()),
        "lost_in_outages": int(lost[away].sum()),
        "error_ms_p1": round(p1, 3),
        "error_ms_p50": round(p50, 3),
        "error_ms_p99": round(p99, 3),
        "error_ms_abs_p99": round(float(np.percentile(np.abs(errors) / 1e6, 99)), 3),
        "latency_ms_p99": round(
            float(np.percentile((arrival - [n[1] for n in notes])[~away] / 1e6, 99)), 3
        ),
    }


def _truth(name: str, note: tuple[int, ...], peers: dict[str, Peer], anchor_ns: int) -> int | None:
    """When the block's last tick truly was, by CLOCK_MONOTONIC."""
    arrival, stamp, device, ticks, _, code = note
    if name == "camera":
        return code * 1000
    if name in ("imu", "microphone"):
        starts = peers[name].starts
        began = bisect_right(starts, arrival) - 1
        if began < 0:
            return None
        if name == "imu":
            return starts[began] + device
        # Which turn of the ramp it is, the agent's own stamp tells: it is not out by half a second.
        in_turn = (code + RAMP // 2 + ticks - 1) * 1_000_000_000 // AUDIO_HZ
        turn_ns = RAMP * 1_000_000_000 // AUDIO_HZ
        turns = round((stamp - starts[began] - in_turn) / turn_ns)
        return starts[began] + in_turn + turns * turn_ns
    if name == "thermal":
        return device - anchor_ns  # Aravis stamps by the wall clock
    return device  # the software device stamps by CLOCK_MONOTONIC


def reconnects(
    driver: str, notes: dict[str, list[tuple[int, ...]]], outages: list[Outage]
) -> dict[str, Any]:
    """How long after a device was there again its first block came, in s."""
    streams = [name for name in notes if name.split("_")[0] == driver]
    waits = []
    for outage in _outages_of(driver, outages):
        firsts = []
        for name in streams:
            arrivals = [note[0] for note in notes[name]]
            # What the agent still had of before is not its return.
            late = bisect_right(arrivals, outage.back_ns + (0 if driver != "realsense" else 10**8))
            firsts.append(arrivals[late] if late < len(arrivals) else None)
        known = [first for first in firsts if first is not None]
        waits.append(
            (max(known) - outage.back_ns) / 1e9 if len(known) == len(firsts) and known else None
        )
    back = [wait for wait in waits if wait is not None]
    return {
        "killed": len(waits),
        "came_back": len(back),
        "reconnect_s_max": round(max(back), 2) if back else None,
        "reconnect_s_median": round(float(np.median(back)), 2) if back else None,
    }


def process_figures(watch: Watch, settle_s: float) -> dict[str, Any]:
    """Before: when it had settled; its memory, which rings and towers fill for some seconds more on
    a busy machine, at most in the first third. After: the median of the last tenth of the run.
    """
    rows = np.array([row for row in watch.rows if row[0] >= settle_s - 1])
    tail = rows[-max(5, len(rows) // 10) :]
    names = ("private_mb", "threads", "descriptors", "processes")
    scale = (1e6, 1, 1, 1)
    last = watch.healths[-1]
    first = rows[0].copy()
    first[1] = rows[: max(1, len(rows) // 3), 1].max()
    return {
        "before": {n: round(float(first[i + 1]) / scale[i], 1) for i, n in enumerate(names)},
        "after": {
            n: round(float(np.median(tail[:, i + 1])) / scale[i], 1) for i, n in enumerate(names)
        },
        "most": {n: round(float(rows[:, i + 1].max()) / scale[i], 1) for i, n in enumerate(names)},
        "cpu_percent_median": float(np.median([h.cpu_percent for h in watch.healths[3:]])),
        "bus_gaps": watch.gaps,
        "windows": {s.stream: [s.windows, s.skipped] for s in last.streams},
        "clocks": {
            s.stream: [s.clock_drift_ppm, s.clock_uncertainty_ns]
            for s in last.streams
            if s.clock_drift_ppm is not None
        },
    }


def print_figures(figures: dict[str, Any], console: Console) -> None:
    table = Table(title=f"five devices for {figures['seconds']:.0f} s", title_justify="left")
    columns = {
        "Hz": "hz",
        "of": "nominal_hz",
        "ticks": "ticks",
        "lost": "lost",
        "in opening": "lost_in_opening",
        "in outages": "lost_in_outages",
        "error ms p50": "error_ms_p50",
        "p99 |.|": "error_ms_abs_p99",
    }
    table.add_column("stream")
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, stream in figures["streams"].items():
        table.add_row(name, *(str(stream[key]) for key in columns.values()))
    console.print(table)
    table = Table(title="killed and back", title_justify="left")
    for heading in ("driver", "killed", "came back", "s median", "s most"):
        table.add_column(heading, justify="left" if heading == "driver" else "right")
    for name, d in figures["drivers"].items():
        keys = ("killed", "came_back", "reconnect_s_median", "reconnect_s_max")
        table.add_row(name, *(str(d[key]) for key in keys))
    console.print(table)
    for key in ("before", "after", "most", "cpu_percent_median", "bus_gaps", "windows", "clocks"):
        console.print(f"{key}: {figures[key]}")
