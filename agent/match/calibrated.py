"""What nulls have learned, kept in a file, so that an agent need not begin at the prior again."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from agent.errors import ConfigError, SpaceMismatch
from agent.match.calibration import Float64Array, Null
from agent.match.combined import Combined
from agent.match.tail import Rows, Tail
from agent.types import Array, StreamInfo

__all__ = ["Calibration", "Key", "calibration_of", "read_calibration"]

Key: TypeAlias = tuple[str, str]  # id of a query, and its sense_rev (agent.match.queries)
SUM = "+"  # no stream has such a name
AGAIN = "learn it again: python -m tools.calibrate"


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The archive's comment. streams: name -> its sense."""

    space: str
    queries: list[Key]
    streams: dict[str, str]


@dataclass(frozen=True)
class Calibration:
    """space: identity "name@hash". arrays: by "STREAM/null.NAME" and "STREAM/tail.NAME", rows as
    `queries`; STREAM is one of `streams`, which have their senses. Where weights were measured also
    "STREAM/weight", NaN for a query without, and "+/NAME", what Combined.learned has of the sum.
    """

    space: str
    queries: Sequence[Key]
    streams: Mapping[str, str]
    arrays: Mapping[str, Array]

    @property
    def head(self) -> str:
        """JSON for the comment of the .npz that holds `arrays`."""
        head = _Head(space=self.space, queries=list(self.queries), streams=dict(self.streams))
        return msgspec.json.encode(head).decode()

    def check(self, keys: Sequence[Key], source: str) -> None:
        """Raises ConfigError where a query of `keys` has changed since; one that is new has not."""
        known = dict(self.queries)
        for query_id, rev in keys:
            if known.get(query_id, rev) != rev:
                raise ConfigError(
                    f"{source}: was learned for revision {known[query_id]} of query "
                    f"{query_id!r}, expected {rev}; {AGAIN}"
                )

    def give(self, info: StreamInfo, rows: Mapping[Key, int], null: Null, tail: Tail) -> None:
        """To the nulls of one stream what was learned of them on a stream of that name and sense;
        rows: of each query.
        """
        if self.streams.get(info.name) != info.modality:
            return
        here, there = self._kept(rows)
        null.take(self._of(f"{info.name}/null."), here, there)
        tail.take(self._of(f"{info.name}/tail."), here, there)

    def with_weights(self, weights: Float64Array, learned: Mapping[str, Array]) -> Calibration:
        """The same, and weights measured. weights: (queries, streams) >= 0, the sum of a query 1;
        NaN for none. learned: of a Combined of these queries and streams.
        """
        own = {f"{name}/weight": weights[:, i] for i, name in enumerate(self.streams)}
        summed = {f"{SUM}/{name}": array for name, array in learned.items()}
        return replace(self, arrays={**self.arrays, **own, **summed})

    def weights(self, infos: Sequence[StreamInfo], rows: Mapping[Key, int]) -> Float64Array:
        """(rows, streams) >= 0, as measured on streams of those names and senses; NaN for none."""
        weights = np.full((len(rows), len(infos)), np.nan)
        here, there = self._kept(rows)
        for column, info in enumerate(infos):
            own = self.arrays.get(f"{info.name}/weight")
            if own is not None and self.streams.get(info.name) == info.modality:
                weights[here, column] = own[there]
        return weights

    def give_sum(
        self, infos: Sequence[StreamInfo], rows: Mapping[Key, int], combined: Combined
    ) -> None:
        """To the sum of the streams what was learned of it, of each query all of whose weighted
        streams are there: weights add up to 1.
        """
        here, there = self._kept(rows)
        whole = np.isclose(combined.weights[here].sum(axis=1), 1.0)
        if whole.any():
            numbers = {name: number for number, name in enumerate(self.streams)}
            known = [
                (i, numbers[info.name]) for i, info in enumerate(infos) if info.name in numbers
            ]
            combined.begin(self._of(f"{SUM}/"), dict(known), here[whole], there[whole])

    def _kept(self, rows: Mapping[Key, int]) -> tuple[Rows, Rows]:
        """Rows of the queries that it has: there, by `rows`, and its own."""
        kept = [(rows[key], own) for own, key in enumerate(self.queries) if key in rows]
        here, own = np.array(kept, np.intp).reshape(-1, 2).T
        return here, own

    def _of(self, prefix: str) -> dict[str, Array]:
        own = (name for name in self.arrays if name.startswith(prefix))
        return {name.removeprefix(prefix): self.arrays[name] for name in own}


def calibration_of(
    space: str,
    queries: Sequence[Key],
    streams: Mapping[str, tuple[str, Mapping[str, Array], Mapping[str, Array]]],
) -> Calibration:
    """streams: name -> (sense, what its Null has learned, what its Tail has)."""
    arrays: dict[str, Array] = {}
    for name, (_, null, tail) in streams.items():
        arrays |= {f"{name}/null.{field}": array for field, array in null.items()}
        arrays |= {f"{name}/tail.{field}": array for field, array in tail.items()}
    senses = {name: sense for name, (sense, _, _) in streams.items()}
    return Calibration(space, queries, senses, arrays)


def read_calibration(path: Path, space: str) -> Calibration:
    """What tools.calibrate wrote in the space of that identity, "name@hash".

    Raises SpaceMismatch for one of another space, ConfigError for a file that is missing or of
    another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            head = msgspec.json.decode(archive.zip.comment, type=_Head)
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: no such file, expected one that tools.calibrate wrote") from exc
    # AttributeError: a lone array; msgspec's: another .npz; the others: no .npz, or a damaged one.
    except (
        OSError, ValueError, AttributeError, EOFError, msgspec.DecodeError, zipfile.BadZipFile,
    ) as exc:  # fmt: skip
        reason = " ".join(str(exc).split())
        raise ConfigError(
            f"{path}: not a calibration ({reason}), expected one that tools.calibrate wrote"
        ) from exc
    if head.space != space:
        raise SpaceMismatch(f"{path}: was learned in {head.space}, expected {space}; {AGAIN}")
    found = Calibration(space, head.queries, head.streams, arrays)
    _check(found, path)
    return found


def _check(found: Calibration, path: Path) -> None:
    """Raises ConfigError for an archive of an older or a damaged kind; one from before weights were
    measured has none.
    """
    count = len(found.queries)
    tail = Tail(1.0, np.zeros(count), np.zeros(count))
    wanted = {f"tail.{name}": array.shape for name, array in tail.learned().items()}
    wanted |= {f"null.{name}": (count,) for name in Null.LEARNED}
    shapes = {f"{stream}/{name}": wanted[name] for stream in found.streams for name in wanted}
    weighted = [f"{stream}/weight" for stream in found.streams]
    if any(name in found.arrays for name in weighted):
        combined = Combined(count, list(found.streams), 1.0).learned()
        shapes |= {f"{SUM}/{name}": array.shape for name, array in combined.items()}
        shapes |= dict.fromkeys(weighted, (count,))
    for name, shape in shapes.items():
        array = found.arrays.get(name)
        if array is None or array.shape != shape:
            got = "none" if array is None else list(array.shape)
            raise ConfigError(f"{path}: {name} is {got}, expected {list(shape)}; {AGAIN}")
    for row, (query_id, _) in enumerate(found.queries):
        own = np.array([found.arrays[name][row] for name in weighted if name in found.arrays])
        own = own[~np.isnan(own)]
        if len(own) and not ((own >= 0).all() and np.isclose(own.sum(), 1.0)):
            raise ConfigError(
                f"{path}: weights of query {query_id!r} are {own.tolist()}, expected numbers from "
                f"0 on whose sum is 1; {AGAIN}"
            )
