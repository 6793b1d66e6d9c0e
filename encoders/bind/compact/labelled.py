"""compact's towers of motion and sound, bound to text by labelled recordings.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from encoders.bind import sources, sources_motion
from encoders.bind.augment import augment_for, mix_log_mel
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
from encoders.bind.sounds import SoundList, everyday_sounds
from encoders.bind.towers import keep_to_axes_of

__all__ = ["make_audio", "make_imu"]

MOST_VIEWS = 12  # of a recording: one of minutes says no more


def make_imu(making: Making) -> Made:
    """Exercises and daily motions of a smartwatch."""
    records = [
        *sources_motion.watch(making.cache / "seglearn"),
        *sources_motion.basic_motions(making.cache / "aeon"),
    ]
    return _make(making, "imu", {"": records})


def make_audio(making: Making) -> Made:
    """Environmental sounds, animals' calls, and what else is heard of a day.

    The second kind has few recordings a label, some one only: those are told apart in the figures.
    """
    sounds = read_recipe(RECIPES / "sounds.yaml", SoundList)
    records = {
        "": [*sources.esc10(making.data), *sources.animal_sounds(making.data)],
        "everyday_": everyday_sounds(making.cache, sounds),
    }
    return _make(making, "audio", records, MOST_VIEWS)


def _make(
    making: Making,
    modality: str,
    records: Mapping[str, Sequence[sources.Record]],
    most: int | None = None,
) -> Made:
    """Bind a tower to its recipe's texts; judged on the recordings that are held out.

    records: by what the names of their figures begin with. most: views of a recording.
    """
    recipe = read_recipe(RECIPES / f"{modality}.yaml", LabelRecipe)
    bank = label_bank(recipe.texts, making.encode)
    preprocess = made(recipe.preprocess)
    used = [record for own in records.values() for record in own if not record.held_out]
    train, dev = recipe.parts(labelled(used, preprocess, bank, most).examples)
    mix = partial(mix_log_mel, chance=recipe.mixed) if recipe.mixed else None
    augment = augment_for(recipe.preprocess.name, recipe.augment)
    objective = bank_objective(bank, recipe.own_share, recipe.regression, augment, mix, recipe.each)
    tower, figures = making.fit(modality, recipe, train, dev, objective=objective)
    keep_to_axes_of(tower, bank.anchors)
    for name, own in records.items():
        kept = labelled([record for record in own if record.held_out], preprocess, bank, most)
        mine = {record.label for record in own}
        among = {"": bank.labels}
        if mine != set(bank.labels):  # told apart from their own kind is another thing
            among["_of_own"] = tuple(mine)
        for kind, labels in among.items():
            right, of = top_1(tower, kept, bank, labels)
            figures[f"{name}held_out_top_1{kind}"] = right / of
            figures[f"{name}chance{kind}"] = 1 / len(labels)
            figures[f"{name}held_out"] = of
    return figures | making.write(modality, recipe, tower, train.views), used
