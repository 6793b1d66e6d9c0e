"""A tuned ImageBind as a model folder: its base's towers, and the tuned one in its place.

Needs the extra `bind`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec
import yaml

from agent.errors import ConfigError, EncoderError
from encoders.bind.binding import BindRecipe
from encoders.bind.examples import Examples
from encoders.bind.lora import TunedTower, merged
from encoders.imagebind import folder as exports
from encoders.imagebind.checkpoint import Checkpoint
from encoders.imagebind.export import FLOORS, export_tower, tower_report
from encoders.manifest import MANIFEST_NAME

__all__ = ["write_tuned"]

MATERIAL = "recordings kept out"
ROWS = 8  # of views that the written files are held against the tuned tower on


def write_tuned(
    folder: Path,
    base: Path,
    recipe: BindRecipe,
    exported: exports.Report,
    checkpoint: Checkpoint,
    sense: str,
    tower: TunedTower,
    test: Examples,
) -> Mapping[str, exports.Check]:
    """Write the tuned tower into a copy of the base, in those precisions of the base's that are
    near enough; each file is held against the tuned weights as tools.export holds it against the
    published ones, on some of the views of `test`.

    folder: of `copy_base`. exported: what the base says of itself. Gives what was written, by
    precision. Raises EncoderError where nothing is near enough, ConfigError where the folder cannot
    be written.
    """
    try:
        scratch = folder / ".tuned"
        scratch.mkdir()
        wanted = exported.towers[sense].files
        # A file of fewer bits that is too far from the tuned tower is no reason to lose the others.
        floors = {name: FLOORS[name] if name == "fp32" else -1.0 for name in wanted}
        rows = [test.views[i * len(test) // ROWS] for i in range(ROWS)]
        changed = merged(checkpoint, sense, tower.changed())
        new = export_tower(changed, sense, floors, rows, scratch, lambda step: None)
        near = {name: e for name, e in new.files.items() if min(e.cosines) >= FLOORS[name]}
        if not near:
            told = ", ".join(f"{name} {min(e.cosines):.4f}" for name, e in new.files.items())
            raise EncoderError(
                f"{sense}: least cosine with the tuned tower is {told}, expected at least "
                f"{min(FLOORS[name] for name in wanted):g}: export --space in fp32 too"
            )

        manifest = yaml.safe_load((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        own = yaml.safe_load((base / MANIFEST_NAME).read_text(encoding="utf-8"))["towers"][sense]
        own["window"] = msgspec.to_builtins(recipe.window)
        own["preprocess"] = msgspec.to_builtins(recipe.preprocess)
        own["precision"] = own["precision"] if own["precision"] in near else next(iter(near))
        manifest["towers"][sense] = own
        text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
        (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
        tuned = tuple(sorted({*(exported.source.tuned or ()), sense}))
        source = msgspec.structs.replace(exported.source, tuned=tuned)
        towers = {name: report for name, report in exported.towers.items() if name != sense}
        exports.write_report(
            folder, msgspec.structs.replace(exported, source=source, towers=towers)
        )
        made = exports.ModelFolder(folder, source, exported.made_with)
        made.add(scratch, sense, tower_report(new._replace(files=near), FLOORS, MATERIAL))
        made.describe(scratch, sense, None, None)
        shutil.rmtree(scratch)
        return made.report.towers[sense].files
    except OSError as exc:
        raise ConfigError(
            f"{folder}: cannot be written ({exc.strerror or exc}), expected a folder to write in"
        ) from exc
