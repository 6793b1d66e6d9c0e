"""A query's definition to its vectors, with the towers of a space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent import plugins
from agent.clock import ManualClock
from agent.config import AskedConfig, LogCut, PartConfig, QueryConfig
from agent.config_file import convert_section
from agent.contracts import Space
from agent.errors import BadData, ConfigError, EncodeFailed, EndOfStream, SpaceMismatch
from agent.match.meaning import Meaning, Part, terms_of
from agent.match.taught import taught_embedding
from agent.match.teaching import mean_vector
from agent.types import Embedding, Sample, Window

__all__ = ["embed_cut", "embed_query"]


def embed_query(space: Space, query: QueryConfig, floor: float) -> Meaning:
    """The vectors of what `query` asks for; loads the towers that it needs.

    floor: `match.min_deviation`. Raises ConfigError for what cannot be read or encoded, for
    senses that the space has not, and for parts that cancel out; EncoderError where a tower
    cannot be loaded; SpaceMismatch for a vector taught in another space.
    """
    for field, named in (("senses", query.senses or ()), ("templates", query.templates)):
        for sense in sorted(set(named) - set(space.modalities)):
            raise ConfigError(
                f"{field}: got {sense!r}, expected one of {', '.join(space.modalities)}"
            )
    try:
        meaning = Meaning(
            tuple(_part(space, part, query) for part in query.parts()),
            tuple(_part(space, part, query) for part in query.contrasts()),
        )
    except SpaceMismatch as exc:
        raise SpaceMismatch(f"query {query.id}: {exc}") from exc
    if not meaning.plain:  # said now, and not when a stream first answers
        for modality in space.modalities:
            terms_of(meaning, space, modality, floor)
    return meaning


def embed_cut(space: Space, cut: LogCut) -> Embedding:
    """One vector of all that a stream of a log has between two of its times.

    Raises ConfigError for a log that cannot be read, a stream it has not, and a cut with nothing
    of it or that cannot be encoded.
    """
    where = f"{cut.file} {cut.stream} {cut.from_s:g}-{cut.to_s:g} s"
    window = _read_cut(cut, where)
    encoder = space.encoder(window.stream.modality)
    encoder.load()
    try:
        return replace(encoder.encode([window])[0], stream="")
    except EncodeFailed as exc:
        raise ConfigError(f"log: {where}: {exc}, expected a longer or another part") from exc


def _part(space: Space, asked: AskedConfig, query: QueryConfig) -> Part:
    weight = asked.weight if isinstance(asked, PartConfig) else 1.0
    if asked.phrases:
        by_sense = {
            sense: _mean_text(space, [s.replace("{}", p) for s in sentences for p in asked.phrases])
            for sense, sentences in query.templates.items()
        }
        return Part(_mean_text(space, asked.phrases), weight, by_sense)
    return Part(_embed(space, asked), weight, taught=asked.taught)


def _embed(space: Space, asked: AskedConfig) -> Embedding:
    if asked.taught is not None:
        return taught_embedding(asked.taught, space.identity, space.dim)
    if asked.log is not None:
        return embed_cut(space, asked.log)
    sensed = asked.sense_file()
    assert sensed is not None  # by AskedConfig, and `vector` was read by QuerySet
    modality, file = sensed
    try:
        return space.embed_file(str(file), modality)
    except EncodeFailed as exc:
        raise ConfigError(f"{exc}, expected a file that can be encoded") from exc


def _mean_text(space: Space, texts: Sequence[str]) -> Embedding:
    """The unit mean of the vectors of phrases, as CLIP averages its prompts (A. Radford et al.,
    ICML 2021, section 3.1.4).
    """
    encoder = space.text_encoder()
    encoder.load()
    try:
        each = encoder.encode(texts)
    except EncodeFailed as exc:
        raise ConfigError(f"text: {exc}") from exc
    if len(each) == 1:
        return each[0]
    vector = mean_vector([one.vector for one in each]).astype(np.float32)
    return replace(each[0], vector=vector)


def _read_cut(cut: LogCut, where: str) -> Window:
    plugin = plugins.load("drivers", "log")
    part = {"path": str(cut.file.absolute()), "speed": 0, "from_s": cut.from_s, "to_s": cut.to_s}
    driver = plugin("log", convert_section(part, plugin.Config, "log"), ManualClock())
    driver.connect()
    try:
        streams = {info.name: info for info in driver.streams}
        if cut.stream not in streams:
            raise ConfigError(
                f"stream: got {cut.stream!r}, {cut.file} has {', '.join(streams) or 'none'}"
            )
        samples: list[Sample] = []
        while True:
            try:
                samples += [s for s in driver.read(0.0) if s.stream.name == cut.stream]
            except BadData:  # a damaged message costs itself, as in a replay
                continue
            except EndOfStream:
                break
    finally:
        driver.disconnect()
    if not samples:
        raise ConfigError(f"log: {where}: nothing there")
    t_ns = np.concatenate([sample.t_ns for sample in samples])
    data = np.concatenate([sample.data for sample in samples])
    return Window(streams[cut.stream], int(t_ns[0]), int(t_ns[-1]) + 1, data, t_ns)
