"""The kind "table": text by a static table of token vectors, no network to run."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.errors import EncodeFailed, ModelMismatch
from agent.types import Array, Embedding
from encoders.manifest import FileEntry, TowerContext, TowerSettings, checked_path
from encoders.session import unit

__all__ = ["PLUGIN", "TextTable"]


class TextTable:
    """Strings to unit vectors: the mean of their tokens' rows. A contracts.TextEncoder.

    The table file is an .npz of `q` int8 (vocabulary, dim) and `scale` float32 (vocabulary,): row
    i is q[i] * scale[i]. Word order, and so negation, does not count.
    """

    class Config(TowerSettings, frozen=True, kw_only=True):
        """tokenizer: a Hugging Face `tokenizer.json`."""

        tokenizer: FileEntry

        def extra_files(self) -> list[FileEntry]:
            return [self.tokenizer]

    def __init__(self, config: Config, context: TowerContext) -> None:
        self._config = config
        self._context = context
        self._rows: tuple[Array, Array] | None = None
        self._tokenizer: Any = None
        self._lock = threading.Lock()

    @property
    def space(self) -> str:
        return self._context.identity

    @property
    def precision(self) -> str:
        return self._config.chosen(self._context.options.precision)

    def load(self) -> None:
        """Read and check both files. Idempotent. Raises ModelMissing or ModelMismatch."""
        # Its own thread pool and 20 ms of import, so only when text is wanted.
        from tokenizers import Tokenizer

        with self._lock:
            if self._rows is not None:
                return
            folder = self._context.folder
            tokenizer = Tokenizer.from_file(str(checked_path(folder, self._config.tokenizer)))
            tokenizer.no_padding()
            tokenizer.no_truncation()
            path = checked_path(folder, self._config.files[self.precision])
            expected = (tokenizer.get_vocab_size(), self._context.dim)
            try:
                with np.load(path, allow_pickle=False) as table:
                    quantised, scale = table["q"], table["scale"]
            except (KeyError, ValueError, zipfile.BadZipFile) as exc:
                raise ModelMismatch(f"{path}: not an .npz with q and scale ({exc})") from exc
            if quantised.shape != expected or scale.shape != expected[:1]:
                raise ModelMismatch(
                    f"{path}: q is {list(quantised.shape)} and scale {list(scale.shape)}, "
                    f"expected {list(expected)} by the tokenizer and the space"
                )
            self._tokenizer, self._rows = tokenizer, (quantised, scale)

    def encode(self, texts: Sequence[str]) -> list[Embedding]:
        """One embedding a string, in order. Raises EncodeFailed for one with no known word."""
        rows, tokenizer = self._rows, self._tokenizer
        if rows is None:
            raise EncodeFailed("text table: not loaded")
        quantised, scale = rows
        unknown = tokenizer.token_to_id("[UNK]")
        embeddings = []
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if set(ids) <= {unknown}:
                raise EncodeFailed(f"text {text!r}: no known word, expected at least one")
            vectors = quantised[ids].astype(np.float32) * scale[ids, np.newaxis]
            embeddings.append(
                Embedding(space=self.space, vector=unit(vectors.mean(axis=0)), modality="text")
            )
        return embeddings

    def close(self) -> None:
        with self._lock:
            self._rows = self._tokenizer = None


PLUGIN = TextTable
