"""What a bound tower is worth: chance, intervals over recordings, and a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.errors import ConfigError
from encoders.bind.examples import Examples
from encoders.bind.judging import judge, retrieval
from encoders.bind.report import FileFigures, write_report
from encoders.bind.scoring import Estimate
from encoders.bind.train import Evaluation

DIM = 16


def _units(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _pairs(recordings: int, each: int) -> Examples:
    count = recordings * each
    views = [np.zeros((1, 2), np.float32)] * count
    groups = np.repeat(np.arange(recordings), each)
    return Examples(views, _units(count, 0), groups, np.full(count, -1))


def _labelled(counts: list[int]) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts)
    anchors = _units(len(counts), 0)[labels]
    views = [np.zeros((1, 2), np.float32)] * len(labels)
    return Examples(views, anchors, np.arange(len(labels)), labels)


def test_vectors_that_are_their_anchors_beat_chance_and_random_ones_do_not() -> None:
    examples = _pairs(20, 2)
    good = judge("mag", "imu", examples.anchors, examples)
    assert good.beats_chance
    assert good.tasks["mag to imu"].recall[1].value == 1
    assert good.tasks["mag to imu"].chance[1] == pytest.approx(2 / 40)  # its recording's share
    assert good.tasks["mag to imu"].chance[5] == pytest.approx(5 / 39)  # one is left out
    assert good.calibration.area == 1
    assert good.gap == pytest.approx(0, abs=1e-6)
    assert not judge("mag", "imu", _units(40, 5), examples).beats_chance


def test_chance_is_that_of_always_pointing_into_the_longest_recording_for_each_k() -> None:
    examples = _pairs(20, 2)
    groups = np.where(examples.groups < 12, 0, examples.groups)
    judged = judge("mag", "imu", _units(40, 5), replace(examples, groups=groups))
    for scores in judged.tasks.values():
        assert scores.chance[1] == pytest.approx(24 / 40)
        assert scores.chance[1] <= scores.chance[5] <= scores.chance[10]


def test_a_gain_is_told_from_luck_by_the_recordings_it_is_in() -> None:
    examples = _pairs(20, 2)
    before = _units(40, 5)
    lifted = np.where((examples.groups < 12)[:, np.newaxis], examples.anchors, before)
    once = np.where((examples.groups < 1)[:, np.newaxis], examples.anchors, before)
    base = judge("mag", "imu", before, examples)
    gains = judge("mag", "imu", lifted, examples).gains(base)
    assert list(gains) == ["mag to imu"]
    assert gains["mag to imu"].low > 0.3
    assert gains["mag to imu"].value == pytest.approx(
        1.2 * 0.5 - (base.asking["mag to imu"][0][:24]).sum() / 40
    )
    assert judge("mag", "imu", once, examples).gains(base)["mag to imu"].low == 0
    assert base.gains(base)["mag to imu"] == Estimate(0, 0, 0)


def test_one_answer_to_everything_beats_nothing() -> None:
    """Though it is right in nine of ten."""
    examples = _labelled([18, 2])
    constant = np.repeat(examples.anchors[:1], 20, axis=0)
    judged = judge("emg", "text", constant, examples)
    assert judged.tasks["emg to label"].recall[1].value == pytest.approx(0.9)
    assert judged.tasks["emg to label"].chance[1] == pytest.approx(0.9)
    assert not judged.beats_chance
    assert judge("emg", "text", examples.anchors, examples).beats_chance


def test_pointing_into_one_recording_beats_nothing() -> None:
    count, each = 6, 5
    centres = np.repeat(_units(count, 0), each, axis=0)
    anchors = centres + 0.1 * _units(count * each, 1)
    anchors = (anchors / np.linalg.norm(anchors, axis=1, keepdims=True)).astype(np.float32)
    pairs = _pairs(count, each)
    examples = Examples(pairs.views, anchors, pairs.groups, pairs.labels)
    judged = judge("mag", "imu", np.repeat(centres[:1], len(anchors), axis=0), examples)
    found = judged.tasks["mag to imu"]
    assert found.recall[1].value == pytest.approx(found.chance[1]) == pytest.approx(1 / count)
    assert not judged.beats_chance


def test_what_is_of_the_same_recording_is_no_candidate() -> None:
    examples = _pairs(6, 3)
    neighbours = examples.anchors[np.arange(18) // 3 * 3]  # the first of each recording
    judged = judge("mag", "imu", neighbours, examples)
    exact = neighbours[::3]
    assert judged.tasks["mag to imu"].recall[1].value >= len(exact) / 18
    pool, own = examples.anchors, np.eye(18, dtype=bool)
    alone = retrieval(neighbours, pool, own, ~own, examples.groups)
    assert alone.recall[1].value == alone.chance[1] == 1


def test_an_interval_counts_recordings_and_not_windows() -> None:
    own = np.eye(40, dtype=bool)
    none = np.zeros_like(own)
    anchors = _units(40, 0)
    queries = np.where(np.arange(40)[:, None] < 20, anchors, -anchors)
    windows = retrieval(queries, anchors, own, none, np.arange(40))
    recordings = retrieval(queries, anchors, own, none, np.arange(40) // 10)
    widths = [s.recall[1].high - s.recall[1].low for s in (windows, recordings)]
    assert widths[1] > 2 * widths[0]


def test_too_few_recordings_tell_nothing() -> None:
    examples = _pairs(4, 5)
    with pytest.raises(ConfigError, match="4 recordings, expected at least 5"):
        judge("mag", "imu", examples.anchors, examples)


def test_a_report_has_its_figures_and_its_pictures(tmp_path: Path) -> None:
    examples = _pairs(8, 2)
    judged = judge("mag", "imu", examples.anchors, examples)
    history = [Evaluation(5, 0.1, 0.2, 3.0), Evaluation(10, 0.5, 0.6, 2.0)]
    files = {"fp32": FileFigures(1_500_000, 1.0, 0.25)}
    text = write_report(tmp_path, "mag", {"seed": "0"}, judged, history, files)
    assert (tmp_path / "report.md").read_text() == text
    assert "**beats chance** on 8 recordings" in text
    assert "| mag to imu | 16 | 1.000 [1.000, 1.000]" in text
    assert "| fp32 | 1.50 | 1.00000 | 0.25 |" in text
    for name in ("recall", "cosines", "history"):
        assert f"]({name}.png)" in text
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
