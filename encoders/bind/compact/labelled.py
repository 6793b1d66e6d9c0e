"""compact's towers of motion and sound, bound to text by labelled recordings.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Sequence

from encoders.bind import sources, sources_motion
from encoders.bind.augment import augment_for
from encoders.bind.compact.folder import Made, Making
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

__all__ = ["make_audio", "make_imu"]


def make_imu(making: Making) -> Made:
    """Exercises and daily motions of a smartwatch."""
    records = [
        *sources_motion.watch(making.cache / "seglearn"),
        *sources_motion.basic_motions(making.cache / "aeon"),
    ]
    return _make(making, "imu", records)


def make_audio(making: Making) -> Made:
    """Environmental sounds and animals' calls."""
    records = [*sources.esc10(making.data), *sources.animal_sounds(making.data)]
    return _make(making, "audio", records)


def _make(making: Making, modality: str, records: Sequence[sources.Record]) -> Made:
    """Bind a tower to its recipe's texts; judged on the recordings that are held out."""
    recipe = read_recipe(RECIPES / f"{modality}.yaml", LabelRecipe)
    bank = label_bank(recipe.texts, making.encode)
    preprocess = made(recipe.preprocess)
    used = [record for record in records if not record.held_out]
    kept = [record for record in records if record.held_out]
    train, dev = recipe.parts(labelled(used, preprocess, bank).examples)
    objective = bank_objective(
        bank, recipe.own_share, recipe.regression, augment_for(recipe.preprocess.name)
    )
    tower, figures = making.fit(modality, recipe, train, dev, objective=objective)
    right, of = top_1(tower, labelled(kept, preprocess, bank), bank)
    figures |= {"held_out_top_1": right / of, "held_out": of, "chance": 1 / len(bank.labels)}
    return figures | making.write(modality, recipe, tower, train.views), used
