"""Ask a running agent for something, in any sense: add, list, show, switch and remove queries.

examples:
  python -m tools.query add "a dog barking" "the bark of a dog" --not "music" --senses audio
  python -m tools.query add --audio sea.flac --id sea
  python -m tools.query add --part "{text: a dog}" --part "{audio: sea.flac, weight: 0.5}" --id both
  python -m tools.query add --when 'sea then "a dog" within 10 s' --id shore
  python -m tools.query add --from queries.yaml
  python -m tools.query list
  python -m tools.query show shore
  python -m tools.query enable sea --off
  python -m tools.query remove shore

A query counts from the next window on, and until the agent ends; one that is unchanged keeps what
was learned of it. What stands in a file of `queries:`, as in a config, is the same
(docs/queries.md). Files are read by the agent, so it has to be on this machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml
from rich.table import Table

from agent.cli import run_command
from agent.config import BusConfig, QueryConfig
from agent.config_file import convert_section, load_config
from agent.errors import ConfigError
from agent.publish.client import ClientKeys, request
from tools.output import report_console

__all__ = ["main"]

REPLY_S = 30.0
_FILES = ("audio", "image", "depth", "thermal", "imu", "vector")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.key is None) != (args.server_key is None):
        parser.error("--key and --server-key go together")
    agent = _Agent(args)
    if args.command == "add":
        asked = _queries(args)
        before = {query["id"]: query["rev"] for query in agent.ask("query.list")}
        for query in asked:
            put = agent.ask("query.put", query=query)
            old = before.get(put["id"])
            how = "added" if old is None else "unchanged" if old == put["rev"] else "changed"
            print(f"{put['id']} {put['rev']} {how}")
    elif args.command == "list":
        table = Table("id", "revision", "tells events", "label")
        for query in agent.ask("query.list"):
            yes = "yes" if query["enabled"] else "no"
            table.add_row(query["id"], query["rev"], yes, query["label"])
        report_console().print(table)
    elif args.command == "show":
        told = agent.ask("query.get", query_id=args.id)
        print(yaml.safe_dump([told["query"]], sort_keys=False, allow_unicode=True), end="")
    elif args.command == "enable":
        agent.ask("query.enable", query_id=args.id, enabled=not args.off)
        print(f"{args.id} {'off' if args.off else 'on'}")
    else:
        agent.ask("query.remove", query_id=args.id)
        print(f"{args.id} removed")
    return 0


class _Agent:
    def __init__(self, args: argparse.Namespace) -> None:
        address = args.connect
        if address is None and args.config is not None:
            address = load_config(args.config).file.bus.control
            if address is None:
                raise ConfigError(f"{args.config}: bus.control is off, expected an address")
        self._address: str = address or _default()
        self._keys = ClientKeys(own=args.key, server=args.server_key) if args.key else None

    def ask(self, op: str, **fields: Any) -> Any:
        reply = request(self._address, op, REPLY_S, keys=self._keys, **fields)
        if reply.error is not None:
            raise ConfigError(f"{self._address}: {reply.error.message}")
        return reply.result


def _default() -> str:
    address = BusConfig().control
    assert address is not None  # as BusConfig has it
    return address


def _queries(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What is asked for, in the words of query.put, with paths from the root."""
    fields = {
        "id": args.id,
        "label": args.label,
        "text": args.text or None,
        **{name: getattr(args, name) for name in _FILES},
        "log": args.log and dict(zip(("file", "stream", "from_s", "to_s"), args.log, strict=True)),
        "sum": [_yaml(part, "--part") for part in args.part],
        "when": args.when,
        "not": [_yaml(each, "--not") for each in args.against],
        "templates": _templates(args.template),
        "senses": args.senses,
        "streams": args.streams,
        "max_false_alarms_per_hour": args.max_false_alarms_per_hour,
    }
    given = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
    if args.source is not None:
        if given:
            raise ConfigError(f"--from: got {', '.join(given)} beside it, expected it alone")
        queries = load_config(args.source).file.queries
        queries = sorted(queries, key=lambda query: query.when is not None)
    else:
        if "log" in given:
            for name in ("from_s", "to_s"):
                given["log"][name] = _number(given["log"][name], "--log")
        queries = [convert_section(given, QueryConfig, "query")]
    return [query.said() for query in queries]


def _yaml(text: str, option: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ConfigError(f"{option}: got {text!r}, expected YAML") from exc


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as exc:
        raise ConfigError(f"{option}: got {text!r}, expected FILE STREAM FROM_S TO_S") from exc


def _templates(given: Sequence[str]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for text in given:
        sense, equals, sentence = text.partition("=")
        if not equals:
            raise ConfigError(f"--template: got {text!r}, expected SENSE=SENTENCE with {{}} in it")
        out.setdefault(sense, []).append(sentence)
    return out


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.query",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    there = argparse.ArgumentParser(add_help=False)
    add = there.add_argument
    add("--connect", metavar="ADDRESS", help=f"its control socket (default {_default()})")
    add("--config", type=Path, metavar="FILE", help="take the address from its config")
    add("--key", type=Path, metavar="FILE", help="CURVE: your own NAME.key_secret file")
    add("--server-key", type=Path, metavar="FILE", help="CURVE: the agent's public .key file")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    new = commands.add_parser("add", parents=[there], help="add queries, or replace those of an id")
    add = new.add_argument
    add("text", nargs="*", help="what to look and listen for; several phrases are averaged")
    for name in _FILES:
        shown = "a file that tools.teach wrote" if name == "vector" else f"a file of {name}"
        add(f"--{name}", metavar="FILE", help=shown)
    add("--log", nargs=4, metavar=("FILE", "STREAM", "FROM_S", "TO_S"), help="a cut of a recording")
    add(
        "--part",
        action="append",
        default=[],
        metavar="YAML",
        help="a part of a sum: {text: a dog, weight: 0.5}",
    )
    add("--when", metavar="WHAT", help='how queries follow one another: a then "b" within 10 s')
    add(
        "--not",
        dest="against",
        action="append",
        default=[],
        metavar="WHAT",
        help="what it is not: a phrase, or {audio: FILE}",
    )
    add(
        "--template",
        action="append",
        default=[],
        metavar="SENSE=SENTENCE",
        help="how text is said to a sense: 'image=a photo of {}'",
    )
    add("--senses", type=_names, metavar="A,B", help="which may answer (default: all)")
    add("--streams", type=_names, metavar="A,B", help="which may answer (default: all)")
    add("--max-false-alarms-per-hour", type=float, metavar="N", help="in place of a threshold")
    add("--id", help="lower-case letters, digits and underscores (default: of the label)")
    add("--label", help="for people (default: what is asked for)")
    add(
        "--from", dest="source", type=Path, metavar="FILE", help="YAML with `queries:`, as a config"
    )
    commands.add_parser("list", parents=[there], help="all of them")
    for name, shown in (("show", "as YAML"), ("enable", "switch on"), ("remove", "forget it")):
        one = commands.add_parser(name, parents=[there], help=shown)
        one.add_argument("id")
        if name == "enable":
            one.add_argument("--off", action="store_true", help="switch off")
    return parser


if __name__ == "__main__":
    sys.exit(main())
