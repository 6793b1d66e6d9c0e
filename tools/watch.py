"""Watch a running agent: its sensors, its queries and what happens, from the bus."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from agent.cli import EventPrinter, run_command
from agent.clock import Clock, SystemClock, from_s, to_s
from agent.config import BusConfig
from agent.publish.client import ClientKeys, Message, Subscriber
from agent.wire import Event, ScoreMessage, SensorStatus
from tools.watch_scores import ScoresView
from tools.watch_view import WatchView

__all__ = ["main"]

_REDRAW_S = 0.2
# Health comes once a second; after three of them are missing something is wrong.
_SILENCE_S = 3.0
_LINE_S = 1.0
_TOP = 10

_EXAMPLE = """\
example:
  python -m agent --config configs/demo.yaml --set bus.score_hz=4    in one terminal
  python -m tools.watch                                              in another
  python -m tools.watch --plain --duration 60                        lines, for a minute
  python -m tools.watch --scores --top 5                             what it hears now
"""


def _messages(
    subscriber: Subscriber, clock: Clock, duration_s: float | None
) -> Iterator[Message | None]:
    """Messages as they come, and None when none has for a redraw's time."""
    end_ns = None if duration_s is None else clock.now_ns() + from_s(duration_s)
    while end_ns is None or clock.now_ns() < end_ns:
        received = subscriber.receive(_REDRAW_S)
        yield None if received is None else received[1]


def _watch_plain(messages: Iterable[Message | None], address: str) -> None:
    view, told = WatchView(), False
    for message in messages:
        if message is None:
            if view.origin_ns is None and not told:
                print(_not_there(address), file=sys.stderr, flush=True)
                told = True
        elif view.feed(message):
            if isinstance(message, Event):
                EventPrinter(view.origin_ns or 0, sys.stdout)(message)
            elif isinstance(message, SensorStatus):
                reason = f": {message.reason}" if message.reason else ""
                at_s = view.elapsed_s(message.since.ns)
                print(f"{at_s:.1f}s {message.state} {message.stream}{reason}", flush=True)


def _scores_plain(messages: Iterable[Message | None], address: str, view: ScoresView) -> None:
    """A line of the newest round of scores, at most one each _LINE_S."""
    told_ns, noted = -from_s(_LINE_S), ""
    for message in messages:
        round_ns = view.round_ns
        # A round is whole once something of a later one comes, or nothing more.
        later = isinstance(message, ScoreMessage) and message.time.ns != round_ns
        whole = message is None or later
        if whole and round_ns is not None and round_ns - told_ns >= from_s(_LINE_S):
            told_ns = round_ns
            print(view.line(), flush=True)
        if message is not None:
            view.feed(message)
        note = _not_there(address) if view.origin_ns is None else view.note
        if message is None and view.round_ns is None and note not in ("", noted):
            noted = note
            print(note, file=sys.stderr, flush=True)


def _watch_live(
    messages: Iterable[Message | None], address: str, clock: Clock, view: WatchView | ScoresView
) -> None:
    heard_ns = clock.now_ns()
    drawn_ns = 0
    # Refreshed by hand: rich would start a thread of its own for it.
    with Live(auto_refresh=False) as live:
        for message in messages:
            now_ns = clock.now_ns()
            if message is not None:
                heard_ns = now_ns
                view.feed(message)
            if now_ns - drawn_ns >= from_s(_REDRAW_S):
                drawn_ns = now_ns
                live.update(_picture(view, address, to_s(now_ns - heard_ns)), refresh=True)


def _picture(view: WatchView | ScoresView, address: str, silent_s: float) -> RenderableType:
    if view.origin_ns is None:
        return Text(_not_there(address), "yellow")
    if silent_s > _SILENCE_S:
        note = f"nothing from {address} for {silent_s:.0f} s: has the agent stopped?"
        return Group(view.render(), Text(note, "yellow"))
    return view.render()


def _not_there(address: str) -> str:
    return f"no agent at {address} yet, waiting (Ctrl-C to leave)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.watch",
        description="Show a running agent's sensors, queries and events, live.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = BusConfig().events
    parser.add_argument("--address", default=default, help=f"its events socket (default {default})")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="lines, one an event or one a second of scores; so without a terminal too",
    )
    parser.add_argument(
        "--scores", action="store_true", help="what it hears now: every query, the highest first"
    )
    parser.add_argument(
        "--top", type=int, default=_TOP, metavar="N", help=f"so many of them (default {_TOP})"
    )
    parser.add_argument("--duration", type=float, metavar="S", help="stop after S seconds")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="CURVE: your own NAME.key_secret file"
    )
    parser.add_argument(
        "--server-key", type=Path, metavar="FILE", help="CURVE: the agent's public .key file"
    )
    return parser


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.key is None) != (args.server_key is None):
        parser.error("--key and --server-key go together")
    if args.top < 1:
        parser.error(f"--top: got {args.top}, expected 1 or more")
    keys = ClientKeys(own=args.key, server=args.server_key) if args.key else None
    clock = SystemClock()
    with Subscriber(args.address, keys=keys) as subscriber:
        messages = _messages(subscriber, clock, args.duration)
        view = ScoresView(args.top) if args.scores else WatchView()
        try:
            if not args.plain and Console().is_terminal:
                _watch_live(messages, args.address, clock, view)
            elif isinstance(view, ScoresView):
                _scores_plain(messages, args.address, view)
            else:
                _watch_plain(messages, args.address)
        except KeyboardInterrupt:
            return 0  # the ordinary way to leave
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 when left or done, else the exit code of the error (agent/errors.py)."""
    return run_command(_main, argv)


if __name__ == "__main__":
    sys.exit(main())
