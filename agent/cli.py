"""The command: python -m agent."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.table import Table

from agent import plugins
from agent.clock import SystemClock
from agent.config import Config
from agent.config_file import config_schema, load_config
from agent.errors import AgentError
from agent.wire import Event

if TYPE_CHECKING:
    from agent.app import Agent

__all__ = ["EventPrinter", "main", "print_closing", "run_agent", "run_command"]

EXAMPLE = """\
examples:
  python -m agent --config configs/demo.yaml
  python -m agent --config configs/demo.yaml --duration 10 --record /tmp/demo.mcap
  python -m agent --config configs/demo.yaml --set bus.score_hz=4 --set match.max_age_s=1.5
  python -m agent --config configs/demo.yaml --check
  python -m agent --schema > sensebind.schema.json
"""


class EventPrinter:
    """One plain line an event: seconds since `origin_ns`, phase, label, stream, score."""

    def __init__(self, origin_ns: int, out: TextIO, updates: bool = False) -> None:
        self._origin_ns, self._out, self._updates = origin_ns, out, updates
        self._stream: dict[str, str] = {}
        self.starts = 0

    def __call__(self, event: Event) -> None:
        self.starts += event.phase == "start"
        if event.phase == "update" and not self._updates:
            return
        at_ns = event.start_time.ns if event.phase == "start" else event.end_time.ns
        strongest = event.evidence[0].stream if event.evidence else "-"
        # An event is told by the stream that started it; at its end every stream is quiet.
        stream = self._stream.setdefault(event.id, strongest)
        if event.phase == "end":
            del self._stream[event.id]
        print(
            f"{max(0, at_ns - self._origin_ns) / 1e9:.1f}s {event.phase} "
            f'"{event.query.label}" {stream} {event.score.value:.2f}',
            file=self._out,
            flush=True,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is the error's own (agent/errors.py), 0 for a good run."""
    return run_command(_main, argv)


def run_command(command: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None) -> int:
    """Run a command of the project: an AgentError is one line on stderr and its exit code."""
    try:
        return command(argv)
    except AgentError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; that is not a fault of ours.
        sys.stderr.close()
        return 0


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    level = logging.DEBUG if args.verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    if args.schema:
        print(json.dumps(config_schema(), indent=2))
        return 0
    if args.list:
        _list(Console())
        return 0
    if args.config is None:
        raise AgentUsage("--config FILE is needed (or --list, --schema); see --help")
    overrides = list(args.set)
    if args.record is not None:
        overrides.append(f"record.path={json.dumps(str(args.record.absolute()))}")
    config = load_config(args.config, overrides)
    if args.check:
        return _check(config, args.config)
    return run_agent(config, args.duration, args.quiet)


class AgentUsage(AgentError):
    """The command line itself is wrong."""

    exit_code = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agent",
        description="Bind six senses into one space and say when what you asked for happens.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML config (configs/)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        help="override one field of the config; may be given often",
    )
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument("--record", type=Path, metavar="FILE", help="record every stream as MCAP")
    parser.add_argument("--check", action="store_true", help="check config and models only")
    parser.add_argument("--schema", action="store_true", help="print the config's JSON Schema")
    parser.add_argument(
        "--list", action="store_true", help="list drivers, encoders and spaces with their licences"
    )
    parser.add_argument("--quiet", action="store_true", help="print no events and no summary")
    parser.add_argument("--verbose", action="store_true", help="log what happens, on stderr")
    parser.add_argument("--version", action="version", version=f"sensebind {version('sensebind')}")
    return parser


def run_agent(config: Config, duration_s: float | None = None, quiet: bool = False) -> int:
    from agent.app import Agent  # here, so that --list and --schema stay quick

    clock = SystemClock()
    printer = EventPrinter(clock.now_ns(), sys.stdout)
    agent = Agent(config, clock, (lambda event: None) if quiet else printer)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: agent.stop.set())
    agent.open()
    if not quiet:
        for name, address in agent.endpoints.items():
            print(f"{name} {address}", flush=True)
    agent.run(duration_s)
    if not quiet:
        print_closing(agent, printer.starts, Console())
    return 0


def print_closing(agent: Agent, starts: int, console: Console) -> None:
    """The summary of a run that is over: what each stream gave, and the log's ledger."""
    table = Table(title=f"{starts} events", title_justify="left")
    for heading in ("stream", "ticks", "lost", "bad", "windows"):
        table.add_column(heading, justify="left" if heading == "stream" else "right")
    for state in agent.core.states():
        windows = agent.core.windows.get(state.info.name)
        table.add_row(
            state.info.name,
            str(state.received),
            str(state.lost),
            str(state.bad),
            str(windows.counts.taken) if windows else "-",
        )
    console.print(table)
    if agent.recorded:
        ledger = agent.recorded
        table = Table(title=f"recorded {ledger['path']}", title_justify="left")
        for heading in ("topic", "received", "written", "dropped"):
            table.add_column(heading, justify="left" if heading == "topic" else "right")
        for name, counts in ledger["ledger"].items():
            table.add_row(name, *(str(counts[k]) for k in ("received", "written", "dropped")))
        console.print(table)


def _check(config: Config, path: Path) -> int:
    from agent.core import Core

    core = Core(config, SystemClock(), "check")
    try:
        core.load_all()
        core.open()
    finally:
        core.close()
    print(
        f"{path}: good: {len(config.drivers)} drivers, {len(core.queries)} queries, "
        f"space {core.space.identity} ({core.space.licence})"
    )
    return 0


def _list(console: Console) -> None:
    for group, what in (("drivers", "what it reads"), ("encoders", "what it runs")):
        table = Table(title=group, title_justify="left")
        for heading in ("kind", "from", what):
            table.add_column(heading)
        for kind, place in sorted(plugins.find(group).items()):
            table.add_row(kind, place, _first_line(plugins.load(group, kind)))
        console.print(table)
    table = Table(title="spaces", title_justify="left")
    for heading in ("name", "senses", "dim", "licence"):
        table.add_column(heading)
    for space in plugins.list_spaces():
        senses = ", ".join(("text", *space.modalities))
        table.add_row(space.identity, senses, str(space.dim), space.licence)
    console.print(table)


def _first_line(plugin: type) -> str:
    """What a plug-in is: the first line of its module."""
    return (sys.modules[plugin.__module__].__doc__ or "").strip().split("\n")[0]
