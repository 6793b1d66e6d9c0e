"""Few-shot teaching: the fit against an oracle, left-out scores against doing it again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.config import GateConfig, MatchConfig
from agent.errors import ConfigError
from agent.match.teaching import ALPHAS, Lesson, Method, mean_vector, ridge, teach
from agent.ordinary import nearness, ordinary

FLOOR = 1e-6
NONE = np.empty((0, 16))


def units(
    rng: np.random.Generator, n: int, dim: int = 16, near: float = 0.0
) -> NDArray[np.float64]:
    """n unit vectors, `near` of each along the first axis before they are normalised."""
    vectors = rng.normal(size=(n, dim)) / np.sqrt(dim)
    vectors[:, 0] += near
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def solved(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64], alpha: float
) -> tuple[NDArray[np.float64], float]:
    """Vector and intercept by numpy's least squares: the penalty as rows of its own."""
    root = np.sqrt(weights)[:, np.newaxis]
    dim = x.shape[1]
    rows = np.block([[root * x, root], [np.sqrt(alpha) * np.eye(dim), np.zeros((dim, 1))]])
    aims = np.concatenate([root[:, 0] * y, np.zeros(dim)])
    found = np.linalg.lstsq(rows, aims, rcond=None)[0]
    return found[:-1], float(found[-1])


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 8),
    rest=st.integers(2, 30),
    alpha=st.sampled_from(ALPHAS),
)
def test_a_fit_and_each_left_out_fit_are_those_of_least_squares(
    seed: int, n: int, rest: int, alpha: float
) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate([units(rng, n, near=1.0), units(rng, rest)])
    y = np.repeat([1.0, -1.0], [n, rest])
    weights = np.repeat([0.5 / n, 0.5 / rest], [n, rest])
    fit = ridge(x, y, weights, [alpha])
    np.testing.assert_allclose(fit.vector, solved(x, y, weights, alpha)[0], atol=1e-8)
    press = 0.0
    for row in range(len(x)):
        kept = np.arange(len(x)) != row
        vector, intercept = solved(x[kept], y[kept], weights[kept], alpha)
        np.testing.assert_allclose(fit.without[row], vector, atol=1e-8)
        press += weights[row] * (y[row] - x[row] @ vector - intercept) ** 2
    assert fit.press == pytest.approx(press, rel=1e-6, abs=1e-12)


def test_the_regularisation_is_that_of_the_least_press() -> None:
    rng = np.random.default_rng(0)
    x, y = (
        np.concatenate([units(rng, 6, near=0.5), units(rng, 40)]),
        np.repeat([1.0, -1.0], [6, 40]),
    )
    weights = np.repeat([0.5 / 6, 0.5 / 40], [6, 40])
    alone = [ridge(x, y, weights, [alpha]) for alpha in ALPHAS]
    best = ridge(x, y, weights)
    assert best.press == min(fit.press for fit in alone)
    assert best.alpha == min(alone, key=lambda fit: fit.press).alpha


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 8))
def test_a_prototypes_left_out_score_is_that_of_one_made_of_the_others(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    examples, bank = units(rng, n, near=1.0), units(rng, 50)
    lesson = teach(examples, NONE, bank, "prototype", FLOOR)
    for number in range(n):
        others = teach(np.delete(examples, number, axis=0), NONE, bank, "prototype", FLOOR)
        cosines = bank @ others.vector.astype(np.float64)
        mean, deviation = ordinary(cosines, 16)
        cosine = examples[number] @ others.vector
        assert lesson.z[number] == pytest.approx((cosine - mean) / deviation, abs=1e-4)
        assert lesson.rank[number] == 1 + (cosines >= cosine).sum()


@pytest.mark.parametrize("method", ["prototype", "ridge"])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 8), k=st.integers(0, 3))
def test_a_query_is_a_unit_vector_with_a_score_for_each_example(
    method: Method, seed: int, n: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    lesson = teach(units(rng, n, near=1.0), units(rng, k), units(rng, 30), method, FLOOR)
    assert lesson.method == method
    assert lesson.vector.dtype == np.float32
    assert np.linalg.norm(lesson.vector) == pytest.approx(1.0, abs=1e-6)
    told = n if n > 1 else 0  # one example leaves nothing to judge by
    assert len(lesson.z) == len(lesson.rank) == told
    assert len(lesson.negative_z) == k
    assert ((lesson.rank >= 1) & (lesson.rank <= 31)).all()


def test_what_a_probe_calls_ordinary_holds_for_what_it_never_saw() -> None:
    """On the bank that it was fitted to it would seem far too sure of itself."""
    rng = np.random.default_rng(3)
    bank, unseen = units(rng, 100, 256), units(rng, 2000, 256)
    lesson = teach(units(rng, 4, 256, near=1.0), np.empty((0, 256)), bank, "ridge", FLOOR)
    mean, deviation = lesson.ordinary
    z = (unseen @ lesson.vector - mean) / deviation
    assert abs(z.mean()) < 0.5
    assert 0.7 < z.std() < 1.4
    fitted_mean, fitted_deviation = ordinary(bank @ lesson.vector, 256)
    fitted = (unseen @ lesson.vector - fitted_mean) / fitted_deviation
    assert abs(fitted.mean()) > 2 * abs(z.mean()) + 0.5


def test_examples_of_one_thing_are_found_and_of_nothing_are_not() -> None:
    rng = np.random.default_rng(1)
    bank, match, gate = units(rng, 200, 64), MatchConfig(), GateConfig()
    for method in ("prototype", "ridge"):
        alike = teach(units(rng, 5, 64, near=2.0), np.empty((0, 64)), bank, method, 0.02)
        unlike = teach(units(rng, 5, 64), np.empty((0, 64)), bank, method, 0.02)
        assert alike.report(match, gate)["found"] == 5
        assert (alike.rank == 1).all()
        assert unlike.report(match, gate)["found"] <= 1


def test_found_is_at_the_thresholds_of_the_query() -> None:
    lesson = Lesson(
        method="prototype",
        vector=np.array([1.0], np.float32),
        ordinary=(0.0, 0.1),
        z=np.array([2.9, 3.1]),
        rank=np.array([4, 1]),
        negative_z=np.array([0.5]),
        background=10,
    )
    match = MatchConfig(z_mid=3.0, z_scale=0.5)
    assert lesson.found(match, GateConfig(enter=0.5)).tolist() == [False, True]
    assert lesson.found(match, GateConfig(enter=0.7)).tolist() == [False, False]
    assert lesson.margin == pytest.approx(2.4)
    assert lesson.report(match, GateConfig(enter=0.5)) == {
        "method": "prototype",
        "found": 1,
        "mean_z": 3.0,
        "left_out": [
            {"z": 2.9, "rank": 4, "found": False},
            {"z": 3.1, "rank": 1, "found": True},
        ],
        "negatives": [{"z": 0.5}],
        "background": 10,
    }


class TestAuto:
    rng = np.random.default_rng(5)
    bank = units(rng, 60)

    def test_one_example_is_a_prototype_unless_there_are_negatives(self) -> None:
        one = units(self.rng, 1, near=1.0)
        assert teach(one, NONE, self.bank, "auto", FLOOR).method == "prototype"
        assert teach(one, units(self.rng, 2), self.bank, "auto", FLOOR).method == "ridge"

    def test_with_nothing_to_tell_from_it_is_a_prototype(self) -> None:
        lesson = teach(units(self.rng, 3, near=1.0), NONE, NONE, "auto", FLOOR)
        assert lesson.method == "prototype"
        assert lesson.ordinary == (0.0, 0.25)

    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 8), k=st.integers(0, 3))
    def test_more_are_given_to_the_better_of_the_two(self, seed: int, n: int, k: int) -> None:
        rng = np.random.default_rng(seed)
        given_ = units(rng, n, near=1.0), units(rng, k, near=0.5), self.bank
        both = [teach(*given_, method, FLOOR).margin for method in ("prototype", "ridge")]
        assert teach(*given_, "auto", FLOOR).margin == max(both)


def test_a_negative_is_pushed_down_by_a_probe() -> None:
    rng = np.random.default_rng(8)
    examples, bank = units(rng, 4, 64, near=1.0), units(rng, 80, 64)
    # Something that shares much with the examples, and one axis that they do not have.
    alike = examples.mean(axis=0) + 0.8 * np.eye(64)[5]
    negatives = np.stack([alike / np.linalg.norm(alike)] * 2)
    prototype = teach(examples, negatives, bank, "prototype", 0.02)
    probe = teach(examples, negatives, bank, "ridge", 0.02)
    assert probe.negative_z.max() < prototype.negative_z.min()
    assert probe.margin > prototype.margin


@pytest.mark.parametrize(
    ("examples", "negatives", "method", "message"),
    [
        (np.empty((0, 4)), np.empty((0, 4)), "auto", "examples: got 0, expected 1 to 8"),
        (np.eye(4)[[0] * 9], np.empty((0, 4)), "auto", "examples: got 9, expected 1 to 8"),
        (np.eye(4)[:2], np.empty((0, 4)), "ridge", "'ridge' has nothing to tell .* from"),
        (np.array([[1.0, 0], [-1.0, 0]]), np.empty((0, 2)), "prototype", "examples of one thing"),
    ],
)
def test_what_cannot_be_taught(
    examples: NDArray[np.float64], negatives: NDArray[np.float64], method: Method, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        teach(examples, negatives, np.empty((0, examples.shape[1])), method, FLOOR)


def test_a_mean_is_of_unit_length() -> None:
    assert mean_vector([np.array([1.0, 0.0]), np.array([0.0, 1.0])]) == pytest.approx(
        [0.5**0.5] * 2
    )


@pytest.mark.parametrize("method", ["prototype", "ridge"])
def test_a_background_of_views_is_counted_as_matching_does(method: Method) -> None:
    rng = np.random.default_rng(6)
    examples, wholes = units(rng, 4, 64, near=1.0), units(rng, 80, 64)
    parts = units(rng, 80 * 3, 64).reshape(80, 3, 64)
    bank = np.concatenate([wholes[:, np.newaxis], parts], axis=1)
    none = np.empty((0, 64))
    plain = teach(examples, none, wholes, method, 0.02)
    viewed = teach(examples, none, bank, method, 0.02)
    np.testing.assert_array_equal(viewed.vector, plain.vector)
    assert viewed.ordinary[0] > plain.ordinary[0], "one part of three is nearer than the whole"
    if method == "prototype":
        near = nearness(bank @ viewed.vector.astype(np.float64))
        assert viewed.ordinary == pytest.approx(ordinary(near, 64), abs=1e-6)
    same = teach(examples, none, np.repeat(wholes[:, np.newaxis], 3, axis=1), method, 0.02)
    assert same.ordinary == pytest.approx(plain.ordinary, abs=1e-12)
