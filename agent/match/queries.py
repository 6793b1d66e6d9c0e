"""What is being asked: definitions in, vectors embedded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from agent.config import AskedConfig, GateConfig, QueryConfig
from agent.contracts import MAX_FILE_BYTES, Space
from agent.errors import ConfigError
from agent.match.grammar import Atom, Node, atoms_of, parse_when
from agent.match.meaning import Meaning, Terms, terms_of
from agent.match.taught import read_taught
from agent.types import StreamInfo, check_name
from agent.wire import QueryRef

__all__ = ["Embed", "Query", "QuerySet"]

A = TypeVar("A", bound=AskedConfig)
Embed = Callable[[QueryConfig], Meaning]

# What says who tells a query's events, and when; the rest of it is what its nearness depends on.
_TELLING = ("enabled", "label", "gate", "max_false_alarms_per_hour", "streams", "senses")
# A topic has to fit into a subscription (agent/publish/sockets.py).
MAX_CHARACTERS = 2000
# Fields that came later: left out where they say nothing, so that what has none keeps the revision
# it ever had.
_LATER = (
    *("depth", "thermal", "imu", "file", "modality", "log", "vector", "taught"),
    *("sum", "when", "not", "templates", "max_false_alarms_per_hour"),
)


@dataclass(frozen=True)
class Query:
    """One question with its vectors. rev: first 12 hex of the sha256 of its definition. sense_rev:
    the same of what its nearness depends on alone, so neither of its gate nor of who may answer.
    node: of a `when`, which has no vectors; quoted: the queries of the texts in it.
    """

    config: QueryConfig
    ref: QueryRef
    gate: GateConfig
    meaning: Meaning
    sense_rev: str
    node: Node | None = None
    quoted: tuple[Query, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """(id, rev): changes with the definition, and with it what is open."""
        return self.ref.id, self.ref.rev

    @property
    def null_key(self) -> tuple[str, str]:
        """(id, sense_rev): while it stays, so does what a stream's null has learned."""
        return self.ref.id, self.sense_rev

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """Of a `when`, each once."""
        return () if self.node is None else tuple(dict.fromkeys(atoms_of(self.node)))

    def id_of(self, atom: Atom) -> str:
        """The id of the query that is one of `atoms`."""
        return _quoted_id(self.ref.id, atom.name) if atom.quoted else atom.name

    def terms(self, space: Space, modality: str, floor: float) -> Terms:
        """Its vectors and weights on a sense. As agent.match.meaning.terms_of."""
        try:
            return terms_of(self.meaning, space, modality, floor)
        except ConfigError as exc:
            raise ConfigError(f"query {self.ref.id}: {exc}") from exc

    def may_answer(self, stream: StreamInfo) -> bool:
        """Whether this stream is one that the query listens to."""
        config = self.config
        return (config.streams is None or stream.name in config.streams) and (
            config.senses is None or stream.modality in config.senses
        )


class QuerySet:
    """The queries by id, in the order they were put. `version` rises with every change."""

    def __init__(self, embed: Embed, default_gate: GateConfig) -> None:
        """embed: a definition to its vectors; raises ConfigError where it cannot."""
        self._embed, self._default_gate = embed, default_gate
        self._queries: dict[str, Query] = {}
        self.version = 0

    def __len__(self) -> int:
        return len(self._queries)

    def put(self, config: QueryConfig) -> Query:
        """Add a query, or replace the one of the same id. Unchanged ones are left alone."""
        config = _resolved(_checked(config.named()))
        old = self._queries.get(config.id)
        query = self._when(config) if config.when is not None else self._made(config, old)
        if old is not None and old.key == query.key and old.config == config:
            return old
        if query.node is not None:
            self._refuse_named(config.id, "expected one that is no `when` itself")
        self._queries[config.id] = query
        self.version += 1
        return query

    def _made(self, config: QueryConfig, old: Query | None) -> Query:
        rev, sense_rev = _revisions(config)
        same = old if old is not None and old.ref.rev == rev else None
        return Query(
            config=config,
            ref=QueryRef(id=config.id, rev=rev, label=config.label),
            gate=config.gate or self._default_gate,
            meaning=same.meaning if same is not None else self._embed(config),
            sense_rev=sense_rev,
        )

    def _when(self, config: QueryConfig) -> Query:
        """Raises ConfigError for what cannot be read, and for a name of no query."""
        assert config.when is not None
        try:
            node = parse_when(config.when)
            for atom in atoms_of(node):
                if not atom.quoted:
                    self._check_named(atom.name, config.id)
        except ConfigError as exc:
            raise ConfigError(f"query {config.id}: {exc}") from exc
        rev, sense_rev = _revisions(config)
        texts = dict.fromkeys(atom.name for atom in atoms_of(node) if atom.quoted)
        quoted = []
        for text in texts:
            own = replace(
                config,
                id=_quoted_id(config.id, text),
                label=text,
                text=text,
                when=None,
                enabled=False,  # it tells no events of its own
            )
            known = self._queries.get(config.id)
            before = next((q for q in known.quoted if q.ref.id == own.id), None) if known else None
            quoted.append(self._made(own, before))
        return Query(
            config=config,
            ref=QueryRef(id=config.id, rev=rev, label=config.label),
            gate=config.gate or self._default_gate,
            meaning=Meaning(()),
            sense_rev=sense_rev,
            node=node,
            quoted=tuple(quoted),
        )

    def _check_named(self, name: str, by: str) -> None:
        named = self._queries.get(name)
        if named is None or named.node is not None or name == by:
            others = [q.ref.id for q in self._queries.values() if q.node is None and q.ref.id != by]
            raise ConfigError(
                f"when: got {name!r}, expected a query that is no `when`: "
                f"{', '.join(others) or 'none yet'}; or a text in double quotes"
            )

    def _refuse_named(self, query_id: str, expected: str) -> None:
        for query in self._queries.values():
            if any(a.name == query_id and not a.quoted for a in query.atoms):
                raise ConfigError(
                    f"query id: got {query_id!r}, which `when` of {query.ref.id} names, {expected}"
                )

    def remove(self, query_id: str) -> Query:
        """Raises ConfigError for an unknown id."""
        query = self.get(query_id)
        self._refuse_named(query_id, "expected one that none does")
        del self._queries[query_id]
        self.version += 1
        return query

    def enable(self, query_id: str, enabled: bool) -> Query:
        """Switch a query on or off. Raises ConfigError for an unknown id."""
        config = replace(self.get(query_id).config, enabled=enabled)
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

    def whens(self) -> list[Query]:
        """Those that are enabled."""
        return [query for query in self.enabled() if query.node is not None]

    def scored(self) -> list[Query]:
        """Those with vectors that are enabled, or are an atom of a `when` that is."""
        whens = self.whens()
        named = {atom.name for when in whens for atom in when.atoms if not atom.quoted}
        own = [
            query
            for query in self._queries.values()
            if query.node is None and (query.config.enabled or query.ref.id in named)
        ]
        return [*own, *(query for when in whens for query in when.quoted)]


def _quoted_id(query_id: str, text: str) -> str:
    """No other query has such an id, and no topic."""
    return f"{query_id}/{text}"


def _checked(config: QueryConfig) -> QueryConfig:
    """It, where its id can be a level of a topic, and it and its label be told each time."""
    for field, told in (("id", config.id), ("label", config.label)):
        if len(told) > MAX_CHARACTERS:
            raise ConfigError(
                f"query {field}: has {len(told)} characters, expected at most {MAX_CHARACTERS}; "
                f"{field} says a shorter one"
            )
    check_name(config.id, "query id")  # that of a pattern takes a newline at the end
    return config


def _resolved(config: QueryConfig) -> QueryConfig:
    """The same, with what each file of `vector` holds in its place: it is read once.

    Where nothing says who may answer, a taught query is for the sense of its examples: a probe
    was fitted against the background of that one.
    """
    try:
        config = _read(config)
        if config.sum is not None:
            config = replace(config, sum=[_read(part) for part in config.sum])
        against = [each if isinstance(each, str) else _read(each) for each in config.against]
    except ConfigError as exc:
        raise ConfigError(f"query {config.id}: {exc}") from exc
    config = replace(config, against=against)
    open_to_all = config.streams is None and config.senses is None
    if config.taught is not None and open_to_all:
        config = replace(config, senses=[config.taught.modality])
    return config


def _read(asked: A) -> A:
    """With `taught` for a file of `vector`."""
    if asked.vector is None:
        return asked
    return replace(asked, vector=None, taught=read_taught(asked.vector))


def _revisions(config: QueryConfig) -> tuple[str, str]:
    """Hashes of the definition and of what its nearness depends on."""
    definition = msgspec.to_builtins(config, enc_hook=lambda path: path.name)
    content = b"".join(_content(each, config.id) for each in (*config.parts(), *config.contrasts()))
    definition = {n: v for n, v in definition.items() if v or n not in _LATER}
    del definition["enabled"]
    own = {name: value for name, value in definition.items() if name not in _TELLING}
    del own["id"]
    return _hash(definition, content), _hash(own, content)


def _hash(definition: dict[str, Any], content: bytes) -> str:
    text = json.dumps(definition, sort_keys=True).encode()
    return hashlib.sha256(text + content).hexdigest()[:12]


def _content(asked: AskedConfig, query_id: str) -> bytes:
    """What a file counts by, so that it may be moved. Of a log, which may be far too large to
    read, its size; and so of what embed_file will refuse, a pipe for one, which may have no end.
    """
    sensed = asked.sense_file()
    path = asked.log.file if asked.log else sensed[1] if sensed else None
    if path is None:
        return b""
    try:
        size = path.stat().st_size
        whole = not asked.log and 0 < size <= MAX_FILE_BYTES
        return path.read_bytes() if whole else str(size).encode()
    except OSError as exc:
        raise ConfigError(f"query {query_id}: {path}: {exc.strerror or exc}") from exc
