"""How a query is near an input of several views."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agent.ordinary import nearness

COSINES = st.floats(-1, 1)


@given(arrays(np.float64, st.integers(0, 9), elements=COSINES))
def test_an_input_without_views_is_as_near_as_its_vector_to_the_last_bit(
    wholes: np.ndarray,
) -> None:
    np.testing.assert_array_equal(nearness(wholes[:, np.newaxis]), wholes)


@given(COSINES, st.lists(COSINES, max_size=8), st.data())
def test_between_the_whole_and_the_best_whatever_the_order_of_the_rest(
    whole: float, parts: list[float], data: st.DataObject
) -> None:
    near = nearness(np.array([whole, *parts]))
    assert whole <= near <= max([whole, *parts])
    shuffled = data.draw(st.permutations(parts))
    assert nearness(np.array([whole, *shuffled])) == near
    assert nearness(np.array([whole, *parts, data.draw(COSINES)])) >= near


def test_by_hand() -> None:
    cosines = np.array([[[0.2, 0.1, 0.6]], [[0.5, 0.1, 0.3]]])
    np.testing.assert_allclose(nearness(cosines), [[0.4], [0.5]])
