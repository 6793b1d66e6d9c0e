"""The sentences that the text table is fitted to: what a wearer might ask for, in many words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
import numpy as np

from agent.types import Settings
from encoders.bind.text_table import TableSettings

__all__ = ["TextRecipe", "article", "compose", "noun", "scenes", "soups", "words"]

SOUP_WORDS = (2, 8)  # least, and one more than most
# Of a vocabulary in the order of frequency, as BERT's is; word i is drawn like 1 / (i + this), a
# Zipf law (1949) whose few first words do not fill every soup.
SOUP_OFFSET = 300

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Texts = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
_WORD = re.compile(r"[a-z]{2,}")
_ARTICLE = re.compile(r"^(an?|the|some)\s+", re.IGNORECASE)


class TextRecipe(Settings, frozen=True, kw_only=True):
    """`recipes/text.yaml`.

    dim: of the space. words: how many of its axes texts use; the others are left to what tells
    pictures of the same things apart (docs/adr/0015). stop_words start stop_scale times as long as
    other tokens. templates: with {} for a name with its article or {noun} without; each name is
    put in templates_each of them.
    pairs: of names in one of `joins`. scenes: sentences of subjects, actions, things, adjectives
    and places. soups: of words drawn from the vocabulary, which no sense holds together: they tell
    what a word adds among any others. kept_out: of the templates and pairs, for the figures. check:
    sentences that are in no template, for figures too.
    """

    dim: Annotated[int, msgspec.Meta(gt=1)]
    words: Annotated[int, msgspec.Meta(gt=1)]
    seed: int
    stop_words: _Texts
    stop_scale: Annotated[float, msgspec.Meta(gt=0, le=1)]
    fit: TableSettings
    kept_out: Annotated[int, msgspec.Meta(ge=2)]
    templates: _Texts
    templates_each: _Count
    pairs: _Count
    joins: _Texts
    scenes: _Count
    subjects: _Texts
    actions: _Texts
    soups: _Count
    places: _Texts
    things: _Texts
    adjectives: _Texts
    check: _Texts

    def __post_init__(self) -> None:
        for template in self.templates:
            if template.count("{}") + template.count("{noun}") != 1:
                raise ValueError(f"templates: {template!r}, expected one of {{}} and {{noun}}")
        for join in self.joins:
            if join.count("{}") != 2:
                raise ValueError(f"joins: {join!r}, expected {{}} twice")


def noun(name: str) -> str:
    """Without its article: "a dog" -> "dog"."""
    return _ARTICLE.sub("", name)


def article(name: str) -> str:
    """With "a" or "an" where it has none: "orange" -> "an orange"; one that has keeps its own."""
    if _ARTICLE.match(name):
        return name
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def compose(names: Sequence[str], recipe: TextRecipe) -> list[str]:
    """Each of `names` alone, with its article, in templates, and in pairs; each sentence once."""
    rng = np.random.default_rng(recipe.seed)
    sentences = []
    for name in names:
        sentences += [name, article(name)]
        for chosen in rng.choice(len(recipe.templates), recipe.templates_each, replace=False):
            filled = recipe.templates[int(chosen)].replace("{noun}", noun(name))
            sentences.append(filled.replace("{}", article(name)))
    for _ in range(recipe.pairs):
        first, second = rng.integers(len(names), size=2)
        join = recipe.joins[int(rng.integers(len(recipe.joins)))]
        sentences.append(join.format(article(names[first]), article(names[second])))
    return list(dict.fromkeys(sentences))


def scenes(recipe: TextRecipe) -> list[str]:
    """Everyday sentences of one to four parts; each once, so there are at most recipe.scenes."""
    rng = np.random.default_rng(recipe.seed)

    def one(texts: Sequence[str]) -> str:
        return texts[int(rng.integers(len(texts)))]

    made = [*recipe.subjects, *recipe.actions, *recipe.places, *recipe.things]
    for number in range(recipe.scenes):
        thing = one(recipe.things)
        described = article(f"{one(recipe.adjectives)} {noun(thing)}")
        patterns = (
            (one(recipe.subjects), one(recipe.actions), one(recipe.places)),
            (one(recipe.subjects), one(recipe.actions)),
            (described, one(recipe.places)),
            (one(recipe.subjects), "with", thing),
            (thing, "and", one(recipe.things), one(recipe.places)),
            (one(recipe.subjects), one(recipe.actions), "with", described),
            ("the sound of", thing),
            (one(recipe.subjects), "is", one(recipe.actions)),
        )
        made.append(" ".join(patterns[number % len(patterns)]))
    return list(dict.fromkeys(made))


def words(vocabulary: Iterable[str]) -> list[str]:
    """The whole English words of a WordPiece vocabulary: "##ing" and "[SEP]" are none."""
    return [token for token in vocabulary if _WORD.fullmatch(token)]


def soups(vocabulary: Iterable[str], recipe: TextRecipe) -> list[str]:
    """Two to seven words each, drawn by their frequency; the same for the same seed."""
    known = np.array(words(vocabulary))
    chances = 1 / (np.arange(len(known)) + SOUP_OFFSET)
    rng = np.random.default_rng(recipe.seed)
    drawn = rng.choice(len(known), (recipe.soups, SOUP_WORDS[1] - 1), p=chances / chances.sum())
    lengths = rng.integers(*SOUP_WORDS, size=recipe.soups)
    return [" ".join(known[row[:n]]) for row, n in zip(drawn, lengths, strict=True)]
