"""`isolate: true` in a running agent: a driver's process fails, and nothing else does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.publish.client import Subscriber
from agent.wire import Health, SensorStatus, WireStruct
from tests.e2e.commands import refused, run
from tests.e2e.test_live import Running, agent

PICTURES = {"modality": "image", "size": [320, 240], "rate_hz": 30}
BACK_WITHIN_S = 5.0  # what `isolate` promises
PATIENCE_S = 20.0


def write_config(folder: Path) -> Path:
    """One driver inside the agent, and two in processes of their own."""
    drivers: dict[str, Any] = {
        name: {"kind": "synthetic", "streams": {name: PICTURES}, "isolate": name != "inside"}
        for name in ("inside", "beside", "shaky")
    }
    path = folder / "isolated.yaml"
    path.write_text(json.dumps({"drivers": drivers}))
    return path


def process_of(running: Running, driver: str) -> psutil.Process:
    """The process of an isolated driver, by what a person would see in ps."""
    children = psutil.Process(running.process.pid).children()
    return next(p for p in children if p.cmdline()[-1] == f"synthetic {driver}")


def wait_for(bus: Subscriber, wanted: Callable[[WireStruct], bool]) -> Any:
    for _, message in bus.messages(PATIENCE_S):
        if not getattr(message, "retained", False) and wanted(message):
            return message
    raise AssertionError(f"it did not come in {PATIENCE_S:g} s")


def health(bus: Subscriber) -> dict[str, Any]:
    """The next one's streams, once each has given some."""

    def all_run(message: WireStruct) -> bool:
        streams = message.streams if isinstance(message, Health) else []
        return len(streams) == 3 and all(s.state == "online" and s.received > 20 for s in streams)

    return {stream.stream: stream for stream in wait_for(bus, all_run).streams}


def status(bus: Subscriber, state: str) -> SensorStatus:
    """The next change of `shaky` to `state`; no other stream changes meanwhile."""

    def is_it(message: WireStruct) -> bool:
        if not isinstance(message, SensorStatus):
            return False
        assert message.stream == "shaky", message
        return message.state == state

    found: SensorStatus = wait_for(bus, is_it)
    return found


def test_what_happens_to_one_process_costs_its_stream_alone(tmp_path: Path) -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    with agent("--config", write_config(tmp_path)) as running:
        whole = psutil.Process(running.process.pid)
        with Subscriber(running.events) as bus:
            before = health(bus)
            files, threads = whole.num_fds(), whole.num_threads()
            for signum in (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGKILL):
                victim = process_of(running, "shaky")
                sent_ns = time.time_ns()  # the agent's stamps are UTC
                victim.send_signal(signum)
                lost = status(bus, "offline")
                expected = "hangs" if signum == signal.SIGSTOP else f"killed by {signum.name}"
                assert expected in lost.reason
                back = status(bus, "online")
                assert back.since.ns - sent_ns < BACK_WITHIN_S * 1e9
                assert not victim.is_running()
                assert process_of(running, "shaky").pid != victim.pid
            after = health(bus)
            assert whole.num_fds() == files
            assert whole.num_threads() <= threads
            assert len(whole.children(recursive=True)) == 2
            assert not any(bus.gaps.values())
        for name in ("inside", "beside"):
            assert after[name].lost == after[name].bad == after[name].reconnects == 0
            assert after[name].received > before[name].received
        assert after["shaky"].reconnects == 4
        children = whole.children(recursive=True)
    assert running.process.returncode == 0
    assert not any(child.is_running() for child in children)
    assert set(os.listdir("/dev/shm")) <= shared_memory


@pytest.mark.parametrize("stopped", [False, True])
def test_processes_die_with_the_agent(tmp_path: Path, stopped: bool) -> None:
    """Killed, it can ask nobody to end; not even of a process that is stopped."""
    shared_memory = set(os.listdir("/dev/shm"))
    with agent("--config", write_config(tmp_path)) as running:
        with Subscriber(running.events) as bus:
            health(bus)
        children = [process_of(running, name) for name in ("beside", "shaky")]
        if stopped:
            children[0].suspend()
        running.process.kill()
        running.process.wait(PATIENCE_S)
        _, alive = psutil.wait_procs(children, timeout=2.0)
        assert not alive
    assert set(os.listdir("/dev/shm")) <= shared_memory


def test_an_isolated_driver_is_refused_as_any_other(tmp_path: Path) -> None:
    """The same line and exit code, wherever the driver finds out what is wrong."""
    lines = set()
    for isolate in (False, True):
        path = tmp_path / "missing.yaml"
        driver = {"kind": "media", "path": "no_such_film.mp4", "isolate": isolate}
        path.write_text(json.dumps({"bus": {"enabled": False}, "drivers": {"film": driver}}))
        result = run("agent", "--config", path)
        refused(result, 2, "no_such_film.mp4")
        lines.add(result.stderr)
    assert len(lines) == 1
