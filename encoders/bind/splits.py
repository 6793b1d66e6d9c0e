"""Which recordings of the training data are kept for validation: one rule for every tool.

A recording's id is its path below the training folder without its ending, as "photos/tench" or
"esc10/4-182369-A"; "cifar100/apple/17" for a tile, counted by rows; "watch/7" for a person of the
smartwatch recordings; "basic_motions/12" for a series of that file, counted from 0.
"""

from __future__ import annotations

import hashlib
import re

from agent.errors import ConfigError

__all__ = ["held_out", "recording_id"]

ONE_IN = 5
TILES_ONE_IN = 25  # there are thousands; 4 % of them say as much as is needed
ESC_FOLD = 4  # its makers keep every clip cut from one recording in one fold
WATCH_PEOPLE = (7, 8)

# Frames of a sequence are kept by stretches, as neighbours show the same scene: those whose
# number modulo the first figure is at least the second. LLVIP's are all of one street, for
# training.
_STRETCHES = {
    "thermal_pairs/roadscene_FLIR_": (1000, 800),
    "thermal_pairs/roadscene_FLIR_video_": (1000, 800),
    "thermal_pairs/llvip_": (1_000_000, 1_000_000),
    "depth_pairs/frame-": (500, 300),
}
_SEQUENCE = re.compile(r"((?:thermal|depth)_pairs/.*?)(\d+)")


def recording_id(path: str) -> str:
    """Of a file by its path below the training folder, with forward slashes.

    The two files of a pair are one recording: "thermal_pairs/lwir/x.jpg" and "thermal_pairs/rgb/
    x.jpg" are both "thermal_pairs/x".
    """
    stem = re.sub(r"\.[^./]+$", "", path)
    return re.sub(r"^(thermal_pairs|depth_pairs)/[^/]+/", r"\1/", stem)


def held_out(recording_id: str) -> bool:
    """Whether a recording is for validation and must never be trained on.

    About a fifth of them: fold 4 of ESC-10, persons 7 and 8 of the smartwatch, stretches of the
    thermal and depth sequences, every 25th tile; of all else by the SHA-256 of the id. Of the
    photos, one a class, so whole classes. Raises ConfigError for an id that is not well formed.
    """
    collection, _, name = recording_id.partition("/")
    try:
        if collection == "esc10":
            return int(name.split("-")[0]) == ESC_FOLD
        if collection == "watch":
            return int(name) in WATCH_PEOPLE
        if collection in ("cifar10", "cifar100"):
            return int(name.split("/")[1]) % TILES_ONE_IN == TILES_ONE_IN - 1
        if sequence := _SEQUENCE.fullmatch(recording_id):
            period, first = _STRETCHES[sequence[1]]
            return int(sequence[2]) % period >= first
    except (ValueError, IndexError, KeyError) as exc:
        raise ConfigError(
            f"recording {recording_id!r}: not one of {collection}, expected an id such as "
            "'esc10/4-182369-A', 'cifar100/apple/17' or 'watch/7'"
        ) from exc
    return hashlib.sha256(recording_id.encode()).digest()[0] % ONE_IN == 0
