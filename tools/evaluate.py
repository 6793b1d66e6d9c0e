"""How well a space finds things, and a config what happens.

examples:
  python -m tools.evaluate retrieval --space compact --data validation --json scores.json
  python -m tools.evaluate events --log night.mcap --labels LABELS.json --config C.yaml

retrieval: recall and precision of a folder of queries, task by task. It has `queries.jsonl`, an
object a line: `task`, any name; what is looked for: `text`, `image`, `audio` or another sense of
the space, or `query`, a file whose sense its folder tells (several of them are composed: the mean
of how far each finds a candidate above the others); what is searched: `pool`, a folder whose files
are the candidates, or
`candidates`, a list of texts; and `relevant`, a list of which of these should be found: files,
texts or indices from 0, files in the order of their names. Paths are below the folder. A folder's
sense is its name's (image, images, rgb, audio, depth, thermal, imu, ...) or stands in
`modalities.json`, an object of folder: sense.

--calibrated counts each candidate that is a text as the agent does: by how far it is nearer to what
is asked with than to what is ordinary of that sense, in deviations of that (`background` in
space.yaml). Else some texts are near to all of a sense, and always its answer.

A candidate of a tower with views (`views` in space.yaml) is found by its whole and by the best of
its parts, each part of a composed query by its own. recall@k is the part of the queries with
anything relevant among the first k, chance@1 that of a random order; of equal scores what is
relevant comes last. In brackets: 95 % by bootstrap over the queries.
tools/make_validation.py makes such a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from agent.atomic import open_atomic
from agent.cli import run_command
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, EncodeFailed
from agent.ordinary import ordinary
from encoders.bind.scoring import Estimate, Pool, RetrievalScores, relevant_ranks, score_retrieval
from encoders.space import ModelSpace, open_space
from tools import evaluate_events
from tools.output import progress, report_console
from tools.retrieval_queries import TEXT, Item, Query, read_queries

__all__ = ["main"]

Vectors = Mapping[Item, NDArray[np.float32]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    return int(args.run(args))


def _retrieval(args: argparse.Namespace) -> int:
    space = open_space(args.space, RuntimeOptions(precision=args.precision))
    tasks = [task.strip() for task in args.tasks.split(",")] if args.tasks else []
    queries = read_queries(args.data, space.modalities, tasks)
    vectors = _embed(space, args.data, queries)
    scores = _score(queries, vectors, _Usual(space, vectors) if args.calibrated else None)
    if args.json:
        content = {
            "space": space.identity,
            "precision": args.precision or space.precision,
            "calibrated": args.calibrated,
            "tasks": {task: _figures(own) for task, own in scores.items()},
        }
        with open_atomic(args.json) as file:
            file.write(f"{json.dumps(content, indent=2)}\n".encode())
    report_console().print(_table(space.identity, scores))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    retrieval = commands.add_parser("retrieval", help="recall and precision of a folder of queries")
    retrieval.add_argument(
        "--space",
        default="compact",
        help="model folder, or the name of one that ships (default: compact)",
    )
    retrieval.add_argument(
        "--data", required=True, type=Path, metavar="DIR", help="folder with queries.jsonl"
    )
    retrieval.add_argument("--json", type=Path, metavar="OUT", help="write the figures here too")
    retrieval.add_argument("--precision", help="fp32 or int8 (default: each tower's own)")
    retrieval.add_argument(
        "--calibrated", action="store_true", help="count texts from what is ordinary (see above)"
    )
    retrieval.add_argument("--tasks", metavar="A,B", help="only these (default: all there are)")
    retrieval.set_defaults(run=_retrieval)
    evaluate_events.add_command(commands)
    return parser


def _embed(space: ModelSpace, folder: Path, queries: Sequence[Query]) -> Vectors:
    """float32 (k, dim) for each distinct text and file, made once: the whole's vector, then those
    of the views that its tower gives.

    Raises the error of the file that fails, with the line and task that first asked for it.
    """
    asked: dict[Item, Query] = {}
    for query in queries:
        for item in (*query.parts, *query.candidates):
            asked.setdefault(item, query)
    for modality in {item.modality for item in asked}:  # a model's fault is no file's
        (space.text_encoder() if modality == TEXT else space.encoder(modality)).load()
    vectors = {}
    for item, query in progress(asked.items(), "embedding"):
        try:
            vectors[item] = _vectors(space, folder, item)
        except (ConfigError, EncodeFailed) as exc:
            raise ConfigError(f"{query.where}: task {query.task}: {exc}") from exc
    return vectors


def _vectors(space: ModelSpace, folder: Path, item: Item) -> NDArray[np.float32]:
    if item.modality == TEXT:
        return space.text_encoder().encode([item.value])[0].rows
    return space.embed_file(str(folder / item.value), item.modality).rows


class _Usual:
    """How near texts are to what is ordinary of a sense, reckoned once for each."""

    def __init__(self, space: ModelSpace, vectors: Vectors) -> None:
        self._space = space
        self._vectors = vectors
        self._known: dict[tuple[Item, str], tuple[float, float]] = {}

    def __call__(self, query: Query) -> NDArray[np.float64] | None:
        """As Pool.scores takes it; None for what is not texts found by other senses."""
        senses = [part.modality for part in query.parts]
        if TEXT in senses or any(item.modality != TEXT for item in query.candidates):
            return None
        return np.array([[self._of(item, sense) for item in query.candidates] for sense in senses])

    def _of(self, text: Item, sense: str) -> tuple[float, float]:
        key = text, sense
        if key not in self._known:
            wholes = self._space.background(sense)[:, 0]  # as what is asked with
            self._known[key] = ordinary(wholes @ self._vectors[text][0], self._space.dim)
        return self._known[key]


def _score(
    queries: Sequence[Query], vectors: Vectors, usual: _Usual | None
) -> dict[str, RetrievalScores]:
    """By task, in the order of their first lines."""
    pools: dict[tuple[Item, ...], Pool] = {}
    by_task: dict[str, list[tuple[NDArray[np.int64], int]]] = {}
    for query in queries:
        pool = pools.get(query.candidates)
        if pool is None:
            pool = pools[query.candidates] = Pool([vectors[item] for item in query.candidates])
        parts = np.concatenate([vectors[item][:1] for item in query.parts])  # what is asked: wholes
        relevant = np.zeros(len(pool), np.bool_)
        relevant[list(query.relevant)] = True
        scores = pool.scores(parts, None if usual is None else usual(query))
        ranks = relevant_ranks(scores, relevant)
        by_task.setdefault(query.task, []).append((ranks, len(pool)))
    return {
        task: score_retrieval([ranks for ranks, _ in own], [size for _, size in own])
        for task, own in by_task.items()
    }


def _figures(scores: RetrievalScores) -> dict[str, Any]:
    named = {"recall@1": scores.recall[1], "recall@5": scores.recall[5], "map": scores.map}
    return {
        "queries": scores.queries,
        **{name: estimate.value for name, estimate in named.items()},
        **{f"{name}_95": [estimate.low, estimate.high] for name, estimate in named.items()},
        "chance@1": scores.chance[1],
        "chance@5": scores.chance[5],
    }


def _table(identity: str, scores: Mapping[str, RetrievalScores]) -> Table:
    table = Table(title=f"retrieval in {identity}")
    table.add_column("task")
    for name in ("queries", "recall@1", "recall@5", "map", "chance@1"):
        table.add_column(name, justify="right", no_wrap=True)
    for task, own in scores.items():
        estimates = (own.recall[1], own.recall[5], own.map)
        cells = [str(own.queries), *map(_cell, estimates), f"{own.chance[1]:.3f}"]
        table.add_row(escape(task), *cells)
    return table


def _cell(estimate: Estimate) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*astuple(estimate))


if __name__ == "__main__":
    sys.exit(main())
