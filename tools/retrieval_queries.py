"""`queries.jsonl`: what is looked for, among what, and what should be found. Read and checked."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import ConfigError

__all__ = ["MODALITIES_NAME", "QUERIES_NAME", "TEXT", "Item", "Query", "read_queries"]

QUERIES_NAME = "queries.jsonl"
MODALITIES_NAME = "modalities.json"
TEXT = "text"
QUERY = "query"  # the part whose modality its folder tells

# Folders' names that are not themselves a modality's.
_ALIASES = {
    **dict.fromkeys(("images", "img", "photo", "photos", "picture", "pictures", "rgb"), "image"),
    "sound": "audio",
    "sounds": "audio",
    "infrared": "thermal",
    "lwir": "thermal",
}


@dataclass(frozen=True)
class Item:
    """What has a vector. value: a text, or a file's path below the folder, with forward slashes."""

    modality: str
    value: str


@dataclass(frozen=True)
class Query:
    """One line. parts: composed. candidates: what is searched. relevant: their indices, rising.

    where: "file:line", for messages.
    """

    where: str
    task: str
    parts: tuple[Item, ...]
    candidates: tuple[Item, ...]
    relevant: tuple[int, ...]


def read_queries(
    folder: Path, modalities: Sequence[str], tasks: Collection[str] = ()
) -> list[Query]:
    """The lines of `folder`/queries.jsonl, every file they name looked for.

    modalities: the senses there are; text is one more. tasks: only these, where any is given. A
    field that is not known is left aside. Raises ConfigError naming file, line, field, value and
    what was expected.
    """
    path = folder / QUERIES_NAME
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a text may hold other breaks
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigError(f"{path}: cannot be read ({reason}), expected JSON lines") from exc
    reader = _Reader(folder, modalities)
    numbered = [(f"{path}:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    rows = [(where, *_row(line, where)) for where, line in numbered]
    found = sorted({task for _, task, _ in rows})
    if not found:
        raise ConfigError(f"{path}: no lines, expected a query a line")
    for task in tasks:
        if task not in found:
            raise ConfigError(f"{path}: no task {task!r}, expected one of {', '.join(found)}")
    return [
        reader.query(task, fields, where)
        for where, task, fields in rows
        if not tasks or task in tasks
    ]


def _row(line: str, where: str) -> tuple[str, dict[str, Any]]:
    """A line's task and its fields, without those that are null."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{where}: not JSON ({exc.msg}), expected an object") from exc
    if not isinstance(fields, dict):
        raise ConfigError(f"{where}: {_shown(fields)}, expected an object")
    task = fields.get("task")
    if not isinstance(task, str) or not task:
        raise ConfigError(f"{where}: task is {_shown(task)}, expected a name")
    return task, {name: value for name, value in fields.items() if value is not None}


class _Reader:
    def __init__(self, folder: Path, modalities: Sequence[str]) -> None:
        self._folder = folder
        self._modalities = tuple(modalities)
        self._named = _read_modalities(folder / MODALITIES_NAME, self._modalities)
        self._pools: dict[str, tuple[Item, ...]] = {}

    def query(self, task: str, fields: dict[str, Any], where: str) -> Query:
        keys = (TEXT, QUERY, *self._modalities)
        parts = tuple(
            self._part(key, value, where)
            for key in fields
            if key in keys
            for value in _strings(fields[key], f"{where}: {key}")
        )
        if not parts:
            raise ConfigError(
                f"{where}: fields are {', '.join(fields)}, expected one of {', '.join(keys)}"
            )
        candidates = self._candidates(fields, where)
        relevant = _relevant(fields, candidates, where)
        return Query(where, task, parts, candidates, relevant)

    def _part(self, key: str, value: str, where: str) -> Item:
        if key == TEXT:
            return Item(TEXT, value)
        file = self._below(value, f"{where}: {key}")
        if not (self._folder / file).is_file():
            raise ConfigError(f"{where}: {key} is {value!r}, expected a file below {self._folder}")
        if key == QUERY:
            key = self._modality_of(posixpath.dirname(file), f"{where}: {key} is {value!r}")
        return Item(key, file)

    def _candidates(self, fields: dict[str, Any], where: str) -> tuple[Item, ...]:
        if ("pool" in fields) == ("candidates" in fields):
            raise ConfigError(f"{where}: pool and candidates, expected exactly one of them")
        if "candidates" in fields:
            texts = _strings(fields["candidates"], f"{where}: candidates")
            return tuple(Item(TEXT, text) for text in texts)
        pool = fields["pool"]
        if not isinstance(pool, str):
            raise ConfigError(f"{where}: pool is {_shown(pool)}, expected a folder's name")
        pool = self._below(pool, f"{where}: pool")
        if pool not in self._pools:
            self._pools[pool] = self._read_pool(pool, where)
        return self._pools[pool]

    def _read_pool(self, pool: str, where: str) -> tuple[Item, ...]:
        root = self._folder / pool
        if not root.is_dir():
            raise ConfigError(f"{where}: pool is {pool!r}, expected a folder below {self._folder}")
        modality = self._modality_of(pool, f"{where}: pool is {pool!r}")
        files = sorted(
            file.relative_to(self._folder).as_posix()
            for file in root.rglob("*")
            if file.is_file() and not file.name.startswith(".")
        )
        if not files:
            raise ConfigError(f"{where}: pool is {pool!r}, an empty folder, expected files")
        return tuple(Item(modality, file) for file in files)

    def _below(self, value: str, where: str) -> str:
        path = posixpath.normpath(value)
        if posixpath.isabs(path) or path.split("/")[0] == "..":
            raise ConfigError(f"{where} is {value!r}, expected a path below {self._folder}")
        return path

    def _modality_of(self, folder: str, where: str) -> str:
        """By the folder's own name, else modalities.json, else a word of its name, else the same
        of the folder it is in.
        """
        inner = folder or "."
        while inner:
            name = posixpath.basename(inner).lower()
            if found := self._sense(name):
                return found
            for key in (inner, posixpath.basename(inner)):
                if key in self._named:
                    return self._named[key]
            senses = {sense for word in re.split(r"[\W_\d]+", name) if (sense := self._sense(word))}
            if len(senses) == 1:
                return senses.pop()
            inner = posixpath.dirname(inner)
        raise ConfigError(
            f"{where}: no modality by its folder's name, expected one of "
            f"{', '.join(self._modalities)}, or {MODALITIES_NAME} to name it"
        )

    def _sense(self, name: str) -> str | None:
        return _sense(name, self._modalities)


def _sense(name: str, modalities: Sequence[str]) -> str | None:
    sense = _ALIASES.get(name, name)
    return sense if sense in modalities else None


def _read_modalities(path: Path, modalities: Sequence[str]) -> dict[str, str]:
    """Folder to modality; empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        named = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(f"{path}: {exc}, expected an object of folder: modality") from exc
    senses = {}
    for folder, name in named.items():
        sense = _sense(name, modalities)
        if sense is None:
            raise ConfigError(
                f"{path}: {folder} is {name!r}, expected one of {', '.join(modalities)}"
            )
        senses[posixpath.normpath(folder)] = sense
    return senses


def _relevant(fields: dict[str, Any], candidates: tuple[Item, ...], where: str) -> tuple[int, ...]:
    """Indices, from a list of indices, texts, or files by their path below the folder or pool."""
    given = fields.get("relevant")
    if isinstance(given, str) or type(given) is int:
        given = [given]
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{where}: relevant is {_shown(given)}, expected a list of at least one")
    places: dict[str, list[int]] = {}
    pool = posixpath.normpath(fields.get("pool", "."))
    for i, item in enumerate(candidates):
        names = {item.value}
        if item.modality != TEXT:
            names.add(posixpath.relpath(item.value, pool))
        for name in names:
            places.setdefault(name, []).append(i)
    found: set[int] = set()
    for value in given:
        if type(value) is int and 0 <= value < len(candidates):
            found.add(value)
            continue
        name = value if "candidates" in fields else posixpath.normpath(str(value))
        if not isinstance(value, str) or name not in places:
            raise ConfigError(
                f"{where}: relevant has {_shown(value)}, expected one of the {len(candidates)} "
                "candidates, or its index from 0"
            )
        found.update(places[name])
    return tuple(sorted(found))


def _strings(value: Any, where: str) -> list[str]:
    """One string, or a list of them."""
    values = [value] if isinstance(value, str) else value
    if (
        not isinstance(values, list)
        or not values
        or not all(isinstance(each, str) and each.strip() for each in values)
    ):
        raise ConfigError(f"{where} is {_shown(value)}, expected a string or a list of them")
    return values


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
