"""What is connected: each device with an identity that stays, what it can give, and the block that
puts it into a config.

examples:
  python -m tools.devices                           # list
  python -m tools.devices --probe --kind camera     # and try each for two seconds
  python -m tools.devices --write mine.yaml         # a config of all that can be used
  python -m agent --config mine.yaml --check

exit codes: 0 listed or written; 1 a device that was tried did not work; 2 a bad option, a FILE that
is there already, devices that cannot be told apart, or nothing to write.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from agent.atomic import open_atomic
from agent.cli import run_command
from agent.clock import Clock, SystemClock
from agent.errors import ConfigError
from tools.device_child import SETTLE_S, StreamFigures
from tools.device_config import block, config_text, refuse_twins, twins, without_doubles
from tools.device_search import Found, KindFound, kinds, probe, search
from tools.output import progress_bars, report_console

__all__ = ["main"]

SECONDS = 2.0
NOTHING = """\
nothing that can be looked for is connected. A camera's URL, a UART of the board or a recording is
named by hand in a config; what runs without any device:
  python -m agent --config configs/synthetic.yaml"""
# An interval is from one tick's stamp to the next, a latency from capture to arrival.
HEADINGS = (
    "stream",
    "Hz",
    "interval ms\nstd / p99",
    "latency ms\np50 / p99",
    "lost",
    "bad",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m tools.devices`. A fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    looked_for = kinds()
    args = _parser(looked_for).parse_args(argv)
    if args.write is not None:
        _refuse_existing(args.write)
    clock = SystemClock()
    notes = Console(stderr=True)
    chosen = {kind: told for kind, told in looked_for.items() if kind in (args.kind or looked_for)}
    with notes.status("looking for devices ..."):
        found = search(chosen, clock)
    if args.write is not None:  # before the time that trying them takes
        refuse_twins(each.device for kind in found for each in kind.devices)
    if args.probe:
        found = _probe_all(found, args.seconds, clock, notes)
    if args.json:
        print(json.dumps(_as_json(found), indent=2))
    else:
        _print(found, report_console())
    if args.write is not None:
        _write(args.write, found, notes)
    broken = [e for k in found for e in k.devices if e.probe is not None and e.probe.problem]
    return 1 if broken else 0


def _parser(looked_for: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.devices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kind", action="append", choices=sorted(looked_for), help="only these; may be given often"
    )
    parser.add_argument("--probe", action="store_true", help="try each device, one after another")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=SECONDS,
        metavar="S",
        help=f"how long --probe measures each (default {SECONDS:g}); a clock's drift needs over 10",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="make a config, a new file")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError(text)
    return seconds


def _probe_all(
    found: Sequence[KindFound], seconds: float, clock: Clock, console: Console
) -> list[KindFound]:
    """One after another: two at once would share a USB bus, and each would look worse."""
    bars = progress_bars(console=console)

    def tried(each: Found) -> Found:
        if each.device.problem:
            return each
        task = bars.add_task(f"{each.name}: {each.device.name}", total=SETTLE_S + seconds)
        measured = probe(each, seconds, clock, lambda since_s: bars.update(task, completed=since_s))
        bars.remove_task(task)
        return replace(each, probe=measured)

    with bars:
        return [replace(kind, devices=tuple(map(tried, kind.devices))) for kind in found]


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path}: is there already, expected a new file")


def _write(path: Path, found: Sequence[KindFound], console: Console) -> None:
    devices = without_doubles([each for kind in found for each in kind.devices])
    text = config_text(devices, path.name)
    _refuse_existing(path)  # again: trying each device takes seconds
    with open_atomic(path) as file:
        file.write(text.encode())
    names = [each.name for each in devices if not each.device.problem]
    _say(console, f"{path}: written, with {', '.join(names)}")
    for each in devices:
        if each.device.problem:
            _say(console, f"left out: {each.device.kind} {each.device.name}: {each.device.problem}")
    _say(console, f"next: python -m agent --config {path} --check")


def _print(found: Sequence[KindFound], console: Console) -> None:
    for kind in found:
        if kind.problem:
            _say(console, f"{kind.kind}: could not look: {kind.problem}")
        elif not kind.devices:
            _say(console, f"{kind.kind}: none found; looked for: {kind.looked_for}")
        else:
            _say(console, f"{kind.kind}: {len(kind.devices)} found")
        for each in kind.devices:
            _print_device(each, console)
    groups = twins(each.device for kind in found for each in kind.devices)
    for group in groups:
        told = " and ".join(device.identity for device in group)
        _say(console, f"not to be told apart but by their ports: {told}")
    if any(each.probe for kind in found for each in kind.devices):
        _print_figures(found, console)
    if not any(kind.devices for kind in found):
        _say(console, NOTHING)


def _print_device(each: Found, console: Console) -> None:
    device = each.device
    _say(console, f"  {device.name}")
    _say(console, f"    {device.identity}{' (of the port alone)' if device.by_port else ''}")
    if device.modes:
        _say(console, f"    gives {', '.join(device.modes)}")
    if device.problem:
        _say(console, f"    not usable: {device.problem}")
    if each.probe is not None and each.probe.problem:
        _say(console, f"    tried: {each.probe.problem}")
    for line in block(each).splitlines():
        _say(console, f"      {line}")


def _print_figures(found: Sequence[KindFound], console: Console) -> None:
    table = Table(box=box.SIMPLE)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "stream" else "right", no_wrap=True)
    streams = [
        stream
        for kind in found
        for each in kind.devices
        for stream in (each.probe.streams if each.probe is not None else ())
    ]
    for stream in streams:
        table.add_row(*_row(stream))
    console.print(table)
    for stream in streams:
        if stream.clock_offset_s is not None:
            _say(console, _clock(stream))


def _row(stream: StreamFigures) -> list[str]:
    nominal = "" if stream.nominal_hz is None else f" of {stream.nominal_hz:g}"
    return [
        stream.stream,
        f"{_number(stream.rate_hz, 2)}{nominal}",
        f"{_number(stream.interval_std_ms, 2)} / {_number(stream.interval_p99_ms, 2)}",
        f"{_number(stream.latency_p50_ms, 1)} / {_number(stream.latency_p99_ms, 1)}",
        str(stream.lost),
        str(stream.bad),
    ]


def _clock(stream: StreamFigures) -> str:
    drift = "" if stream.clock_drift_ppm is None else f", drift {stream.clock_drift_ppm:+.1f} ppm"
    return (
        f"{stream.stream}: its clock + {stream.clock_offset_s:.6f} s is the agent's, "
        f"within {_number(stream.clock_uncertainty_ms, 3)} ms{drift}"
    )


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _as_json(found: Sequence[KindFound]) -> list[dict[str, Any]]:
    """A kind each: what was found, the driver to put into a config, and what it measured."""
    return [
        {
            "kind": kind.kind,
            "looked_for": kind.looked_for,
            "problem": kind.problem,
            "devices": [
                {
                    "config": {
                        each.name: {"kind": each.device.kind, **each.device.settings},
                    },
                    **msgspec.to_builtins(each.device),
                    "probe": msgspec.to_builtins(each.probe),
                }
                for each in kind.devices
            ],
        }
        for kind in found
    ]


def _say(console: Console, line: str) -> None:
    """As it is: a device's own name is no markup, and a block is copied as it stands."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
