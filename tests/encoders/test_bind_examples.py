"""Examples: parts that fit, and a split that keeps recordings whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from encoders.bind.examples import Examples


def _examples(groups: list[int], labels: list[int] | None = None) -> Examples:
    count = len(groups)
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(count, 8)).astype(np.float32)
    anchors /= np.linalg.norm(anchors, axis=1, keepdims=True)
    views = [np.full((2, 3), i, np.float32) for i in range(count)]
    return Examples(views, anchors, np.array(groups), np.array(labels or [-1] * count))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 2)), min_size=2, max_size=40),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_a_split_keeps_every_recording_on_one_side_and_loses_nothing(
    rows: list[tuple[int, int]], fraction: float, seed: int
) -> None:
    examples = _examples([group for group, _ in rows], [label for _, label in rows])
    if len(set(examples.groups.tolist())) < 2:
        with pytest.raises(ConfigError, match="at least 2"):
            examples.split(fraction, seed)
        return
    train, dev = examples.split(fraction, seed)
    assert not set(train.groups.tolist()) & set(dev.groups.tolist())
    seen = sorted(float(view[0, 0]) for part in (train, dev) for view in part.views)
    assert seen == list(range(len(rows)))
    again = examples.split(fraction, seed)
    assert again[1].groups.tolist() == dev.groups.tolist()


def test_dev_has_each_label_that_has_two_recordings() -> None:
    train, dev = _examples([0, 1, 2, 3, 4], [0, 0, 1, 1, 2]).split(0.2, 3)
    assert set(dev.labels.tolist()) == {0, 1}
    assert set(train.labels.tolist()) == {0, 1, 2}


def test_parts_that_do_not_fit_are_refused() -> None:
    good = _examples([0, 1])
    with pytest.raises(ConfigError, match=r"anchors: \[1, 8\], expected \[2, dim\]"):
        Examples(good.views, good.anchors[:1], good.groups, good.labels)
    with pytest.raises(ConfigError, match="expected unit vectors"):
        Examples(good.views, good.anchors * 2, good.groups, good.labels)
    with pytest.raises(ConfigError, match="one shape"):
        Examples([good.views[0], np.zeros(3, np.float32)], good.anchors, good.groups, good.labels)
    with pytest.raises(ConfigError, match="labels: "):
        Examples(good.views, good.anchors, good.groups, good.labels[:1])
    with pytest.raises(ConfigError, match="none"):
        good.take([])
