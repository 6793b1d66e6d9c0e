"""From a sentence model and a recipe to the text tower's table, with its figures.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.bind.corpus import TextRecipe, compose, scenes, soups, words
from encoders.bind.minilm import SentenceModel
from encoders.bind.text_table import Projection, agreement, fit_table, quantise
from encoders.preprocess.base import Float32Array

__all__ = ["Agreement", "Distilled", "distil"]

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Agreement:
    """Of some sentences, fitted table against the sentence model.

    cosine: mean, with the projected target. centred, raw: correlation of the pairwise cosines with
    the model's, its mean taken out or not. before: the same three of the table before the fit.
    """

    sentences: int
    cosine: float
    centred: float
    raw: float
    before: tuple[float, float, float]


@dataclass(frozen=True)
class Distilled:
    """table: float32 (vocabulary, dim). fitted: sentences it was fitted to. kept_out: of the
    templates and pairs. check: the recipe's sentences of no template. int8: cosine and centred
    correlation on kept_out after quantising.
    """

    table: Float32Array
    fitted: int
    kept_out: Agreement
    check: Agreement
    int8: tuple[float, float]


def distil(model: SentenceModel, names: Sequence[str], recipe: TextRecipe, step: Step) -> Distilled:
    """Fit a table to `model` on sentences about `names`. step: told what is done, how far, of what.

    The same arguments give the same table on one thread.
    """
    vocabulary = model.vocabulary()
    composed = compose(names, recipe)
    drawn = np.random.default_rng(recipe.seed).permutation(len(composed))[: recipe.kept_out]
    kept_out = [composed[i] for i in sorted(drawn)]
    apart = {*kept_out, *recipe.check}
    candidates = [*composed, *scenes(recipe), *words(vocabulary), *soups(vocabulary, recipe)]
    fitted = [text for text in dict.fromkeys(candidates) if text not in apart]
    ids = {token: number for number, token in enumerate(vocabulary)}
    alone = [[ids["[CLS]"], number, ids["[SEP]"]] for number in range(len(vocabulary))]
    tokens = model.embed_ids(alone, lambda done, of: step("tokens", done, of))
    originals = model.embed(fitted, lambda done, of: step("sentences", done, of))
    projection = Projection.of(np.concatenate([originals, tokens]), recipe.words)
    sentences = Projection(originals.mean(axis=0), projection.axes)
    start = Projection(tokens.mean(axis=0), projection.axes)(tokens)
    start[[ids[word] for word in recipe.stop_words]] *= np.float32(recipe.stop_scale)
    table = fit_table(
        start,
        model.bags(fitted),
        _unit(sentences(originals)),
        recipe.fit,
        lambda done, of: step("fit", done, of),
    ).table
    q, scale = quantise(table)
    held = model.embed(kept_out)
    bags = model.bags(kept_out)
    targets = _unit(sentences(held))
    return Distilled(
        table=np.pad(table, ((0, 0), (0, recipe.dim - recipe.words))),
        fitted=len(fitted),
        kept_out=_agreement(start, table, bags, held, sentences),
        check=_agreement(
            start, table, model.bags(recipe.check), model.embed(recipe.check), sentences
        ),
        int8=agreement(
            q.astype(np.float32) * scale[:, np.newaxis], bags, targets, held - sentences.centre
        ),
    )


def _agreement(
    start: Float32Array,
    table: Float32Array,
    bags: Sequence[Sequence[int]],
    originals: Float32Array,
    projection: Projection,
) -> Agreement:
    targets = _unit(projection(originals))
    figures = [
        (*agreement(rows, bags, targets, originals - projection.centre), raw)
        for rows in (table, start)
        for _, raw in [agreement(rows, bags, targets, originals)]
    ]
    return Agreement(len(bags), *figures[0], before=figures[1])


def _unit(vectors: Float32Array) -> Float32Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
