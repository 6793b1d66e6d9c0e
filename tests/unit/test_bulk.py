"""Vectors as they leave the agent: the whole's for everyone, and those of its views beside it."""

from __future__ import annotations

import base64
from dataclasses import replace

import msgspec
import numpy as np

from agent.bulk import embedding_message, logged
from agent.types import Embedding, Region, Views
from agent.wire import EmbeddingMessage, encode

REGIONS = (Region(0.0, 0.0, 0.5, 1.0), Region(0.5, 0.0, 0.5, 1.0))
PLAIN = Embedding("a@1", np.array([0.6, 0.8], np.float32), "image", "cam", 0, 5)
VIEWED = replace(PLAIN, views=Views(np.array([[1, 0], [0, 1]], np.float32), REGIONS))


def test_views_follow_the_vector_which_stays_what_it_was() -> None:
    plain, (alone,) = embedding_message(PLAIN, "hat", "1")
    message, (vector, views) = embedding_message(VIEWED, "hat", "1")
    assert vector == alone
    assert [part.bytes for part in message.attachments] == [len(vector), len(views)] == [4, 8]
    np.testing.assert_array_equal(np.frombuffer(views, "<f2").reshape(-1, 2), np.eye(2))
    assert message.views == list(REGIONS)
    assert plain.views == []
    without = {"views": [], "attachments": plain.attachments}
    assert msgspec.structs.replace(message, **without) == plain


def test_a_log_has_them_in_the_message() -> None:
    message, frames = embedding_message(VIEWED, "hat", "1")
    read = msgspec.json.decode(encode(logged(message, frames)), type=EmbeddingMessage)
    assert read.attachments == []
    assert base64.b64decode(read.vector) == frames[0]
    assert base64.b64decode(read.view_vectors) == frames[1]
    assert read.views == list(REGIONS)
    assert logged(*embedding_message(PLAIN, "hat", "1")).view_vectors == ""
