"""What is being asked: definitions in, unit vectors embedded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from agent.config import GateConfig, QueryConfig
from agent.errors import ConfigError
from agent.match.taught import read_taught
from agent.types import Embedding, StreamInfo
from agent.wire import QueryRef

__all__ = ["Query", "QuerySet"]

Embed = Callable[[QueryConfig], Embedding]


@dataclass(frozen=True)
class Query:
    """One question with its vector. rev: first 12 hex of the sha256 of its definition."""

    config: QueryConfig
    ref: QueryRef
    gate: GateConfig
    embedding: Embedding

    @property
    def key(self) -> tuple[str, str]:
        """(id, rev): changes with the definition, so learned nulls are kept while it does not."""
        return self.ref.id, self.ref.rev

    def prior(self, modality: str) -> tuple[float, float] | None:
        """Mean and deviation of its cosine with ordinary input, where they were found with it.

        A probe is made to push the space's background down: what it gives there is no measure.
        """
        taught = self.config.taught
        return taught.ordinary if taught is not None and taught.modality == modality else None

    def may_answer(self, stream: StreamInfo) -> bool:
        """Whether this stream is one that the query listens to."""
        config = self.config
        return (config.streams is None or stream.name in config.streams) and (
            config.senses is None or stream.modality in config.senses
        )


class QuerySet:
    """The queries by id, in the order they were put. `version` rises with every change."""

    def __init__(self, embed: Embed, default_gate: GateConfig) -> None:
        """embed: a definition to its unit vector; raises ConfigError where it cannot."""
        self._embed, self._default_gate = embed, default_gate
        self._queries: dict[str, Query] = {}
        self.version = 0

    def __len__(self) -> int:
        return len(self._queries)

    def put(self, config: QueryConfig) -> Query:
        """Add a query, or replace the one of the same id. Unchanged ones are left alone."""
        config = _resolved(config.named())
        rev = _revision(config)
        old = self._queries.get(config.id)
        same = old if old is not None and old.ref.rev == rev else None
        if same is not None and same.config == config:
            return same
        query = Query(
            config=config,
            ref=QueryRef(id=config.id, rev=rev, label=config.label),
            gate=config.gate or self._default_gate,
            embedding=same.embedding if same is not None else self._embed(config),
        )
        self._queries[config.id] = query
        self.version += 1
        return query

    def remove(self, query_id: str) -> Query:
        """Raises ConfigError for an unknown id."""
        query = self.get(query_id)
        del self._queries[query_id]
        self.version += 1
        return query

    def enable(self, query_id: str, enabled: bool) -> Query:
        """Switch a query on or off. Raises ConfigError for an unknown id."""
        config = msgspec.structs.replace(self.get(query_id).config, enabled=enabled)
        return self.put(config)

    def get(self, query_id: str) -> Query:
        if query_id not in self._queries:
            known = ", ".join(self._queries) or "none"
            raise ConfigError(f"query id: got {query_id!r}, expected one of: {known}")
        return self._queries[query_id]

    def all(self) -> list[Query]:
        return list(self._queries.values())

    def enabled(self) -> list[Query]:
        return [query for query in self._queries.values() if query.config.enabled]


def _resolved(config: QueryConfig) -> QueryConfig:
    """The same, with what a file of `vector` holds in its place: it is read once.

    Where nothing says who may answer, a taught query is for the sense of its examples: a probe
    was fitted against the background of that one.
    """
    taught = config.taught
    if config.vector is not None:
        try:
            taught = read_taught(config.vector)
        except ConfigError as exc:
            raise ConfigError(f"query {config.id}: {exc}") from exc
    if taught is None:
        return config
    open_to_all = config.streams is None and config.senses is None
    senses = [taught.modality] if open_to_all else config.senses
    return msgspec.structs.replace(config, vector=None, taught=taught, senses=senses)


def _revision(config: QueryConfig) -> str:
    """Hash of what is asked for. A file counts by its content, so it may be moved."""
    definition = msgspec.to_builtins(config, enc_hook=lambda path: path.name)
    del definition["enabled"]
    for name in ("vector", "taught"):  # so that what has none keeps the revision it ever had
        if definition[name] is None:
            del definition[name]
    file = config.audio or config.image
    try:
        content = file.read_bytes() if file else b""
    except OSError as exc:
        raise ConfigError(f"query {config.id}: {file}: {exc.strerror or exc}") from exc
    text = json.dumps(definition, sort_keys=True).encode()
    return hashlib.sha256(text + content).hexdigest()[:12]
