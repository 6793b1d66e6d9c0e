"""A camera with pictures held before it: when they are there, how large, and by what light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from agent.types import Sample
from encoders.bind.splits import held_out
from tests.fakes.training import COLOURS, make_training
from tools import planted_pictures
from tools.planted_pictures import DAY, HEIGHT, HZ, NIGHT, WIDTH, Light, samples
from tools.planting import Deck, Plant, Planted

DARK = Light(1.0, 0.0)
SECONDS = 12.0
RED = np.full((32, 32, 3), (250, 0, 0), np.uint8)


def seen(plants: list[Plant], light: Light = DARK, seed: int = 3) -> list[Sample]:
    """Of a camera that looks at a grey wall."""
    rng = np.random.default_rng(seed)
    wall = Deck([np.full((HEIGHT + 24, WIDTH + 32, 3), 100, np.uint8)], rng)
    return list(samples(plants, SECONDS, light, wall, rng, 7 * NS_PER_S))


def red(sample: Sample) -> float:
    """Share of the frame."""
    frame = sample.data[0].astype(int)
    return float((frame[..., 0] - frame[..., 1] > 50).mean())


@settings(max_examples=25)
@given(from_s=st.floats(0, SECONDS), lasts_s=st.floats(0.5, 5))
def test_a_picture_is_there_while_its_plant_lasts(from_s: float, lasts_s: float) -> None:
    plant = Plant(Planted("dog", "made", RED, lasts_s), from_s, 0.0)
    for number, sample in enumerate(seen([plant])):
        t_s = (int(sample.t_ns[0]) - 7 * NS_PER_S) / NS_PER_S
        assert t_s == pytest.approx(number / HZ, abs=1e-9)
        assert (red(sample) > 0) == (from_s <= number / HZ < plant.to_s)
        assert sample.arrival_ns - int(sample.t_ns[0]) == 30_000_000


@pytest.mark.parametrize(("db", "share"), [(-6.0, 0.2), (0.0, 0.5), (6.0, 0.75)])
def test_the_level_is_of_its_area_over_the_rest(db: float, share: float) -> None:
    """At 6 dB it is 0.8, but for what does not fit into the height of the frame."""
    plant = Plant(Planted("dog", "made", RED, 3.0), 1.0, db)
    shares = {red(sample) for sample in seen([plant])} - {0.0}
    assert list(shares) == [pytest.approx(share, abs=0.01)]


def test_two_pictures_come_one_after_the_other() -> None:
    blue = np.full((32, 32, 3), (0, 0, 250), np.uint8)
    plants = [
        Plant(Planted("a", "1", RED, 2.0), 1.0, 0.0),
        Plant(Planted("b", "2", blue, 2.0), 4.0, 0.0),
    ]
    colours = [sample.data[0, 60, 80].tolist() for sample in seen(plants)]
    grey = [100, 100, 100]
    expected = [grey] * 3 + [[250, 0, 0]] * 6 + [grey] * 3 + [[0, 0, 250]] * 6
    assert colours[:18] == expected


@pytest.mark.parametrize("light", [DAY, NIGHT])
def test_light_dims_all_of_it_and_adds_its_noise(light: Light) -> None:
    frame = seen([], light)[0].data.astype(float)
    assert frame.mean() == pytest.approx(100 * light.gain, abs=1)
    assert frame.std() == pytest.approx(light.noise, rel=0.05)


def test_the_same_seed_is_the_same_pictures() -> None:
    plant = Plant(Planted("dog", "made", RED, 3.0), 1.0, 0.0)
    one, same, other = (
        b"".join(sample.data.tobytes() for sample in seen([plant], NIGHT, seed))
        for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_only_what_is_held_out_is_shown(tmp_path: Path) -> None:
    training = tmp_path / "training"
    make_training(training)
    kinds = planted_pictures.kinds(training)
    assert kinds.keys() == COLOURS.keys() - {"bee"}
    for kind, own in kinds.items():
        assert [each.recording.rpartition("/")[2] for each in own] == ["24", "49"]
        for each in own:
            assert held_out(each.recording)
            np.testing.assert_array_equal(each.data[0, 0], COLOURS[kind])
    others = planted_pictures.bystanders(training)
    assert [(each.kind, each.recording) for each in others] == [
        ("", "cifar100/bee/24"),
        ("", "cifar100/bee/49"),
    ]
    views = planted_pictures.views(training)
    assert [view.shape for view in views] == [(HEIGHT + 24, WIDTH + 32, 3)] * 2
    assert {int(view[0, 0, 0]) for view in views} == {100}  # the later, held-out stretches
