"""The kind "clip_text": text by a network that reads CLIP's byte-pair tokens."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.errors import EncodeFailed, ModelMismatch
from agent.extras import needs_extra
from agent.types import Array, Embedding, Int64Array
from encoders.imagebind.dims import CONTEXT, VOCABULARY
from encoders.manifest import FileEntry, TowerContext, checked_path
from encoders.session import GraphSettings, GraphTower

__all__ = ["END", "PLUGIN", "START", "ClipText", "ClipTokenizer"]

START, END = VOCABULARY - 2, VOCABULARY - 1


class ClipTokenizer:
    """Strings to the ids of OpenAI CLIP, as its `simple_tokenizer` gives them."""

    def __init__(self, path: Path) -> None:
        """path: a tokenizer.json that tools/make_clip_tokenizer.py has made, checked.

        Raises ModelMismatch for another vocabulary, ConfigError without the extra `imagebind`.
        """
        # Its own thread pool and 20 ms of import, so only when text is wanted.
        from tokenizers import Tokenizer

        with needs_extra("imagebind"):
            import ftfy
        self._fix_text = ftfy.fix_text
        self._tokenizer = Tokenizer.from_file(str(path))
        if self._tokenizer.get_vocab_size() != VOCABULARY:
            raise ModelMismatch(
                f"{path}: {self._tokenizer.get_vocab_size()} tokens, expected CLIP's {VOCABULARY}"
            )

    def __call__(self, text: str) -> list[int]:
        """START, the ids of `text`, END: at most 77, of which the last is END however long it is.

        Mojibake is mended, HTML entities are read (twice, as the published one does), white space
        is one space, letters are lower-case. A text that spells out a mark, such as
        <|endoftext|>, is ordinary text.
        """
        mended = html.unescape(html.unescape(self._fix_text(text)))
        cleaned = " ".join(mended.split()).lower()
        ids = self._tokenizer.encode(cleaned, add_special_tokens=False).ids
        return [START, *ids[: CONTEXT - 2], END]


class ClipText(GraphTower):
    """Strings to unit vectors. A contracts.TextEncoder.

    The graph takes int64 (n, length), length free and at most 77, and reads the vector off the
    place of the largest id, END. Its attention is causal, so what stands after END is not seen:
    a batch is as long as its longest text, and padded with 0.
    """

    class Config(GraphSettings, frozen=True, kw_only=True):
        """tokenizer: see ClipTokenizer."""

        tokenizer: FileEntry

        def extra_files(self) -> list[FileEntry]:
            return [self.tokenizer]

    def __init__(self, config: Config, context: TowerContext) -> None:
        super().__init__(config, context)
        self._entry = config.tokenizer
        self._tokenizer: ClipTokenizer | None = None

    def load(self) -> None:
        """As GraphTower.load; reads the tokenizer too."""
        if self._tokenizer is None:
            self._tokenizer = ClipTokenizer(checked_path(self._context.folder, self._entry))
        super().load()

    def encode(self, texts: Sequence[str]) -> list[Embedding]:
        """One embedding a string, in order. Raises EncodeFailed for one with no known word."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise EncodeFailed(f"{self._context.modality} tower: not loaded")
        rows = []
        for text in texts:
            rows.append(tokenizer(text))
            if rows[-1] == [START, END]:
                raise EncodeFailed(f"text {text!r}: no known word, expected at least one")
        if not rows:
            return []
        vectors = self._vectors(_cut(batch) for batch in self._batches(_padded(rows)))
        return [
            Embedding(space=self.space, vector=vector, modality=self._context.modality)
            for vector in vectors
        ]

    def close(self) -> None:
        super().close()
        self._tokenizer = None

    def _example(self) -> Array:
        return np.array([[START, END]], np.int64)


def _padded(rows: Sequence[Sequence[int]]) -> Int64Array:
    padded = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return padded


def _cut(batch: Array) -> Array:
    """Without the columns after the last end token, which hold nothing but padding."""
    cut: Array = batch[:, : int(batch.argmax(axis=1).max()) + 1]
    return cut


PLUGIN = ClipText
