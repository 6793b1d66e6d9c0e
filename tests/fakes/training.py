"""A training folder of a few small recordings, laid out as the real one, some of them held out."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from encoders.bind.splits import held_out

COLUMNS = "path\tkind\tlabel\tseconds_or_count\tsource_and_licence\tbytes\tsha256_16\n"

RATE_HZ = 16_000
COLOURS = {
    "dog": (255, 0, 0),
    "cat": (0, 255, 0),
    "bird": (0, 0, 255),
    "frog": (255, 255, 0),
    "lion": (255, 0, 255),
    "cattle": (0, 255, 255),
    "bee": (255, 255, 255),
}
TILES = 50  # of a class: numbers 24 and 49 are held out


def write_manifest(training: Path, rows: Iterable[tuple[str, str, int]]) -> None:
    """rows: a file's path below the folder, its label, and how many tiles it has."""
    lines = [
        f"training/{path}\t\t{label}\t{tiles}\tours, free\t1\t0\n" for path, label, tiles in rows
    ]
    (training / "MANIFEST.tsv").write_text(COLUMNS + "".join(lines), encoding="utf-8")


def noise_burst(path: Path, seed: int, seconds: float = 1.0) -> None:
    """White noise, which looks like itself alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 1])  # not the noise of a room that is made by that seed
    wave = rng.normal(0, 0.1, round(seconds * RATE_HZ))
    soundfile.write(path, wave, RATE_HZ, subtype="FLOAT")


def names(stem: str, kept: bool, many: int) -> list[str]:
    """The first ids of recordings that begin with `stem` and are held out, or are not."""
    numbered = (f"{stem}{number}" for number in count())
    return list(islice((name for name in numbered if held_out(name) == kept), many))


def make_training(training: Path) -> None:
    """Two sounds of each of six kinds to judge by and one to train on, but nine and two of a dog;
    fifty tiles of seven classes, each of a colour; and four grey streets and rooms with pictures.
    """
    rows = []
    sounds = [f"esc10/4-{number}-A" for number in range(9)], [f"esc10/{n}-0-A" for n in (1, 2)]
    recordings = [(name, "dog") for name in (*sounds[0], *sounds[1])]
    for kind in ("cat", "bird", "frog", "lion", "cow"):
        stem = f"animal_sounds/{kind}_"
        recordings += [(name, kind) for name in (*names(stem, True, 2), *names(stem, False, 1))]
    for seed, (name, label) in enumerate(recordings):
        noise_burst(training / f"{name}.wav", seed)
        rows.append((f"{name}.wav", label, 1))
    for label, colour in COLOURS.items():
        collection = "cifar10" if label in ("dog", "cat", "bird", "frog") else "cifar100"
        path = training / collection / f"{label}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (10 * 32, 5 * 32), colour).save(path)
        rows.append((f"{collection}/{label}.png", label, TILES))
    for sense, folder, stems in (
        ("thermal_pairs", "lwir", ("roadscene_FLIR_00100", "roadscene_FLIR_00900")),
        ("depth_pairs", "depth", ("frame-000100", "frame-000400")),
    ):
        for number, stem in enumerate(stems):
            for part in (folder, "rgb"):
                path = training / sense / part / f"{stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (64, 48), 60 + 40 * number).save(path)
            rows.append((f"{sense}/{folder}/{stem}.png", "", 1))
    write_manifest(training, rows)
