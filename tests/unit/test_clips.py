"""Clips: against averaging by hand, over gaps, and without running the encoder again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import ManualClock
from agent.config import TowerConfig
from agent.stream.clips import Clips
from agent.stream.lane import Lane
from agent.stream.ring import Ring
from agent.stream.windows import Windows
from agent.types import Array, Embedding, Region, Views
from tests.fakes.streams import block, stream
from tests.unit.test_lane import FakeEncoder

MS = 1_000_000
HOP = 500 * MS
LENGTH = 2000 * MS


def embedding(end_ns: int, vector: Array) -> Embedding:
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Embedding("fake@1", unit, "audio", "mic", end_ns - LENGTH, end_ns, end_ns + 7)


def vectors(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, 16))


@given(
    count=st.integers(1, 6),
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
def test_the_mean_is_of_the_newest_clips_that_are_not_of_before_a_gap(
    count: int, steps: list[int], seed: int
) -> None:
    clips = Clips(count)
    ends = [int(n) * HOP for n in np.cumsum(steps)]
    given_clips = [embedding(end, v) for end, v in zip(ends, vectors(len(ends), seed), strict=True)]
    for n, clip in enumerate(given_clips):
        told = clips.mean(clip, HOP)
        recent = [c for c in given_clips[: n + 1][-count:] if clip.end_ns - c.end_ns <= count * HOP]
        expected = np.mean([c.vector for c in recent], axis=0)
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(told.vector, expected, atol=1e-6)
        assert (told.start_ns, told.end_ns) == (recent[0].start_ns, clip.end_ns)
        assert told.arrival_ns == clip.arrival_ns
    # The same clips again give the same bytes.
    again = Clips(count)
    repeated = [again.mean(clip, HOP).vector.tobytes() for clip in given_clips]
    assert repeated[-1] == told.vector.tobytes()


def test_clips_that_point_apart_have_no_mean() -> None:
    clips = Clips(2)
    east = np.eye(16)[0]
    clips.mean(embedding(HOP, east), HOP)
    west = embedding(2 * HOP, -east)
    assert clips.mean(west, HOP) is west


class Turning(FakeEncoder):
    """A vector of its own for each window."""

    def encode(self, windows: list) -> list[Embedding]:
        super().encode(windows)
        return [
            Embedding(self.space, v, "audio", w.stream.name, w.start_ns, w.end_ns)
            for w in windows
            for v in [np.array([np.cos(w.end_ns / 1e9), np.sin(w.end_ns / 1e9)], np.float32)]
        ]


def test_a_lane_averages_each_stream_by_itself_and_encodes_each_clip_once() -> None:
    encoder = Turning()
    lane = Lane(encoder, ManualClock(), TowerConfig(clips=3))
    for name in ("left", "right"):
        ring = Ring(stream(name), 100)
        ring.push(block(ring.stream, 0, [n * 10 * MS for n in range(61)]))
        lane.add(Windows(ring, lane.spec))
    told = lane.step(0)
    assert sum(len(batch) for batch in encoder.batches) == len(told) == 12
    for name in ("left", "right"):
        own = [e for e in told if e.stream == name]
        assert [e.start_ns // MS for e in own] == [0, 0, 0, 100, 200, 300]
        angles = [np.arctan2(e.vector[1], e.vector[0]) for e in own]
        np.testing.assert_allclose(angles, [0.1, 0.15, 0.2, 0.3, 0.4, 0.5], atol=1e-6)
    assert all(a.end_ns <= b.end_ns for a, b in pairwise(told))


def viewed(end_ns: int, rows: Array, *widths: float) -> Embedding:
    """An embedding whose whole is the first of `rows`, and its views the rest."""
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    views = Views(rows[1:], tuple(Region(0.0, 0.0, width, 1.0) for width in widths))
    return replace(embedding(end_ns, rows[0]), views=views)


def test_each_view_has_its_own_mean() -> None:
    clips = Clips(2)
    frames = [viewed(i * HOP, vectors(3, i), 0.25, 0.5) for i in (1, 2)]
    clips.mean(frames[0], HOP)
    told = clips.mean(frames[1], HOP)
    mean = np.mean([frame.rows for frame in frames], axis=0, dtype=np.float64)
    np.testing.assert_allclose(
        told.rows, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6
    )
    assert told.regions == frames[1].regions


def test_frames_of_another_size_have_no_parts_in_common() -> None:
    clips = Clips(2)
    first, second = viewed(HOP, vectors(3, 1), 0.25, 0.5), viewed(2 * HOP, vectors(2, 2), 0.5)
    assert clips.mean(first, HOP) is first
    told = clips.mean(second, HOP)
    assert told.views is None
    whole = Clips(2)
    whole.mean(replace(first, views=None), HOP)
    np.testing.assert_array_equal(told.vector, whole.mean(replace(second, views=None), HOP).vector)
