"""What a process of its own costs a driver: CPU of both sides, and how much later a picture is."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from agent.clock import NS_PER_S, SystemClock, from_s
from agent.config_file import build_config
from agent.errors import ConfigError, ReadTimeout
from agent.isolation.driver import IsolatedDriver, make_driver
from tools.benches.common import make_table

__all__ = ["add_parser"]

SIZES = ((640, 480), (1280, 720))
RATE_HZ = 30.0
SETTLE_S = 1.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `isolate` to the benchmarks."""
    parser = commands.add_parser(
        "isolate",
        help="pictures of a synthetic camera, read in this process and from a process of its own: "
        "CPU of both, latency of the way over",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run (default 10)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    if args.seconds <= 0:
        raise ConfigError(f"--seconds: got {args.seconds:g}, expected more than 0")
    figures: dict[str, Any] = {"seconds": args.seconds}
    figures["rows"] = [
        _measure(size, isolate, args.seconds) for size in SIZES for isolate in (False, True)
    ]
    rows = [
        [
            f"{row['width']}x{row['height']}x3 at {RATE_HZ:g} Hz",
            "own process" if row["isolated"] else "in the agent",
            *(f"{row[name]:.{digits}f}" for name, digits in COLUMNS.values()),
        ]
        for row in figures["rows"]
    ]
    title = "latency: from the driver's arrival stamp to the agent having the picture"
    console.print(make_table(title, ["stream", "driver", *COLUMNS], rows, words=2))
    return figures


COLUMNS = {
    "p50 ms": ("p50_ms", 2),
    "p99 ms": ("p99_ms", 2),
    "agent CPU %": ("agent_cpu_percent", 1),
    "child CPU %": ("child_cpu_percent", 1),
    "Hz": ("rate_hz", 1),
    "lost": ("lost", 0),
    "child MB": ("child_rss_mb", 0),
}


def _measure(size: tuple[int, int], isolate: bool, seconds: float) -> dict[str, Any]:
    """One run. CPU in percent of a core; the synthetic camera's own drawing is in it."""
    clock = SystemClock()
    camera = {
        "kind": "synthetic",
        "isolate": isolate,
        "streams": {"camera": {"modality": "image", "size": list(size), "rate_hz": RATE_HZ}},
    }
    driver = make_driver(build_config({"drivers": {"camera": camera}}).drivers[0], clock)
    processes = [psutil.Process()]
    latencies_ms: list[float] = []
    lost = 0
    driver.connect()
    try:
        if isinstance(driver, IsolatedDriver):
            processes.append(psutil.Process(driver.pid))
        begin_ns = clock.now_ns() + from_s(SETTLE_S)
        end_ns = begin_ns + from_s(seconds)
        before: list[float] | None = None
        while (now_ns := clock.now_ns()) < end_ns:
            if before is None and now_ns >= begin_ns:
                before = [_cpu_s(process) for process in processes]
            try:
                samples = driver.read(0.1)
            except ReadTimeout:
                continue
            now_ns = clock.now_ns()
            lost += sum(sample.lost for sample in samples)
            if before is not None:
                latencies_ms += [(now_ns - sample.arrival_ns) / 1e6 for sample in samples]
        took_s = (clock.now_ns() - begin_ns) / NS_PER_S
        after = [_cpu_s(process) for process in processes]
        rss_mb = processes[-1].memory_info().rss / 1e6
    finally:
        driver.disconnect()
    cpu = [100 * (b - a) / took_s for a, b in zip(before or after, after, strict=True)]
    return {
        "width": size[0],
        "height": size[1],
        "isolated": isolate,
        "p50_ms": float(np.percentile(latencies_ms, 50)),
        "p99_ms": float(np.percentile(latencies_ms, 99)),
        "agent_cpu_percent": cpu[0],
        "child_cpu_percent": cpu[1] if isolate else 0.0,
        "rate_hz": len(latencies_ms) / took_s,
        "lost": lost,
        "child_rss_mb": rss_mb if isolate else 0.0,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
