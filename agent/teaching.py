"""Few-shot teaching: examples as files, or marked in what was just sensed, to a query."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.config import GateConfig, QueryConfig, Taught
from agent.config.values import Name, NotNegative, Positive
from agent.contracts import Space
from agent.core import Core
from agent.errors import ConfigError, EncodeFailed
from agent.match.teaching import MAX_EXAMPLES, Lesson, Method, mean_vector, teach
from agent.types import Array, Embedding, Settings

__all__ = ["Mark", "TeachConfig", "embed_example", "sense_of", "taught_query", "teach_query"]

MAX_NEGATIVES = 64  # of one request: the agent is deaf while it reads them

# What cannot be anything else; a picture may be of light, heat or distance.
_SENSES = {".wav": "audio", ".flac": "audio", ".ogg": "audio", ".csv": "imu"}
_SENSES |= dict.fromkeys((".jpg", ".jpeg", ".webp", ".gif", ".bmp"), "image")


class Mark(Settings, frozen=True, kw_only=True):
    """The windows of a live stream wholly inside the `seconds` that ended `ago_s` ago."""

    stream: str
    seconds: Positive
    ago_s: NotNegative = 0.0


class TeachConfig(Settings, frozen=True, kw_only=True):
    """What query.teach is asked for. examples, negatives: files on the agent's machine, or marks,
    all of one sense; one example is one vector. modality: of the files, where their names do not
    tell. streams, senses, gate: as in a query.
    """

    query_id: Name
    label: str = ""
    method: Method = "auto"
    examples: list[str | Mark]
    negatives: list[str | Mark] = msgspec.field(default_factory=list)
    modality: Name | None = None
    streams: list[str] | None = None
    senses: list[str] | None = None
    gate: GateConfig | None = None


def sense_of(file: str, modality: str | None) -> str:
    """The sense that a file is of: `modality`, or what its suffix tells; ConfigError if neither."""
    sense = modality or _SENSES.get(Path(file).suffix.lower())
    if sense is None:
        raise ConfigError(f"{file}: of which sense? expected modality beside it")
    return sense


def embed_example(space: Space, file: str, modality: str | None) -> Embedding:
    """One vector for a whole file. Raises ConfigError and EncoderError, naming the file."""
    try:
        return space.embed_file(file, sense_of(file, modality))
    except EncodeFailed as exc:
        raise ConfigError(f"{exc}, expected an example that can be encoded") from exc


def taught_query(
    space: Space,
    config: TeachConfig,
    examples: Sequence[Embedding],
    negatives: Sequence[Embedding],
    floor: float,
    source: str = "",
) -> tuple[QueryConfig, Lesson]:
    """A query of the vectors of the examples. floor: `match.min_deviation`.

    Raises ConfigError for none or too many, for two senses, and as agent.match.teaching.teach.
    """
    senses = sorted({each.modality for each in (*examples, *negatives)})
    if len(senses) > 1:
        raise ConfigError(f"examples: are of {' and '.join(senses)}, expected one sense")
    background = space.background(senses[0]) if senses else _matrix([], space.dim)
    lesson = teach(
        _matrix(examples, space.dim),
        _matrix(negatives, space.dim),
        background,
        config.method,
        floor,
    )
    taught = Taught(
        space=space.identity,
        modality=senses[0],
        vector=lesson.vector.astype("<f4").tobytes(),
        method=lesson.method,
        ordinary=lesson.ordinary,
        source=source,
    )
    query = QueryConfig(
        id=config.query_id,
        label=config.label or config.query_id,
        taught=taught,
        streams=config.streams,
        senses=config.senses,
        gate=config.gate,
    )
    return query, lesson


def teach_query(core: Core, config: TeachConfig) -> tuple[QueryConfig, dict[str, Any]]:
    """What query.teach answers beside id and rev, and the query, which is not yet put."""
    for field, given, least, most in (
        ("examples", config.examples, 1, MAX_EXAMPLES),
        ("negatives", config.negatives, 0, MAX_NEGATIVES),
    ):
        if not least <= len(given) <= most:
            raise ConfigError(f"{field}: got {len(given)}, expected {least} to {most}")
    match = core.config.file.match
    examples = [_vector(core, each, config.modality) for each in config.examples]
    negatives = [_vector(core, each, config.modality) for each in config.negatives]
    source = _source(config)
    query, lesson = taught_query(
        core.space, config, examples, negatives, match.min_deviation, source
    )
    report = lesson.report(match, config.gate or match.gate)
    return query, {**report, "taught": msgspec.to_builtins(query.taught)}


def _vector(core: Core, example: str | Mark, modality: str | None) -> Embedding:
    if isinstance(example, str):
        return embed_example(core.space, example, modality)
    marked = core.recent.mark(example.stream, example.seconds, example.ago_s)
    vector = mean_vector([each.vector for each in marked]).astype(np.float32)
    return Embedding(core.space.identity, vector, marked[0].modality)


def _source(config: TeachConfig) -> str:
    """The arguments of tools.teach that do it again; none where a live stream was marked."""
    asked = (("--example", config.examples), ("--negative", config.negatives))
    parts = [(option, str(each)) for option, group in asked for each in group]
    if any(isinstance(each, Mark) for each in (*config.examples, *config.negatives)):
        return ""
    parts += [("--id", config.query_id), ("--method", config.method)]
    parts += [("--modality", config.modality)] if config.modality else []
    return shlex.join(part for pair in parts for part in pair)


def _matrix(embeddings: Sequence[Embedding], dim: int) -> Array:
    return np.array([each.vector for each in embeddings], np.float32).reshape(-1, dim)
