"""A space of four dimensions: text is looked up, and a cosine is what one asks for."""

from __future__ import annotations

import math

import numpy as np

from agent.config import AskedConfig, PartConfig, QueryConfig
from agent.errors import ConfigError
from agent.match.meaning import Meaning, Part
from agent.match.taught import taught_embedding
from agent.types import Array, Embedding

__all__ = ["DEVIATION", "FakeSpace", "embed_query", "seen"]

AXES = {"glass": 0, "dog": 1, "fall": 2}
DEVIATION = 0.1


class FakeSpace:
    """What matching needs of a space: its identity, its dimensions, and a prior of 0 +- 0.1."""

    name, identity, dim = "fake", "fake@1", 4

    def prior(self, vector: Array, modality: str) -> tuple[float, float]:
        return 0.0, DEVIATION

    def background(self, modality: str) -> Array:
        return np.empty((0, 1, self.dim), np.float32)


def axis(number: int) -> Array:
    vector = np.zeros(FakeSpace.dim, np.float32)
    vector[number] = 1.0
    return vector


def embed_query(config: QueryConfig) -> Meaning:
    """Each part is one word, or a direction that was taught."""
    parts, contrasts = config.parts(), config.contrasts()
    return Meaning(tuple(map(_part, parts)), tuple(map(_part, contrasts)))


def _part(asked: AskedConfig) -> Part:
    if asked.taught is not None:
        own = taught_embedding(asked.taught, FakeSpace.identity, FakeSpace.dim)
        return Part(own, taught=asked.taught)
    if asked.text not in AXES:
        raise ConfigError(f"text: no word of {asked.text!r} is known")
    weight = asked.weight if isinstance(asked, PartConfig) else 1.0
    return Part(Embedding(FakeSpace.identity, axis(AXES[asked.text]), "text"), weight)


def seen(
    stream: str,
    end_ns: int,
    cosines: dict[str, float],
    *,
    length_ns: int = 1_000_000_000,
    space: str = FakeSpace.identity,
) -> Embedding:
    """An embedding of `stream` whose cosine with each word is as given (0 where it is not)."""
    vector = sum((axis(AXES[word]) * cosine for word, cosine in cosines.items()), np.zeros(4))
    rest = 1.0 - float(vector @ vector)
    vector = vector + axis(3) * math.sqrt(max(0.0, rest))
    return Embedding(
        space,
        vector.astype(np.float32),
        "audio",
        stream,
        end_ns - length_ns,
        end_ns,
        arrival_ns=end_ns + 1_000_000,
        encoded_ns=end_ns + 3_000_000,
    )
