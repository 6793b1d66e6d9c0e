"""Make hours of logs in which it is known what happens when, for tools/evaluate.py events.

example:
  python -m tools.make_labelled_logs --training DATA/training --cache PACKAGES --out logs

Recordings that no tower of compact was trained on (encoders/bind/splits.py) are planted in room
noise, among other recordings that nobody asks for, at +6, 0 and -6 dB over it. Writes folders of
logs of an hour each at most, to be played in the order of their names, with LABELS.json, and
config.yaml, which asks by text and by example:

  audio, image, imu    a quiet log to calibrate on, then the hours
  room, gain, night    an hour, and one after the stream has changed: another room's noise, the
                       microphone at half its gain, the camera at night
  fusion               sounds and pictures of one thing at one time

The same seed and data give the same logs. PACKAGES is what tools/make_compact.py fetches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from agent.cli import run_command
from agent.errors import ConfigError
from agent.types import slug
from tools import planted_motion, planted_pictures
from tools.labelled_set import Hour, LabelledSet
from tools.planted_pictures import DAY, NIGHT
from tools.planted_sounds import ROOMS, Room
from tools.planting import Deck

__all__ = ["main"]

# Of sounds in each room, of pictures, of motions: over two, chance alone misses a fifth of rates.
HOURS = len(ROOMS)
# What can be both heard and seen: kinds of sound, and of tiles.
SEEN_AS = {"dog": "dog", "cat": "cat", "bird": "bird", "frog": "frog", "lion": "lion"}
SEEN_AS |= {"cow": "cattle"}


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    wanted = list(SETS) if args.only is None else [name.strip() for name in args.only.split(",")]
    for name in wanted:
        if name not in SETS:
            raise ConfigError(f"--only: {name!r}, expected of {', '.join(SETS)}")
    scale = args.scale
    if not 0 < scale <= 1:
        raise ConfigError(f"--scale: {scale:g}, expected above 0 and at most 1")
    for number, name in enumerate(SETS):
        if name in wanted:
            rng = np.random.default_rng([args.seed, number])
            SETS[name](LabelledSet(args.out / name, args.training, args.cache, scale, rng))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training", type=Path, required=True, help="folder with MANIFEST.tsv")
    parser.add_argument("--cache", type=Path, required=True, help="folder of unpacked packages")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--only", metavar="A,B", help=f"of {', '.join(SETS)} (default: all)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="length of every log, 0..1 (default: 1)"
    )
    return parser


def _audio(made: LabelledSet) -> None:
    kinds, others = made.sounds()
    quiet = Hour("0_quiet", made.hour_s, {"microphone": made.quiet(others)}, ROOMS[0])
    dealt = made.deal(kinds, others, len(ROOMS))
    hours = [
        Hour(f"{i + 1}_hour", made.hour_s, {"microphone": plants}, room)
        for i, (plants, room) in enumerate(zip(dealt, ROOMS, strict=True))
    ]
    made.write([quiet, *hours], made.heard(kinds))


def _image(made: LabelledSet) -> None:
    kinds = planted_pictures.kinds(made.training)
    others = planted_pictures.bystanders(made.training)
    quiet = Hour("0_quiet", made.hour_s, {}, light=DAY)
    dealt = made.deal(kinds, others, HOURS, hourly=6)
    hours = [
        Hour(f"{i + 1}_hour", made.hour_s, {"camera": plants}, light=DAY)
        for i, plants in enumerate(dealt)
    ]
    made.write([quiet, *hours], made.seen(kinds))


def _imu(made: LabelledSet) -> None:
    kinds = planted_motion.kinds(made.cache / "aeon", made.cache / "seglearn")
    quiet = Hour("0_quiet", made.hour_s, {}, moved=True)
    dealt = made.deal(kinds, (), HOURS, hourly=6)
    hours = [
        Hour(f"{i + 1}_hour", made.hour_s, {"watch": plants}, moved=True)
        for i, plants in enumerate(dealt)
    ]
    texts = planted_motion.TEXTS
    queries = [({"id": slug(kind), "text": texts[kind], "senses": ["imu"]}, kind) for kind in kinds]
    made.write([quiet, *hours], queries)


def _room(made: LabelledSet) -> None:
    _changed(made, (ROOMS[0], ROOMS[5]), (1.0, 1.0))


def _gain(made: LabelledSet) -> None:
    _changed(made, (ROOMS[0], ROOMS[0]), (1.0, 0.5))


def _changed(made: LabelledSet, rooms: Sequence[Room], gains: Sequence[float]) -> None:
    kinds, others = made.sounds()
    dealt = made.deal(kinds, others, 2)
    hours = [
        Hour(name, made.hour_s, {"microphone": plants}, room, gain)
        for name, plants, room, gain in zip(
            ("1_before", "2_after"), dealt, rooms, gains, strict=True
        )
    ]
    made.write(hours, made.heard(kinds))


def _night(made: LabelledSet) -> None:
    kinds = planted_pictures.kinds(made.training)
    dealt = made.deal(kinds, planted_pictures.bystanders(made.training), 2)
    hours = [
        Hour(name, made.hour_s, {"camera": plants}, light=light)
        for name, plants, light in zip(("1_before", "2_after"), dealt, (DAY, NIGHT), strict=True)
    ]
    made.write(hours, made.seen(kinds))


def _fusion(made: LabelledSet) -> None:
    sounds, others = made.sounds()
    pictures = planted_pictures.kinds(made.training)
    heard = {kind: sounds[kind] for kind in SEEN_AS}
    unseen = Deck(planted_pictures.bystanders(made.training), made.rng)
    strangers = [replace(one, kind="") for one in others if one.kind not in SEEN_AS]
    decks = {kind: Deck(pictures[SEEN_AS[kind]][1:], made.rng) for kind in SEEN_AS}
    hours = []
    for i, plants in enumerate(made.deal(heard, strangers, 2, hourly=12)):
        shown = []
        for plant in plants:
            kind = plant.what.kind
            picture = (decks[kind] if kind else unseen).take(1)[0]
            picture = replace(picture, kind=kind, duration_s=plant.what.duration_s)
            shown.append(replace(plant, what=picture))
        both = {"microphone": plants, "camera": shown}
        hours.append(Hour(f"{i + 1}_hour", made.hour_s, both, ROOMS[i], light=DAY))
    queries = [({"id": slug(kind), "text": kind}, kind) for kind in SEEN_AS]
    made.write(hours, queries)


SETS: Mapping[str, Callable[[LabelledSet], None]] = {
    "audio": _audio,
    "image": _image,
    "imu": _imu,
    "room": _room,
    "gain": _gain,
    "night": _night,
    "fusion": _fusion,
}


if __name__ == "__main__":
    sys.exit(main())
