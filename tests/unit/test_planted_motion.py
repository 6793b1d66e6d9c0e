"""A watch that is worn: what is planted takes the place of what was, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from tools import planted_motion
from tools.planted_motion import HZ, IMU, motion
from tools.planting import Plant, Planted

SECONDS = 70.0
GRAVITY = 9.80665  # m/s^2


def swing(seconds: float) -> Planted:
    t_s = np.arange(round(seconds * HZ)) / HZ
    waves = np.sin(2 * np.pi * 1.4 * t_s)[:, np.newaxis] * [6.0, 9.0, 4.0, 2.0, 1.0, 2.0]
    waves[:, 2] += GRAVITY
    return Planted("moving", "made", waves.astype(np.float32), len(t_s) / HZ)


@settings(max_examples=20)
@given(
    from_s=st.floats(0, SECONDS - 12),
    lasts_s=st.floats(4, 12),
    db=st.sampled_from([6.0, 0.0, -6.0]),
    seed=st.integers(0, 9),
)
def test_what_is_planted_is_where_and_as_clear_as_its_plant_says(
    from_s: float, lasts_s: float, db: float, seed: int
) -> None:
    plant = Plant(swing(lasts_s), from_s, db)
    made = motion([plant], SECONDS, np.random.default_rng(seed))
    before = motion([], SECONDS, np.random.default_rng(seed))
    assert made.shape == (SECONDS * HZ, 6)
    at = np.flatnonzero((made != before).any(axis=1))
    assert at[0] / HZ == pytest.approx(plant.from_s, abs=1 / HZ)
    assert (at[-1] + 1) / HZ == pytest.approx(plant.to_s, abs=1 / HZ)
    own = plant.what.data.astype(np.float64)
    over = own.std(axis=0) / (made[at[0] : at[-1] + 1] - own).std(axis=0)
    assert np.mean(20 * np.log10(over)) == pytest.approx(db + 12, abs=0.5)


def test_what_lies_or_is_carried_feels_gravity() -> None:
    still = motion([], 600.0, np.random.default_rng(0))
    size = np.linalg.norm(still[:, :3], axis=1)
    assert np.median(size) == pytest.approx(GRAVITY, abs=0.1)
    assert np.isfinite(still).all()


def test_the_same_seed_is_the_same_motion() -> None:
    one, same, other = (
        motion([Plant(swing(5), 3.0, 0.0)], 40.0, np.random.default_rng(seed)).tobytes()
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_samples_are_consecutive_and_stamped() -> None:
    data = np.arange(60 * 6, dtype=np.float32).reshape(60, 6)
    blocks = list(planted_motion.samples(data, 7 * NS_PER_S))
    assert [len(block) for block in blocks] == [25, 25, 10]
    assert all(block.stream == IMU for block in blocks)
    np.testing.assert_array_equal(np.concatenate([block.data for block in blocks]), data)
    t_ns = np.concatenate([block.t_ns for block in blocks])
    np.testing.assert_array_equal(t_ns, 7 * NS_PER_S + np.arange(60) * NS_PER_S // HZ)
    assert [block.seq for block in blocks] == [0, 25, 50]
    assert all(block.arrival_ns - int(block.t_ns[-1]) == 2_000_000 for block in blocks)
