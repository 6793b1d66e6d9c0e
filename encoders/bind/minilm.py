"""The sentence model that the text table is distilled from: all-MiniLM-L6-v2, read and run.

Needs the extra `bind`. A BERT (Devlin et al. 2019, arXiv:1810.04805) of 6 layers of 384, whose
token outputs are averaged and normalised, as the model's card says (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import ModelMismatch
from agent.extras import needs_extra
from encoders.manifest import FileEntry, checked_path
from encoders.preprocess.base import Float32Array

with needs_extra("bind"):
    import torch
    from safetensors.torch import load_file
    from torch import Tensor
    from torch.nn import functional as F

__all__ = ["MODEL_FILES", "SentenceModel"]

MODEL_FILES = {
    "weights": FileEntry(
        path="model.safetensors",
        bytes=90868376,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "tokenizer": FileEntry(
        path="tokenizer.json",
        bytes=466247,
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    ),
}
HEADS = 12
NORM_EPS = 1e-12
MAX_TOKENS = 256  # what the model was trained with
BATCH_TOKENS = 8192  # padding included

Progress = Callable[[int, int], None]


class SentenceModel:
    """The model of a folder with `MODEL_FILES`.

    Raises ModelMissing or ModelMismatch where a file is not there or is another.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer_path = checked_path(folder, MODEL_FILES["tokenizer"])
        self._tokenizer: Any = Tokenizer.from_file(str(self.tokenizer_path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._weights: dict[str, Tensor] = load_file(checked_path(folder, MODEL_FILES["weights"]))
        self._layers = 1 + max(int(k.split(".")[2]) for k in self._weights if ".layer." in k)
        rows = len(self._weights["embeddings.word_embeddings.weight"])
        if rows != self._tokenizer.get_vocab_size():
            raise ModelMismatch(
                f"{folder}: {rows} token vectors, expected {self._tokenizer.get_vocab_size()}"
            )

    def vocabulary(self) -> list[str]:
        """Tokens by id; "##" in front of what continues a word."""
        by_id: dict[int, str] = {i: t for t, i in self._tokenizer.get_vocab().items()}
        return [by_id[i] for i in range(len(by_id))]

    def bags(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text without special tokens, as the table looks them up."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> Float32Array:
        """float32 (n, 384) unit vectors, newly made. progress: told how many of n are done."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return self.embed_ids([encoding.ids for encoding in encodings], progress)

    @torch.inference_mode()
    def embed_ids(
        self, ids: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> Float32Array:
        """As `embed`, of token ids with [CLS] in front and [SEP] behind."""
        vectors = np.empty((len(ids), len(self._weights["embeddings.LayerNorm.bias"])), np.float32)
        lengths = np.array([len(row) for row in ids], np.int64)
        order = np.argsort(lengths, kind="stable")  # alike lengths together: little padding
        for start, stop in pairwise(_batch_edges(lengths[order])):
            chosen = order[start:stop]
            tokens = torch.zeros(len(chosen), int(lengths[chosen].max()), dtype=torch.long)
            for row, index in zip(tokens, chosen, strict=True):
                row[: lengths[index]] = torch.tensor(ids[index])
            mask = torch.arange(tokens.shape[1]) < torch.from_numpy(lengths[chosen])[:, None]
            vectors[chosen] = self._forward(tokens, mask).numpy()
            if progress is not None:
                progress(stop, len(ids))
        return vectors

    def _forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        weights = self._weights
        x = (
            weights["embeddings.word_embeddings.weight"][tokens]
            + weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._norm(x, "embeddings.LayerNorm")
        for number in range(self._layers):
            name = f"encoder.layer.{number}"
            query, key, value = (
                self._linear(x, f"{name}.attention.self.{part}")
                .reshape(*tokens.shape, HEADS, -1)
                .transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(query, key, value, mask[:, None, None])
            mixed = self._linear(mixed.transpose(1, 2).flatten(2), f"{name}.attention.output.dense")
            x = self._norm(x + mixed, f"{name}.attention.output.LayerNorm")
            inner = F.gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(
                x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm"
            )
        kept = mask[..., None].to(x.dtype)
        return F.normalize((x * kept).sum(1) / kept.sum(1), dim=-1)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, NORM_EPS)


def _batch_edges(lengths: Any) -> list[int]:
    """Where batches of rising `lengths` begin, and the end: each BATCH_TOKENS with padding."""
    edges = [0]
    for index, length in enumerate(lengths):
        if (index + 1 - edges[-1]) * int(length) > BATCH_TOKENS and index > edges[-1]:
            edges.append(index)
    return [*edges, len(lengths)] if len(lengths) else [0]
