"""Two sounds heard together, and what they are to be found by."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encoders.bind.augment import AUGMENTS, Mixed, mix_log_mel
from encoders.bind.recipe import Bank, bank_objective
from encoders.bind.train import Batch
from encoders.preprocess.audio import LOG_OFFSET, LOG_SCALE


def _power(views: torch.Tensor) -> torch.Tensor:
    return (views * LOG_SCALE - LOG_OFFSET).exp()


@given(count=st.integers(1, 12), seed=st.integers(0, 99), chance=st.floats(0, 1))
def test_powers_are_mixed_in_the_ratio_that_is_told(count: int, seed: int, chance: float) -> None:
    views = torch.rand((count, 1, 8, 12), generator=torch.Generator().manual_seed(seed)) * 3 - 1
    mixed, other, share = mix_log_mel(views, torch.Generator().manual_seed(seed), chance)
    assert sorted(other.tolist()) == list(range(count))
    assert ((share >= 0.5) & (share <= 1)).all()
    own, added = (share**2)[:, None, None, None], ((1 - share) ** 2)[:, None, None, None]
    expected = (own * _power(views) + added * _power(views)[other]) / (own + added)
    torch.testing.assert_close(_power(mixed), expected, rtol=1e-3, atol=1e-6)


def test_with_no_chance_nothing_is_mixed() -> None:
    views = torch.rand(64, 1, 8, 12) * 3 - 1
    mixed, _, share = mix_log_mel(views, torch.Generator().manual_seed(0), 0.0)
    torch.testing.assert_close(mixed, views, rtol=1e-4, atol=1e-4)
    assert (share == 1).all()
    _, _, share = mix_log_mel(views, torch.Generator().manual_seed(0), 0.5)
    assert 16 < int((share < 1).sum()) < 48


def test_a_mixture_is_to_be_found_by_both_of_its_sounds() -> None:
    eye = np.eye(4, dtype=np.float32)
    bank = Bank(("a", "b", "c", "d"), eye, eye[:, None])
    labels = torch.tensor([0, 1])

    def halves(views: torch.Tensor, _: torch.Generator) -> Mixed:
        return Mixed(views, torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))

    objective = bank_objective(bank, 1.0, 0.5, mix=halves)
    batch = Batch(torch.zeros(2, 4), torch.from_numpy(eye)[:2], labels, labels, labels)

    def loss(vector: list[float]) -> float:
        unit = nn.functional.normalize(torch.tensor([vector], dtype=torch.float32), dim=1).expand(
            2, -1
        )
        return float(
            objective(_Says(unit), batch, torch.tensor(10.0), torch.Generator().manual_seed(0))
        )

    both = loss([1, 1, 0, 0])
    assert both < min(loss([1, 0, 0, 0]), loss([0, 1, 0, 0]), loss([0, 0, 1, 1]))


def test_pitch_moves_a_tone_to_a_neighbouring_band() -> None:
    views = torch.full((200, 1, 64, 192), -1.0)
    views[:, :, 30] = 2.0
    moved = AUGMENTS["log_mel"](views, torch.Generator().manual_seed(0))
    loudest = moved.mean(-1)[:, 0].argmax(1)
    inside = loudest[(loudest > 20) & (loudest < 40)]  # where a mask has not silenced it
    assert len(inside) > 150
    assert int(inside.min()) in (26, 27, 28)
    assert int(inside.max()) in (32, 33, 34)


class _Says(nn.Module):
    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.vectors


def test_classes_are_told_apart_by_each_of_their_texts_where_that_is_asked_for() -> None:
    eye = np.eye(4, dtype=np.float32)
    # The first texts of two classes differ in two axes, the second texts in two others.
    texts = np.stack([eye[[0, 2]], eye[[1, 3]]])
    means = texts.mean(1) / np.linalg.norm(texts.mean(1), axis=1, keepdims=True)
    bank = Bank(("a", "b"), means.astype(np.float32), texts)
    labels = torch.tensor([0])
    batch = Batch(torch.zeros(1, 4), torch.from_numpy(bank.anchors)[:1], labels, labels, labels)

    def loss(vector: list[float], each: bool) -> float:
        unit = nn.functional.normalize(torch.tensor([vector]), dim=1)
        objective = bank_objective(bank, 1.0, 0.0, each=each)
        return float(
            objective(_Says(unit), batch, torch.tensor(10.0), torch.Generator().manual_seed(0))
        )

    one_text, both = [1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]
    assert loss(both, each=True) < loss(one_text, each=True)
    assert loss(one_text, each=True) > loss(one_text, each=False)
