"""Weights that were measured: kept in a file, and what a query of several streams is asked by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.clock import NS_PER_S
from agent.errors import ConfigError
from agent.match.calibrated import Calibration, read_calibration
from agent.match.combined import Combined
from tests.fakes.space import FakeSpace
from tests.fakes.streams import stream
from tests.unit.test_matcher import CAM, MIC, Rig, text
from tools.npz import write_npz

GLASS = text("glass", max_false_alarms_per_hour=1.0)
NAMES = ("cam", "mic")


def noisy(rig: Rig, mic: float, cam: float | None, seconds: int = 240) -> list[Any]:
    """Ordinary seconds, then one of the given cosines; of deviation 0.1 and mean 0 at first."""
    noise = np.random.default_rng(2).normal(0.0, 0.1, (seconds, 2))
    events = []
    for n, (heard, looked) in enumerate([*noise.tolist(), [mic, cam]]):
        events += rig.at(1.0 + n, "mic", glass=heard)
        if looked is not None:
            events += rig.at(1.4 + n, "cam", glass=looked)
    return events


def learned(*weights: float, names: tuple[str, ...] = NAMES) -> Calibration:
    """Of one query, of ten minutes, with weights of the streams by name in order."""
    rig = Rig(GLASS, streams=(CAM, MIC))
    noisy(rig, 0.0, 0.0, 600)
    own = rig.matcher.learned()
    row = [dict(zip(names, weights, strict=True)).get(name, np.nan) for name in NAMES]
    return own.with_weights(np.array([row]), Combined(1, NAMES, 0.25).learned())


def shares(event: Any) -> dict[str, float]:
    return {part.stream: part.share for part in event.evidence}


def test_a_blind_sense_takes_none_of_the_rate_and_does_not_drown_the_other() -> None:
    asked = noisy(Rig(GLASS, calibration=learned(0.0, 1.0)), 0.55, -0.3)
    assert noisy(Rig(GLASS, calibration=learned(0.0, 1.0)), 0.0, 0.9) == []
    (start,) = asked
    assert start.phase == "start"
    assert shares(start) == {"mic": 1.0, "cam": 0.0}
    assert start.evidence[0].stream == "mic"


def test_the_sum_is_asked_at_the_whole_rate() -> None:
    measured, plain = (Rig(GLASS, calibration=each) for each in (learned(0.5, 0.5), None))
    for rig in (measured, plain):
        noisy(rig, 0.0, 0.0)
    shares_of = [rig.matcher._fusion._share.tolist() for rig in (measured, plain)]
    assert shares_of == [[1.0], [pytest.approx(1 / 3)]]
    fusion = measured.matcher._fusion
    value, best = fusion.best(0, 241 * NS_PER_S)
    per_hour = float(fusion._combined.per_hour[0])
    assert value == pytest.approx(1 / (1 + per_hour)), "of the sum, and of nothing else"
    assert best is not None


def test_shares_follow_weight_times_z() -> None:
    last = noisy(Rig(GLASS, calibration=learned(0.2, 0.8)), 0.6, 0.6)[-1]
    z = {part.stream: part.z for part in last.evidence}
    told = shares(last)
    assert told["mic"] == pytest.approx(
        0.8 * z["mic"] / (0.8 * z["mic"] + 0.2 * z["cam"]), abs=1e-4
    )
    assert sum(told.values()) == pytest.approx(1.0, abs=1e-3)


def test_a_stream_that_is_missing_is_named_and_the_other_answers_alone() -> None:
    rig = Rig(GLASS, calibration=learned(0.3, 0.7))
    events = []
    noise = np.random.default_rng(2).normal(0.0, 0.1, 240)
    for n, heard in enumerate([*noise.tolist(), 0.7]):
        events += rig.at(1.0 + n, "mic", glass=heard)
    (start,) = events
    assert [(part.stream, part.status) for part in start.evidence] == [
        ("mic", "ok"),
        ("cam", "missing"),
    ]
    assert shares(start) == {"mic": 1.0, "cam": None}


@pytest.mark.parametrize("streams", [(MIC, CAM), (MIC, CAM, stream("watch", "imu"))])
def test_with_a_stream_that_has_no_weight_it_is_asked_as_if_nothing_was_measured(
    streams: Any,
) -> None:
    partly = learned(1.0, names=("mic",)) if len(streams) == 2 else learned(0.2, 0.8)
    plain = Calibration(partly.space, partly.queries, partly.streams, {
        name: array for name, array in partly.arrays.items()
        if not name.startswith("+") and not name.endswith("/weight")
    })  # fmt: skip
    told = [
        noisy(Rig(GLASS, streams=streams, calibration=each), 0.5, 0.5) for each in (partly, plain)
    ]
    assert told[0] == told[1] != []


def test_a_change_of_another_query_keeps_weights_and_what_the_sum_has_learned() -> None:
    rig = Rig(GLASS, calibration=learned(0.3, 0.7))
    noisy(rig, 0.0, 0.0)
    before = rig.matcher._fusion._combined
    rig.queries.put(text("dog", max_false_alarms_per_hour=1.0))
    rig.matcher.scores(241 * NS_PER_S)
    after = rig.matcher._fusion._combined
    assert after is not before
    assert after.weights.tolist() == [before.weights[0].tolist(), [0.0, 0.0]]
    assert after.tail.hours[0] == before.tail.hours[0] > 100 / 3600
    assert after.correlation[0].tolist() == before.correlation[0].tolist()


def test_what_the_sum_had_learned_is_begun_with_where_all_its_streams_are_there() -> None:
    past = Combined(1, NAMES, 0.25)
    past.tail.hours[:] = 3.0
    past.correlation[0, 0, 1] = past.correlation[0, 1, 0] = 0.4
    own = learned(0.3, 0.7)
    weights = np.array([[0.3, 0.7]])
    again = own.with_weights(weights, past.learned())
    for streams, hours in (((MIC, CAM), 3.0), ((MIC, stream("cam", "thermal")), 0.0)):
        rig = Rig(GLASS, streams=streams, calibration=again)
        rig.matcher.scores(0)
        combined = rig.matcher._fusion._combined
        assert combined.tail.hours[0] == hours
        assert combined.correlation[0, 0, 1] == (0.4 if hours else 0.0)


def test_weights_are_read_back_and_a_file_from_before_has_none(tmp_path: Path) -> None:
    own, path = learned(0.3, 0.7), tmp_path / "c.npz"
    write_npz(path, own.arrays, own.head)
    read = read_calibration(path, FakeSpace.identity)
    rows = {key: row for row, key in enumerate(read.queries)}
    watch = stream("watch", "imu")
    assert read.weights([MIC, CAM], rows).tolist() == [[0.7, 0.3]]
    assert np.isnan(read.weights([watch, stream("mic", "imu")], rows)).all()
    old = {n: a for n, a in own.arrays.items() if n[0] != "+" and not n.endswith("/weight")}
    write_npz(path, old, own.head)
    assert np.isnan(read_calibration(path, FakeSpace.identity).weights([MIC, CAM], rows)).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mic/weight": np.array([0.9])}, "expected numbers from 0 on whose sum is 1"),
        ({"mic/weight": np.array([-0.3]), "cam/weight": np.array([1.3])}, "'glass' are"),
        ({"mic/weight": np.zeros(2)}, r"mic/weight is \[2\], expected \[1\]"),
        ({"+/correlation": None}, r"\+/correlation is none, expected \[1, 2, 2\]"),
    ],
)
def test_damaged_weights_are_refused(tmp_path: Path, change: Any, told: str) -> None:
    own, path = learned(0.3, 0.7), tmp_path / "c.npz"
    arrays = {n: a for n, a in {**own.arrays, **change}.items() if a is not None}
    write_npz(path, arrays, own.head)
    with pytest.raises(ConfigError, match=told):
        read_calibration(path, FakeSpace.identity)
