"""What nulls have learned, kept in a file, so that an agent need not begin at the prior again."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from agent.errors import ConfigError, SpaceMismatch
from agent.match.calibration import Null
from agent.match.tail import Tail
from agent.types import Array, StreamInfo

__all__ = ["Calibration", "Key", "calibration_of", "read_calibration"]

Key: TypeAlias = tuple[str, str]  # id of a query, and its sense_rev (agent.match.queries)
AGAIN = "learn it again: python -m tools.calibrate"


class _Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The archive's comment. streams: name -> its sense."""

    space: str
    queries: list[Key]
    streams: dict[str, str]


@dataclass(frozen=True)
class Calibration:
    """space: identity "name@hash". arrays: by "STREAM/null.NAME" and "STREAM/tail.NAME", rows as
    `queries`; STREAM is one of `streams`, which have their senses.
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
        kept = [(rows[key], there) for there, key in enumerate(self.queries) if key in rows]
        here, there = np.array(kept, np.intp).reshape(-1, 2).T
        null.take(self._of(f"{info.name}/null."), here, there)
        tail.take(self._of(f"{info.name}/tail."), here, there)

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
    _check_shapes(found, path)
    return found


def _check_shapes(found: Calibration, path: Path) -> None:
    """Raises ConfigError for an archive of an older or a damaged kind."""
    count = len(found.queries)
    tail = Tail(1.0, np.zeros(count), np.zeros(count))
    wanted = {f"tail.{name}": array.shape for name, array in tail.learned().items()}
    wanted |= {f"null.{name}": (count,) for name in Null.LEARNED}
    for stream in found.streams:
        for name, shape in wanted.items():
            array = found.arrays.get(f"{stream}/{name}")
            if array is None or array.shape != shape:
                got = "none" if array is None else list(array.shape)
                raise ConfigError(
                    f"{path}: {stream}/{name} is {got}, expected {list(shape)}; {AGAIN}"
                )
