"""Many queries on many streams: what matching costs of one core, and what one query more does."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from rich.console import Console

from agent.clock import ManualClock, SystemClock, from_s, to_s
from agent.config import GateConfig, MatchConfig, QueryConfig
from agent.contracts import RuntimeOptions
from agent.match.matcher import EventContext, Matcher
from agent.match.meaning import Meaning, Part
from agent.match.queries import QuerySet
from agent.types import Embedding, Region, StreamInfo, Views
from agent.wire import ClockState, Model
from encoders.space import open_space
from tools.benches.common import make_table

__all__ = ["add_parser"]

HOP_S = 0.5
SEED = 3


def add_parser(commands: Any) -> None:
    """The subcommand `match`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "match", help="queries x streams at two windows a second each", description=__doc__
    )
    parser.add_argument("--space", default="compact", help="whose background is the prior")
    parser.add_argument("--queries", type=int, default=1000, metavar="N")
    parser.add_argument("--streams", type=int, default=6, metavar="N")
    parser.add_argument("--seconds", type=float, default=300.0, help="of the streams' time")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    space = open_space(args.space, RuntimeOptions())
    identity = space.identity

    def vector() -> Any:
        drawn = rng.standard_normal(space.dim)
        return (drawn / np.linalg.norm(drawn)).astype(np.float32)

    def embed(query: QueryConfig) -> Meaning:
        return Meaning((Part(Embedding(identity, vector(), "text")),))

    clock, wall = ManualClock(), SystemClock()
    state = ClockState(domain="log", offset_ns=0, uncertainty_ns=0, replay=True)
    model = Model(space=identity, precision="fp32", provider="none")
    context = EventContext("bench", "1", clock, lambda: state, lambda: model, dict)
    queries = QuerySet(embed, GateConfig())
    for number in range(args.queries):
        queries.put(QueryConfig(id=f"q{number}", text=f"thing {number}"))
    matcher = Matcher(MatchConfig(max_false_alarms_per_hour=1.0), queries, space, context)
    senses = space.modalities
    infos = [
        StreamInfo(f"s{n}", senses[n % len(senses)], "float32", (), None, "none")
        for n in range(args.streams)
    ]
    for info in infos:
        matcher.add_stream(info, from_s(HOP_S))
    began_ns = wall.now_ns()
    matcher.tick(0)  # takes up the queries
    started_s = to_s(wall.now_ns() - began_ns)
    centres = {info.name: vector() for info in infos}
    # As many parts of a frame as the space's towers give.
    parts = {info.name: space.background(info.modality).shape[1] - 1 for info in infos}
    region = Region(0.0, 0.0, 1.0, 1.0)
    spent_ns, events, worst_ns = 0, 0, 0
    for window in range(round(args.seconds / HOP_S)):
        end_ns = from_s((window + 1) * HOP_S)
        clock.advance_to_ns(end_ns)
        for info in infos:
            near = centres[info.name] + vector()
            near = (near / np.linalg.norm(near)).astype(np.float32)
            times = (end_ns - from_s(2.0), end_ns, end_ns, end_ns)
            count = parts[info.name]
            views = None
            if count:
                views = Views(np.stack([vector() for _ in range(count)]), (region,) * count)
            seen = Embedding(identity, near, info.modality, info.name, *times, views=views)
            before_ns = wall.now_ns()
            events += len(matcher.observe(seen))
            passed = wall.now_ns() - before_ns
            spent_ns, worst_ns = spent_ns + passed, max(worst_ns, passed)
    before_ns = wall.now_ns()
    queries.put(QueryConfig(id="one_more", text="one thing more"))
    matcher.tick(clock.now_ns())
    added_ms = to_s(wall.now_ns() - before_ns) * 1e3
    windows = round(args.seconds / HOP_S) * args.streams
    figures = {
        "queries": args.queries,
        "streams": args.streams,
        "core_percent": round(100 * to_s(spent_ns) / args.seconds, 2),
        "window_ms": round(to_s(spent_ns) / windows * 1e3, 3),
        "worst_window_ms": round(to_s(worst_ns) * 1e3, 2),
        "events": events,
        "start_s": round(started_s, 2),
        "one_more_query_ms": round(added_ms, 1),
    }
    rows = [[name, str(value)] for name, value in figures.items()]
    console.print(make_table("matching", ["", ""], rows))
    return {"match": figures}
