"""Recipes, and what the towers of the space that ships are trained towards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.errors import ConfigError
from agent.types import StreamInfo, Window
from encoders.bind.recipe import (
    RECIPES,
    LabelRecipe,
    bank_objective,
    label_bank,
    labelled,
    made,
    read_recipe,
    top_1,
)
from encoders.bind.sources import Record
from encoders.bind.towers import build
from encoders.bind.train import fit
from encoders.preprocess.base import Float32Array

DIM = 16


def _encode(texts: list[str] | tuple[str, ...]) -> Float32Array:
    """A vector of its own for each text."""
    rows = [np.random.default_rng(list(text.encode())).normal(size=DIM) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def _record(label: str, number: int, rate: float) -> Record:
    """Ten seconds of shaking at `rate` a second."""
    t_ns = np.arange(0, 10_000_000_000, 50_000_000)
    phase = 2 * np.pi * rate * t_ns[:, None] / 1e9 + number
    data = (5 * np.sin(phase + np.arange(6))).astype(np.float32)
    info = StreamInfo("watch", "imu", "float32", (6,), 20.0, "m/s^2,rad/s")
    window = Window(info, 0, int(t_ns[-1]) + 1, data, t_ns)
    return Record("imu", window, f"{label}/{number}", "made", "ours", label)


@pytest.mark.parametrize("name", ["imu", "audio"])
def test_the_recipes_are_whole(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.yaml", LabelRecipe)
    assert made(recipe.preprocess).shape == {"imu": (6, 100), "audio": (1, 64, 192)}[name]
    assert len({text for own in recipe.texts.values() for text in own}) == sum(
        len(own) for own in recipe.texts.values()
    )


def test_a_field_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "imu.yaml"
    text = (RECIPES / "imu.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("own_share: 0.9", "own_share: 1.9"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"imu\.yaml: .*<= 1.*own_share"):
        read_recipe(path, LabelRecipe)
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_recipe(tmp_path / "none.yaml", LabelRecipe)


def test_a_bank_has_the_mean_of_each_classs_texts() -> None:
    bank = label_bank({"run": ("running", "jogging"), "rest": ("resting",)}, _encode)
    mean = _encode(["running", "jogging"]).sum(axis=0)
    assert bank.anchors[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert bank.texts.shape == (2, 2, DIM)
    assert bank.texts[1] == pytest.approx(np.repeat(_encode(["resting"]), 2, axis=0))


def test_views_stay_with_their_recording() -> None:
    recipe = read_recipe(RECIPES / "imu.yaml", LabelRecipe)
    bank = label_bank({"run": ("running",), "rest": ("resting",)}, _encode)
    both = labelled([_record("run", 0, 3), _record("rest", 1, 1)], made(recipe.preprocess), bank)
    assert both.records.tolist() == [0, 0, 0, 1, 1, 1]
    assert both.examples.groups.tolist() == [0, 0, 0, 1, 1, 1]
    assert both.examples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ConfigError, match="label 'fly' has no texts"):
        labelled([_record("fly", 0, 3)], made(recipe.preprocess), bank)


def test_the_objective_is_least_at_the_own_class() -> None:
    bank = label_bank({"run": ("running",), "rest": ("resting",)}, _encode)
    objective = bank_objective(bank, 0.9, 0.5)
    batch_of = _batch(bank.anchors)
    losses = [
        float(
            objective(
                _Constant(torch.from_numpy(vectors)),
                batch_of,
                torch.tensor(10.0),
                torch.Generator().manual_seed(0),
            )
        )
        for vectors in (bank.anchors, bank.anchors[::-1].copy())
    ]
    assert losses[0] < losses[1] - 1


def test_a_tower_learns_its_classes(tmp_path: Path) -> None:
    recipe = read_recipe(RECIPES / "imu.yaml", LabelRecipe)
    bank = label_bank({"run": ("running",), "rest": ("resting",), "row": ("rowing",)}, _encode)
    rates = {"run": 3.0, "rest": 0.2, "row": 1.0}
    records = [_record(label, n, rate) for label, rate in rates.items() for n in range(6)]
    train, dev = labelled(records, made(recipe.preprocess), bank).examples.split(0.3, 0)
    fresh = labelled(
        [_record(label, 9, rate) for label, rate in rates.items()], made(recipe.preprocess), bank
    )
    tower = build("signal", "watch", (6, 100), DIM, seed=0)
    config = recipe.train.__class__(steps=30, batch=16, rate=2e-3, ema=0.9, evaluations=2)
    fit(tower, train, dev, config, tmp_path, objective=bank_objective(bank, 0.9, 0.5))
    assert top_1(tower, fresh, bank) == (3, 3)


class _Constant(torch.nn.Module):
    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.vectors = vectors

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.vectors


def _batch(anchors: Float32Array) -> object:
    from encoders.bind.train import Batch

    numbers = torch.arange(len(anchors))
    return Batch(torch.zeros(len(anchors), 1), torch.from_numpy(anchors), numbers, numbers, numbers)


def test_a_recording_is_told_from_those_labels_alone_that_are_asked_for() -> None:
    bank = label_bank({"run": ("running",), "rest": ("resting",), "row": ("rowing",)}, _encode)
    settings = read_recipe(RECIPES / "imu.yaml", LabelRecipe).preprocess
    data = labelled([_record("rest", 0, 1.0)], made(settings), bank, most=2)
    assert len(data.examples) == 2
    # Nearest to "run", then to "rest".
    says = 2 * bank.anchors[0] + bank.anchors[1] * (1 - bank.anchors[0] @ bank.anchors[1])
    tower = _Constant(torch.from_numpy(says).expand(2, -1))
    tower.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    assert top_1(tower, data, bank) == (0, 1)
    assert top_1(tower, data, bank, ("rest", "row")) == (1, 1)
