"""Six senses through six towers at true speed: what rate each gets, what is skipped, how late."""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from agent.clock import SystemClock, from_s, to_s
from agent.contracts import RuntimeOptions
from agent.errors import AgentError, ConfigError
from agent.publish.client import Subscriber
from agent.wire import EmbeddingMessage, Health, StreamHealth
from encoders.space import open_space
from tools.benches.common import (
    cores,
    make_table,
    running_agent,
)
from tools.benches.senses_log import write_log

__all__ = ["add_parser"]

SETTLE_S = 90.0  # loading 5 GB from a cold disk
SILENCE_S = 60.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `senses` to the benchmarks."""
    parser = commands.add_parser(
        "senses",
        help="a log of six streams played at true speed into the live agent on a model folder, "
        "without and with the change gate: windows a second, skipped, re-used, delay of each",
    )
    parser.add_argument("--folder", type=Path, required=True, help="a model folder")
    parser.add_argument("--precision", help="of it")
    parser.add_argument("--minutes", type=float, default=10.0, help="default %(default)g")
    parser.add_argument("--change", type=float, default=0.2, help="of the gate, default 0.2")
    parser.add_argument("--threads", type=int, default=cores(), help="default: one a core")
    parser.add_argument("--log", type=Path, help="one of your own (default: one that is made)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    if not args.minutes > 0:
        raise ConfigError(f"--minutes: got {args.minutes:g}, expected more than 0")
    options = RuntimeOptions(precision=args.precision)
    space = open_space(str(args.folder.absolute()), options)
    senses, duration_s = space.modalities, 60 * args.minutes
    space.close()
    figures: dict[str, Any] = {"duration_s": duration_s, "runs": {}}
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console) as progress:
        work = Path(temporary)
        log = args.log.absolute() if args.log else work / "six.mcap"
        if not args.log:
            task = progress.add_task("making the log", total=duration_s)
            for second in write_log(log, duration_s):
                progress.update(task, completed=second)
        for name, change in (("no gate", None), (f"change {args.change:g}", args.change)):
            task = progress.add_task(name, total=duration_s)
            bulk = f"ipc://{work}/bulk"
            config = {
                "agent": "bench",
                "space": {
                    "path": str(args.folder.absolute()),
                    "precision": args.precision,
                    "threads": args.threads,
                    "towers": {sense: {"change": change} for sense in senses},
                },
                "drivers": {"log": {"kind": "log", "path": str(log), "to_s": duration_s}},
                "bus": {
                    "events": "tcp://127.0.0.1:*",
                    "control": None,
                    "bulk": bulk,
                    "preview_hz": 0,
                },
            }
            with running_agent(config, work, duration_s + SETTLE_S) as address:
                advance = partial(_advance, progress, task)
                figures["runs"][name] = _listen(address, bulk, advance)
    _print(figures, console)
    return figures


def _advance(progress: Progress, task: TaskID, uptime_s: float) -> None:
    progress.update(task, completed=uptime_s)


def _listen(address: str, bulk: str, advance: Callable[[float], None]) -> dict[str, Any]:
    """Until the log is over. delay: from the end of a window to its vector over the socket."""
    clock = SystemClock()
    delays_s: dict[str, list[float]] = defaultdict(list)
    healths: list[Health] = []
    with Subscriber(bulk) as vectors, Subscriber(address) as bus:
        silent_ns = clock.now_ns() + from_s(SILENCE_S + SETTLE_S)
        while clock.now_ns() < silent_ns:
            received = vectors.receive(0.02)
            while received is not None:
                message = received[1]
                if isinstance(message, EmbeddingMessage) and not message.reused:
                    delays_s[message.stream].append(to_s(clock.now_ns() - message.window.end.ns))
                received = vectors.receive(0.0)
            told = bus.receive(0.0)
            while told is not None:
                if isinstance(told[1], Health) and not told[1].retained:
                    healths.append(told[1])
                    silent_ns = clock.now_ns() + from_s(SILENCE_S)
                    advance(told[1].uptime_s)
                told = bus.receive(0.0)
            if healths and {s.state for s in healths[-1].streams} == {"ended"}:
                break
    if not healths:
        raise AgentError(f"{address}: no message, expected one a second")
    last = healths[-1]
    return {
        "uptime_s": last.uptime_s,
        "cpu_percent": float(np.median([health.cpu_percent for health in healths])),
        "rss_mb": max(health.rss_mb for health in healths),
        "drops": last.drops,
        "streams": {
            s.stream: _stream(s, delays_s.get(s.stream, []), last.uptime_s) for s in last.streams
        },
    }


def _stream(health: StreamHealth, delays_s: list[float], uptime_s: float) -> dict[str, Any]:
    p50, p95 = np.percentile(delays_s, [50, 95]) if delays_s else (None, None)
    return {
        "modality": health.modality,
        "asked_hz": round(1 / health.hop_asked_s, 3) if health.hop_asked_s else None,
        "encoded_hz": round(health.windows / uptime_s, 3),
        "encoded": health.windows,
        "reused": health.reused,
        "skipped": health.skipped,
        "lost": health.lost + health.bad,
        "duty": health.duty,
        "delay_p50_s": p50,
        "delay_p95_s": p95,
    }


def _print(figures: Mapping[str, Any], console: Console) -> None:
    for name, run in figures["runs"].items():
        rows = [
            [stream, *(_text(found[key]) for key in _COLUMNS)]
            for stream, found in run["streams"].items()
        ]
        lost = sum(found["lost"] for found in run["streams"].values())
        title = (
            f"{name}: {run['uptime_s']:.0f} s, CPU {run['cpu_percent']:.0f} % of a core, "
            f"{run['rss_mb']:.0f} MB, {lost} ticks lost"
        )
        console.print(make_table(title, ["stream", *_COLUMNS.values()], rows))


_COLUMNS = {
    "asked_hz": "asked /s",
    "encoded_hz": "encoded /s",
    "reused": "re-used",
    "skipped": "skipped",
    "delay_p50_s": "delay s, p50",
    "delay_p95_s": "p95",
}


def _text(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"
