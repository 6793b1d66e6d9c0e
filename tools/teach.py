"""Teach a query by one to eight examples of any sense, and say what it is worth.

examples:
  python -m tools.teach --id kettle --example a.wav --example b.wav --out kettle.npz
  python -m tools.teach --id kettle --example a.wav --log day.mcap --stream microphone \\
      --at 12.5-14.0 --at 61-63 --negative tap.wav --out kettle.npz
  python -m tools.teach --id kettle --agent tcp://127.0.0.1:5557 --mark microphone:3

A config asks for it by its file: `queries: [{vector: kettle.npz}]`.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from rich.table import Table

from agent import plugins
from agent.asking import embed_cut
from agent.cli import run_command
from agent.config import LogCut, MatchConfig, QueryConfig, Taught
from agent.config_file import convert_section, load_config
from agent.contracts import RuntimeOptions, Space
from agent.errors import ConfigError
from agent.match.taught import arrays_of
from agent.publish.client import ClientKeys, request
from agent.teaching import TeachConfig, embed_example, taught_query
from agent.types import Embedding
from tools.npz import write_npz
from tools.output import report_console

__all__ = ["main"]

REPLY_S = 30.0
_SPAN = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)")
_MARK = re.compile(r"([a-z0-9_]+):(\d+(?:\.\d+)?)(?:@(\d+(?:\.\d+)?))?")


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.out is None and args.agent is None:
        parser.error("--out FILE.npz, --agent ADDRESS or both are needed")
    if (args.key is None) != (args.server_key is None):
        parser.error("--key and --server-key go together")
    if bool(args.at or args.negative_at) != bool(args.log) or bool(args.log) != bool(args.stream):
        parser.error("--log, --stream and --at (or --negative-at) go together")
    names = [*args.example, *args.at, *args.mark]
    if args.mark:
        if args.agent is None or args.log is not None:
            parser.error("--mark is of a running agent: --agent is needed, and --log is not taken")
        report = _teach_there(args)
        taught = msgspec.convert(report["taught"], Taught)
    else:
        query, report = _teach_here(args)
        assert query.taught is not None  # by taught_query
        taught = query.taught
        if args.agent is not None:
            _ask(args, "query.put", {"query": msgspec.to_builtins(query)})
    if args.out is not None:
        write_npz(args.out, arrays_of(taught))
    _print(args, names, report)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--id", required=True, help="the query's: lower-case letters, digits and underscores")
    add("--label", default="", help="for people (default: the id)")
    add("--space", help="model folder, or the name of one that ships (default: compact)")
    add("--config", type=Path, help="take space and thresholds from it")
    add("--example", action="append", default=[], metavar="FILE", help="may repeat, up to 8 in all")
    add("--negative", action="append", default=[], metavar="FILE", help="not to be found")
    add("--modality", help="sense of the files, where their names do not tell")
    add("--log", type=Path, help="a recording to cut examples out of")
    add("--stream", help="the stream of it")
    cut = "seconds into the log, 12.5-14.0; each is one"
    add("--at", action="append", default=[], metavar="S-S", help=f"{cut} example")
    add("--negative-at", action="append", default=[], metavar="S-S", help=f"{cut} negative")
    add("--method", choices=["auto", "prototype", "ridge"], default="auto")
    add("--out", type=Path, metavar="FILE.npz", help="the query's vector, for a config's `vector`")
    add("--agent", metavar="ADDRESS", help="control socket of a running agent, to teach it at once")
    add(
        "--mark",
        action="append",
        default=[],
        metavar="STREAM:S[@AGO]",
        help="of the agent: what STREAM gave in the S seconds that ended AGO s ago (default: now)",
    )
    add("--key", type=Path, metavar="FILE", help="CURVE: your own NAME.key_secret file")
    add("--server-key", type=Path, metavar="FILE", help="CURVE: the agent's public .key file")
    return parser


def _teach_here(args: argparse.Namespace) -> tuple[QueryConfig, dict[str, Any]]:
    file = load_config(args.config).file if args.config else None
    match = file.match if file else MatchConfig()
    path = args.space or (file.space.path if file else "compact")
    space = plugins.open_space(path, file.space.options() if file else RuntimeOptions())
    asked = _config(args, args.example, args.negative)
    try:
        examples = [
            *(embed_example(space, each, args.modality) for each in args.example),
            *(_cut(space, args, span) for span in args.at),
        ]
        negatives = [
            *(embed_example(space, each, args.modality) for each in args.negative),
            *(_cut(space, args, span) for span in args.negative_at),
        ]
    finally:
        space.close()
    query, lesson = taught_query(
        space, asked, examples, negatives, match.min_deviation, _source(args)
    )
    return query, lesson.report(match, match.gate)


def _teach_there(args: argparse.Namespace) -> dict[str, Any]:
    """By query.teach: files must be on the agent's machine, where they are named from its root."""
    marks = [_mark(text) for text in args.mark]
    files, others = ([str(Path(f).absolute()) for f in g] for g in (args.example, args.negative))
    asked = _config(args, [*files, *marks], others)
    fields: dict[str, Any] = msgspec.to_builtins(asked)
    return _ask(args, "query.teach", fields)


def _config(args: argparse.Namespace, examples: list[Any], negatives: list[str]) -> TeachConfig:
    fields = {
        "query_id": args.id,
        "label": args.label,
        "method": args.method,
        "modality": args.modality,
        "examples": examples,
        "negatives": negatives,
    }
    return convert_section(fields, TeachConfig, "teach")


def _ask(args: argparse.Namespace, op: str, fields: dict[str, Any]) -> dict[str, Any]:
    keys = ClientKeys(own=args.key, server=args.server_key) if args.key else None
    reply = request(args.agent, op, REPLY_S, keys=keys, **fields)
    if reply.error is not None:
        raise ConfigError(f"{args.agent}: {reply.error.message}")
    result: dict[str, Any] = reply.result
    return result


def _mark(text: str) -> dict[str, Any]:
    found = _MARK.fullmatch(text)
    if found is None:
        raise ConfigError(f"--mark: got {text!r}, expected STREAM:SECONDS, or STREAM:SECONDS@AGO")
    stream, seconds, ago_s = found.groups(default="0")
    return {"stream": stream, "seconds": float(seconds), "ago_s": float(ago_s)}


def _cut(space: Space, args: argparse.Namespace, span: str) -> Embedding:
    """One vector of all that a stream of a log has between two of its times."""
    found = _SPAN.fullmatch(span)
    if found is None or float(found[1]) >= float(found[2]):
        raise ConfigError(
            f"--at, --negative-at: got {span!r}, expected FROM-TO in seconds, such as 12.5-14.0"
        )
    part = {"from_s": float(found[1]), "to_s": float(found[2])}
    cut = convert_section({"file": str(args.log), "stream": args.stream, **part}, LogCut, "--at")
    try:
        return embed_cut(space, cut)
    except ConfigError as exc:
        raise ConfigError(f"--at {span}: {exc}") from exc


def _source(args: argparse.Namespace) -> str:
    """The arguments that do it again, in another space too."""
    parts = ["--id", args.id, "--method", args.method]
    for name in ("modality", "log", "stream"):
        value = getattr(args, name)
        parts += [f"--{name}", str(value)] if value is not None else []
    for name in ("example", "negative", "at", "negative_at"):
        for value in getattr(args, name):
            parts += [f"--{name.replace('_', '-')}", value]
    return shlex.join(parts)


def _print(args: argparse.Namespace, names: list[str], report: dict[str, Any]) -> None:
    console = report_console()
    count = report["background"]
    if report["left_out"]:
        table = Table(title=f"each example, left out of what {args.id} is taught from")
        table.add_column("example")
        for heading in ("z", f"rank of {count + 1}", "found"):
            table.add_column(heading, justify="right")
        for name, told in zip(names, report["left_out"], strict=True):
            found = "yes" if told["found"] else "no"
            table.add_row(name, f"{told['z']:.2f}", str(told["rank"]), found)
        for name, told in zip(
            [*args.negative, *args.negative_at], report["negatives"], strict=True
        ):
            table.add_row(f"not {name}", f"{told['z']:.2f}", "", "")
        console.print(table)
        print(
            f"{args.id}: {report['method']} of {len(names)}; left out, {report['found']} of "
            f"{len(names)} would be found, mean z {report['mean_z']:.2f}"
        )
    else:
        print(f"{args.id}: {report['method']} of one example; with two, a left-out score is told")
    if args.out is not None:
        print(f"{args.out}: written; in a config: queries: [{{vector: {args.out}}}]")
    if args.agent is not None:
        print(f"{args.agent}: in force")


if __name__ == "__main__":
    sys.exit(main())
