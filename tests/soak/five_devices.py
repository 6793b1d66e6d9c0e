"""All five kinds of devices in one agent at true rates, each killed once a minute.

    python -m tests.soak.five_devices --minutes 10 [--json OUT]

The peers are real where one can run without hardware: an MJPEG camera over HTTP, PulseAudio, an
Xsens on a pseudo-terminal, Aravis's GigE Vision camera, and librealsense's software device in an
isolated process. Each knows the true time of what it gives; the agent's stamps are held to that.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import pytest
from rich.console import Console
from rich.progress import track
from rich.table import Table

from agent.publish.client import Subscriber
from agent.wire import Health, SensorStatus
from tests.fakes.gige_camera import ADDRESS, FRAME_HZ, GigeCamera, give_port_back
from tests.fakes.mjpeg_server import CLOCK_HZ, MjpegServer
from tests.fakes.package import install
from tests.fakes.pulse import PulseServer
from tests.fakes.realsense_device import GYRO_HZ, VIDEO_HZ
from tests.soak.imu_port import RATE_HZ as IMU_HZ
from tests.soak.realsense_live import LiveRealSense
from tests.soak.sound_port import RAMP
from tests.soak.sound_port import RATE_HZ as AUDIO_HZ
from tools.output import report_console

__all__ = ["run"]

ROOT = Path(__file__).parents[2]
SETTLE_S, DOWN_S = 20.0, 2.0
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


class Peer(Protocol):
    """What a device is here. starts: when, by CLOCK_MONOTONIC, what it gives began."""

    starts: list[int]

    def start(self) -> None: ...

    def kill(self) -> None: ...


class Port:
    """A process of this package that gives something at its pace; start_ns: since when."""

    def __init__(self, module: str, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.{module}", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # that nobody takes it any more
            text=True,
        )
        assert self._process.stdout is not None
        self.start_ns = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Camera:
    def __init__(self) -> None:
        self.starts: list[int] = []
        self.server = MjpegServer()
        self.start, self.kill = self.server.start, self.server.stop


class Microphone:
    def __init__(self, folder: Path, environment: pytest.MonkeyPatch) -> None:
        self.starts: list[int] = []
        folder.mkdir()
        self._server = PulseServer(folder)
        self._server.use(environment)
        self._fifo = folder / "fifo"
        self._port: Port | None = None

    def start(self) -> None:
        self._server.start(fed_hz=AUDIO_HZ)
        self._port = Port("sound_port", self._fifo)
        self.starts.append(self._port.start_ns)

    def kill(self) -> None:
        self._server.stop()
        if self._port is not None:
            self._port.kill()


class Imu:
    def __init__(self, path: Path) -> None:
        self.starts: list[int] = []
        self._path = path
        self._port: Port | None = None

    def start(self) -> None:
        self._port = Port("imu_port", self._path)
        self.starts.append(self._port.start_ns)

    def kill(self) -> None:
        if self._port is not None:
            self._port.kill()


class Thermal:
    def __init__(self) -> None:
        self.starts: list[int] = []
        camera = GigeCamera()
        self.start, self.kill = camera.start, camera.stop


class IsolatedChild:
    """The driver's own process: the agent starts it, and starts it again."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.agent: psutil.Process | None = None

    def start(self) -> None:
        pass

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in self.agent.children() if self.agent else ():
                if "agent.isolation.child" in child.cmdline():
                    child.kill()


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
    gaps: int = 0

    def look(self, since_start_s: float) -> None:
        """Time, resident bytes, threads and descriptors of the agent, and its processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            p = self.process
            found = (p.memory_info().rss, p.num_threads(), p.num_fds(), len(p.children()))
            self.rows.append((since_start_s, *found))


def run(
    seconds: float,
    period_s: float,
    settle_s: float = SETTLE_S,
    progress: Console | None = None,
) -> dict[str, Any]:
    """Figures of a run of `seconds` in which each device is killed every `period_s`."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        install(work, "live_realsense", f"{LiveRealSense.__module__}:LiveRealSense")
        environment.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(work))))
        child = IsolatedChild()
        peers: dict[str, Peer] = {
            "camera": Camera(),
            "microphone": Microphone(work / "home", environment),
            "imu": Imu(work / "imu"),
            "thermal": Thermal(),
            "realsense": child,
        }
        stack.callback(give_port_back)
        for peer in peers.values():
            stack.callback(peer.kill)
            peer.start()
        config = work / "five.yaml"
        camera = peers["camera"]
        assert isinstance(camera, Camera)
        config.write_text(json.dumps(_config(camera.server.url("clock"), work / "imu")))
        command = [sys.executable, "-m", "tests.soak.tapped_agent", str(config)]
        said = stack.enter_context((work / "log").open("w"))
        agent = stack.enter_context(
            subprocess.Popen(
                [*command, str(work / "tap"), str(seconds)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        )
        stack.callback(agent.kill)
        assert agent.stdout is not None
        first = agent.stdout.readline().split()
        assert first, (work / "log").read_text()
        _, address, anchor = first
        watch = Watch(psutil.Process(agent.pid))
        child.agent = watch.process
        stop = threading.Event()
        listener = threading.Thread(target=_listen, args=(address, watch, stop))
        listener.start()
        try:
            outages = _disturb(peers, seconds, period_s, settle_s, watch, progress)
            code = agent.wait(60)
        finally:
            stop.set()
            listener.join()
        log = (work / "log").read_text()
        assert code == 0, log
        notes = _read_tap(work / "tap")
        return {
            "seconds": seconds,
            "streams": {
                name: _stream(name, notes.get(name, []), peers, outages, int(anchor))
                for name in RATES
            },
            "drivers": {name: _reconnects(name, notes, outages) for name in peers},
            **_process(watch, settle_s),
            "log_lines": len(log.splitlines()),
        }


def _config(camera_url: str, imu: Path) -> dict[str, Any]:
    return {
        "agent": "soak",
        "bus": {"events": "tcp://127.0.0.1:*", "control": None},
        "drivers": {
            "camera": {"kind": "camera", "device": camera_url},
            "microphone": {"kind": "microphone", "rate_hz": AUDIO_HZ},
            "imu": {"kind": "imu", "port": str(imu), "protocol": "xsens", "rate_hz": IMU_HZ},
            "thermal": {
                "kind": "flir",
                "source": "gige",
                "gige": {"address": ADDRESS, "interface": ADDRESS},
            },
            "realsense": {"kind": "live_realsense", "isolate": True, "required": False},
        },
        "queries": [{"text": "a dog"}, {"text": "glass breaking"}, {"text": "someone fell"}],
    }


def _disturb(
    peers: dict[str, Peer],
    seconds: float,
    period_s: float,
    settle_s: float,
    watch: Watch,
    progress: Console | None,
) -> list[Outage]:
    """Kill each device once a period, one after another, and bring it back."""
    start = time.monotonic()
    gap_s = period_s / len(peers)
    count = int((seconds - settle_s - 8) / gap_s)
    due = [(settle_s + n * gap_s, list(peers)[n % len(peers)]) for n in range(count)]
    outages: list[Outage] = []
    steps: Any = range(int(seconds))
    if progress is not None:
        steps = track(steps, "five devices", console=progress)
    back: list[tuple[float, Outage]] = []
    for step in steps:
        while time.monotonic() < start + step + 1:
            now = time.monotonic() - start
            while due and now >= due[0][0]:
                _, name = due.pop(0)
                outages.append(Outage(name, time.monotonic_ns()))
                peers[name].kill()
                back.append((now + DOWN_S, outages[-1]))
            while back and now >= back[0][0]:
                _, outage = back.pop(0)
                peers[outage.driver].start()
                outage.back_ns = time.monotonic_ns()
                if outage.driver == "realsense":
                    outage.back_ns = outage.killed_ns  # nobody has to bring it back
            time.sleep(0.02)
        watch.look(time.monotonic() - start)
    return [outage for outage in outages if outage.back_ns]


def _listen(address: str, watch: Watch, stop: threading.Event) -> None:
    with Subscriber(address) as bus:
        while not stop.is_set():
            received = bus.receive(0.2)
            if received is None:
                continue
            message = received[1]
            if isinstance(message, Health):
                watch.healths.append(message)
            elif isinstance(message, SensorStatus):
                watch.states.append((time.monotonic_ns(), message.stream, message.state))
        watch.gaps = bus.gaps


def _read_tap(path: Path) -> dict[str, list[tuple[int, ...]]]:
    notes: dict[str, list[tuple[int, ...]]] = {}
    for line in path.read_text().splitlines():
        name, *numbers = line.split()
        notes.setdefault(name, []).append(tuple(map(int, numbers)))
    return notes


def _outages_of(name: str, outages: list[Outage]) -> list[Outage]:
    return [outage for outage in outages if name.split("_")[0] == outage.driver]


def _stream(
    name: str,
    notes: list[tuple[int, ...]],
    peers: dict[str, Peer],
    outages: list[Outage],
    anchor_ns: int,
) -> dict[str, Any]:
    """Rate while it was there, losses apart from the outages, errors of stamps in ms."""
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
    errors = np.array(
        [
            stamp - truth
            for note, gone in zip(notes, away, strict=True)
            for stamp in note[1:2]
            if not gone and (truth := _truth(name, note, peers, anchor_ns)) is not None
        ]
    )
    present_s = (arrival[-1] - arrival[0] - absent_ns) / 1e9
    p1, p50, p99 = (float(p) for p in np.percentile(errors / 1e6, [1, 50, 99]))
    return {
        "nominal_hz": RATES[name],
        "hz": round(float(ticks[1:].sum()) / present_s, 2),
        "ticks": int(ticks.sum()),
        "lost": int(lost[~away].sum()),
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


def _reconnects(
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


def _process(watch: Watch, settle_s: float) -> dict[str, Any]:
    """Before: when it had settled. After: the median of the last tenth of the run."""
    rows = np.array([row for row in watch.rows if row[0] >= settle_s - 1])
    tail = rows[-max(5, len(rows) // 10) :]
    names = ("rss_mb", "threads", "descriptors", "processes")
    scale = (1e6, 1, 1, 1)
    last = watch.healths[-1]
    return {
        "before": {n: round(float(rows[0][i + 1]) / scale[i], 1) for i, n in enumerate(names)},
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


def _print(figures: dict[str, Any], console: Console) -> None:
    table = Table(title=f"five devices for {figures['seconds']:.0f} s", title_justify="left")
    for heading in ("stream", "Hz", "of", "ticks", "lost", "in outages", "error ms p50", "p99 |.|"):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    for name, s in figures["streams"].items():
        numbers = [s["hz"], s["nominal_hz"], s["ticks"], s["lost"], s["lost_in_outages"]]
        numbers += [s["error_ms_p50"], s["error_ms_abs_p99"]]
        table.add_row(name, *map(str, numbers))
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


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.five_devices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--json", type=Path, help="the figures as JSON too")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = report_console()
    figures = run(args.minutes * 60, 60, progress=console)
    _print(figures, console)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
