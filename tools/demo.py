"""The demo: a real log, or your own sensors, through the agent; watch what it says."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.live import Live

from agent.app import Agent
from agent.cli import print_closing, run_agent, run_command
from agent.clock import SystemClock, from_s
from agent.config import Config
from agent.config_file import load_config
from agent.publish.client import Subscriber
from agent.supervise import ThreadGroup
from agent.wire import Event
from tools.watch_view import WatchView

__all__ = ["main"]

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
REDRAW_S = 0.1

EXAMPLE = """\
examples:
  ./run demo                                     a real log of a minute, then it ends
  ./run demo --camera 0 --microphone default     your own sensors, until Ctrl-C
  ./run demo --plain | tee demo.txt              one line an event
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command `./run demo`: 0 when the log has played."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    # Any free port: the demo must start though another agent runs.
    overrides = ["bus.events=tcp://127.0.0.1:*", "bus.control=tcp://127.0.0.1:*", *args.set]
    sensors = {}
    if args.camera is not None:
        sensors["camera"] = {"kind": "camera", "device": args.camera}
    if args.microphone is not None:
        sensors["microphone"] = {"kind": "microphone", "device": args.microphone}
    if sensors:
        overrides.append(f"drivers={json.dumps(sensors)}")
    config = load_config(args.config, overrides)
    console = Console()
    if args.plain or not console.is_terminal:
        return run_agent(config, args.duration)
    return _watch(config, args.duration, console)


def _watch(config: Config, duration_s: float | None, console: Console) -> int:
    """Run the agent in a thread, and the same view of its bus that tools/watch.py shows."""
    logging.basicConfig(level=logging.ERROR)  # lines between redraws would tear the table
    clock = SystemClock()
    starts: list[Event] = []
    agent = Agent(config, clock, lambda e: starts.append(e) if e.phase == "start" else None)
    signal.signal(signal.SIGINT, lambda *_: agent.stop.set())
    agent.open()
    with Subscriber(agent.endpoints["bus.events"]) as bus, ThreadGroup() as group:
        done = threading.Event()

        def run(stop: threading.Event) -> None:
            try:
                agent.run(duration_s)
            finally:
                done.set()

        view = WatchView()
        group.start("agent", run)
        with Live(console=console, screen=False, auto_refresh=False) as live:
            next_draw_ns = 0
            while not done.is_set():
                received = bus.receive(REDRAW_S)
                if received is not None:
                    view.feed(received[1])
                if clock.now_ns() >= next_draw_ns:
                    live.update(view.render(), refresh=True)
                    next_draw_ns = clock.now_ns() + from_s(REDRAW_S)
            live.update(view.render(), refresh=True)
    print_closing(agent, len(starts), console)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./run demo",
        description="Replay a real log of a minute and say when what is asked for happens.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: configs/demo.yaml")
    parser.add_argument("--camera", metavar="N|URL", help="a camera's index, path or URL")
    parser.add_argument("--microphone", metavar="NAME", help="a microphone's name, or: default")
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--plain", action="store_true", help="one line an event, no table")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C")
    return parser


if __name__ == "__main__":
    sys.exit(main())
