"""All five kinds of devices in one agent at true rates, each killed once a minute.

    python -m tests.soak.five_devices --minutes 10 [--json OUT]

The peers are real where one can run without hardware: an MJPEG camera over HTTP, PulseAudio, an
Xsens on a pseudo-terminal, Aravis's GigE Vision camera, and librealsense's software device in an
isolated process. Each knows the true time of what it gives; the agent's stamps are held to that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from rich.progress import track

from agent.publish.client import Subscriber
from agent.wire import Health, SensorStatus
from tests.fakes.gige_camera import ADDRESS, give_port_back
from tests.fakes.package import install
from tests.soak.figures import (
    RATES,
    Outage,
    Watch,
    print_figures,
    process_figures,
    read_tap,
    reconnects,
    stream_figures,
)
from tests.soak.imu_port import RATE_HZ as IMU_HZ
from tests.soak.peers import Camera, Imu, IsolatedChild, Microphone, Peer, Thermal
from tests.soak.realsense_live import LiveRealSense
from tests.soak.sound_port import RATE_HZ as AUDIO_HZ
from tools.output import report_console

__all__ = ["run"]

ROOT = Path(__file__).parents[2]
SETTLE_S, DOWN_S = 20.0, 2.0


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
        settled_ns = time.monotonic_ns() + int(settle_s * 1e9)
        try:
            outages = _disturb(peers, seconds, period_s, settle_s, watch, progress)
            code = agent.wait(60)
        finally:
            stop.set()
            listener.join()
        log = (work / "log").read_text()
        assert code == 0, log
        notes = read_tap(work / "tap")
        return {
            "seconds": seconds,
            "streams": {
                name: stream_figures(
                    name, notes.get(name, []), peers, outages, int(anchor), settled_ns
                )
                for name in RATES
            },
            "drivers": {name: reconnects(name, notes, outages) for name in peers},
            **process_figures(watch, settle_s),
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
            "realsense": {
                "kind": "live_realsense",
                "isolate": True,
                "required": False,
                # What waits on a machine that is busy with other things is not lost.
                "queue_s": 3.0,
                "buffer_s": 4.0,
            },
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
    print_figures(figures, console)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
