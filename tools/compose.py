"""What composing finds: parts of a query by weight, and what it is not, as the agent scores them.

example:
  python -m tools.compose --space compact --data validation

The folder is one of tools.evaluate. `sum`: its tasks whose queries have two parts; each part alone,
both by weight (the first part's stands before the second's), and their plain unit sum, which does
not ask how far each part's cosine spreads on what is ordinary. `not`: its tasks whose queries have
one part and answer for classes; each query against the others whose own candidates come highest
for it, as a person would name what it is taken for: without them, with them as the agent has
`not`, with twice as much taken off, and with their vectors as parts of weight -0.5 in all. "over
rivals" is how often a candidate that is right stands before one of those others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from agent.cli import run_command
from agent.config import MatchConfig
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from agent.match.meaning import Meaning, Part, Terms, Together, terms_of
from agent.types import Embedding
from encoders.bind.scoring import RetrievalScores, relevant_ranks, score_retrieval
from encoders.space import ModelSpace, open_space
from tools.output import progress, report_console
from tools.retrieval_queries import TEXT, Item, Query, read_queries

__all__ = ["main"]

FLOOR = MatchConfig().min_deviation
WEIGHTS = ((0.8, 0.2), (0.65, 0.35), (0.5, 0.5), (0.35, 0.65), (0.2, 0.8))
RIVALS = 3

Float64Array = NDArray[np.float64]
Embeddings = Mapping[Item, Embedding]
Row = tuple[str, str, RetrievalScores, float | None]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", default="compact", help="model folder, or one that ships")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="as tools.evaluate")
    args = parser.parse_args(argv)
    space = open_space(args.space, RuntimeOptions())
    tasks: dict[str, list[Query]] = {}
    for query in read_queries(args.data, space.modalities):
        tasks.setdefault(query.task, []).append(query)
    summed = {task: own for task, own in tasks.items() if all(len(q.parts) == 2 for q in own)}
    classes = {task: own for task, own in tasks.items() if _answers_for_classes(own)}
    if not summed and not classes:
        raise ConfigError(f"{args.data}: no task of two parts or of classes, expected at least one")
    asked = [query for own in (*summed.values(), *classes.values()) for query in own]
    vectors = _embed(space, args.data, asked)
    rows = [row for task, own in summed.items() for row in _sums(task, own, space, vectors)]
    rows += [row for task, own in classes.items() for row in _contrasts(task, own, space, vectors)]
    report_console().print(_table(space.identity, rows))
    return 0


def _answers_for_classes(queries: Sequence[Query]) -> bool:
    """One part each, one pool of files, and several relevant for each of several queries."""
    pools, answers = {q.candidates for q in queries}, {q.relevant for q in queries}
    one = all(len(q.parts) == 1 and len(q.relevant) > 1 for q in queries)
    return one and len(pools) == 1 and len(answers) > RIVALS and _sense(queries) != TEXT


def _sense(queries: Sequence[Query]) -> str:
    return queries[0].candidates[0].modality


def _embed(space: ModelSpace, folder: Path, queries: Sequence[Query]) -> Embeddings:
    items = dict.fromkeys(item for q in queries for item in (*q.parts, *q.candidates))
    text = space.text_encoder()
    text.load()
    return {
        item: text.encode([item.value])[0]
        if item.modality == TEXT
        else space.embed_file(str(folder / item.value), item.modality)
        for item in progress(items, "embedding")
    }


def _sums(
    task: str, queries: Sequence[Query], space: ModelSpace, vectors: Embeddings
) -> Iterator[Row]:
    def found(meanings: Sequence[Meaning]) -> RetrievalScores:
        terms = [terms_of(m, space, _sense(queries), FLOOR) for m in meanings]
        return _found(queries, _scores(queries, terms, space.dim, vectors))

    parts = [[vectors[item] for item in query.parts] for query in queries]
    for number in range(2):
        name = f"{queries[0].parts[number].modality} alone"
        yield task, name, found([Meaning((Part(own[number]),)) for own in parts]), None
    for pair in WEIGHTS:
        meanings = [
            Meaning(tuple(Part(e, w) for e, w in zip(own, pair, strict=True))) for own in parts
        ]
        yield task, f"{pair[0]:g} + {pair[1]:g}", found(meanings), None
    whole = [np.sum([embedding.vector for embedding in own], axis=0) for own in parts]
    units = [
        replace(own[0], vector=(v / np.linalg.norm(v)).astype(np.float32), views=None)
        for own, v in zip(parts, whole, strict=True)
    ]
    yield task, "plain unit sum", found([Meaning((Part(unit),)) for unit in units]), None


def _contrasts(
    task: str, queries: Sequence[Query], space: ModelSpace, vectors: Embeddings
) -> Iterator[Row]:
    sense = _sense(queries)
    own = [Part(vectors[query.parts[0]]) for query in queries]
    plain = [terms_of(Meaning((part,)), space, sense, FLOOR) for part in own]
    alone = _scores(queries, plain, space.dim, vectors)
    rivals = [_rivals(queries, number, scores) for number, scores in enumerate(alone)]
    named = [
        terms_of(Meaning((part,), tuple(own[r] for r in those)), space, sense, FLOOR)
        for part, those in zip(own, rivals, strict=True)
    ]
    minus = [
        Meaning((part, *(replace(own[r], weight=-0.5 / len(those)) for r in those)))
        for part, those in zip(own, rivals, strict=True)
    ]
    for name, terms in (
        ("alone", plain),
        ("not", named),
        ("not, all of it", [replace(t, slopes=2 * t.slopes) for t in named]),
        ("vectors taken away", [terms_of(m, space, sense, FLOOR) for m in minus]),
    ):
        scores = _scores(queries, terms, space.dim, vectors)
        over = [_over(q, s, queries, r) for q, s, r in zip(queries, scores, rivals, strict=True)]
        yield task, name, _found(queries, scores), float(np.mean(over))


def _rivals(queries: Sequence[Query], number: int, scores: Float64Array) -> list[int]:
    """The other classes whose own candidates come highest for the query of `number`."""
    relevant = set(queries[number].relevant)
    others = {q.relevant: n for n, q in enumerate(queries) if not relevant & set(q.relevant)}
    high = sorted(others, key=lambda own: -scores[list(own)].mean())
    return [others[own] for own in high[:RIVALS]]


def _over(
    query: Query, scores: Float64Array, queries: Sequence[Query], rivals: Sequence[int]
) -> float:
    right = scores[list(query.relevant)][:, np.newaxis]
    wrong = scores[[index for r in rivals for index in queries[r].relevant]]
    return float(((right > wrong) + 0.5 * (right == wrong)).mean())


def _scores(
    queries: Sequence[Query], terms: Sequence[Terms], dim: int, vectors: Embeddings
) -> list[Float64Array]:
    """For each query, of each of its candidates."""
    togethers = [Together([each], dim) for each in terms]
    return [
        np.array([together.answer(vectors[item].rows)[0][0] for item in query.candidates])
        for query, together in zip(queries, togethers, strict=True)
    ]


def _found(queries: Sequence[Query], scores: Sequence[Float64Array]) -> RetrievalScores:
    ranks = []
    for query, own in zip(queries, scores, strict=True):
        relevant = np.zeros(len(own), np.bool_)
        relevant[list(query.relevant)] = True
        ranks.append(relevant_ranks(own, relevant))
    return score_retrieval(ranks, [len(query.candidates) for query in queries])


def _table(identity: str, rows: Sequence[Row]) -> Table:
    table = Table(title=f"composed in {identity}")
    for name in ("task (queries)", "how"):
        table.add_column(name)
    for name in ("recall@1", "recall@5", "map", "over rivals"):
        table.add_column(name, justify="right")
    for task, how, scores, over in rows:
        told = "" if over is None else f"{over:.2f}"
        cells = [
            f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"
            for e in (scores.recall[1], scores.recall[5], scores.map)
        ]
        table.add_row(f"{task} ({scores.queries})", how, *cells, told)
    return table


if __name__ == "__main__":
    sys.exit(main())
