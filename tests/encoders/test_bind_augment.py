"""Augmentations: seeded, of the same shape, and no more than they say."""

from __future__ import annotations

import pytest
import torch

from agent.errors import ConfigError
from encoders.bind.augment import AUGMENTS, augment_for, grid, motion, signal, wrist

SHAPES = {
    "grid": (1, 12, 9),
    "log_mel": (1, 64, 192),
    "motion": (6, 100),
    "picture": (3, 32, 32),
    "signal": (4, 50),
    "wrist": (6, 100),
}


@pytest.mark.parametrize("name", sorted(AUGMENTS))
def test_the_same_seed_gives_the_same_views_and_another_does_not(name: str) -> None:
    views = torch.randn(5, *SHAPES[name], generator=torch.Generator().manual_seed(1))
    before = views.clone()
    made = [AUGMENTS[name](views, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert made[0].shape == views.shape
    assert made[0].dtype == torch.float32
    assert torch.isfinite(made[0]).all()
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert torch.equal(views, before)


def test_silence_stays_finite_and_loud_sound_stays_on_scale() -> None:
    floor = torch.full((4, 1, 64, 192), (torch.tensor(1e-6).log().item() + 4) / 4)
    for views in (floor, torch.full_like(floor, 2.0)):
        made = AUGMENTS["log_mel"](views, torch.Generator().manual_seed(0))
        assert made.min() >= floor.min() - 1e-4
        assert made.max() < 4


def test_motion_turns_the_unit_and_puts_gravity_only_where_there_is_none() -> None:
    with_gravity = torch.zeros(64, 6, 100)
    with_gravity[:, 2] = 0.981
    made = motion(with_gravity, torch.Generator().manual_seed(0))[:, :3].mean(-1).norm(dim=1)
    assert made.min() > 0.981 * 0.85
    assert made.max() < 0.981 * 1.15
    free = motion(torch.zeros(64, 6, 100), torch.Generator().manual_seed(0))
    level = free[:, :3].mean(-1).norm(dim=1)
    assert 16 < int((level > 0.8).sum()) < 48
    assert int((level < 0.1).sum()) == 64 - int((level > 0.8).sum())


def test_half_of_the_watches_are_worn_on_the_other_wrist() -> None:
    views = torch.zeros(64, 6, 100)
    views[:, 0] = 0.981
    views[:, 3:5] = 2.0
    made = wrist(views, torch.Generator().manual_seed(0)).mean(-1)
    other = made[:, 0] < 0
    assert 16 < int(other.sum()) < 48
    turned = made[:, 3:].sign()
    assert (turned[:, 0] > 0).float().mean() > 0.95  # a unit that sits askew may tip it over
    assert ((turned[:, 1] < 0) == other).float().mean() > 0.95


def test_a_grid_is_never_mirrored() -> None:
    views = torch.zeros(32, 1, 20, 20)
    views[:, :, :, :6] = 1.0
    made = grid(views, torch.Generator().manual_seed(0))
    assert (made[..., :10].mean(dim=(1, 2, 3)) > made[..., 10:].mean(dim=(1, 2, 3))).all()


def test_one_tick_is_enough_for_a_signal() -> None:
    assert signal(torch.ones(2, 3, 1), torch.Generator().manual_seed(0)).shape == (2, 3, 1)


def test_a_preprocessing_has_the_one_that_suits_it() -> None:
    assert augment_for("audio") is AUGMENTS["log_mel"]
    assert augment_for("signal") is AUGMENTS["signal"]
    assert augment_for("signal", "none") is None
    assert augment_for("of_another_package") is None
    with pytest.raises(ConfigError, match="'wobble', expected none or one of grid"):
        augment_for("signal", "wobble")
