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
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import numpy as np
import soundfile
import yaml
from PIL import Image

from agent.atomic import open_atomic
from agent.cli import run_command
from agent.clock import ManualClock, from_s
from agent.errors import ConfigError
from agent.record.writer import LogWriter
from agent.types import Sample, StreamInfo, slug
from tools import planted_motion, planted_pictures, planted_sounds
from tools.event_labels import Label, Labels
from tools.output import progress
from tools.planted_pictures import DAY, NIGHT, Light
from tools.planted_sounds import ROOMS, Room
from tools.planting import Deck, Plant, Planted, Rng, spread

__all__ = ["main", "write_log"]

START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
QUEUE_MB = 8192  # all of a log is queued before it is written
HOURLY = 3  # of each kind
BYSTANDERS = 60  # an hour
# What can be both heard and seen: kinds of sound, and of tiles.
SEEN_AS = {"dog": "dog", "cat": "cat", "bird": "bird", "frog": "frog", "lion": "lion"}
SEEN_AS |= {"cow": "cattle"}

Kinds = Mapping[str, Sequence[Planted]]


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
            SETS[name](_Set(args.out / name, args.training, args.cache, scale, rng))
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


@dataclass(frozen=True)
class _Hour:
    """One log. A stream that is None is not in it. plants: by stream."""

    name: str
    seconds: float
    plants: Mapping[str, Sequence[Plant]]
    room: Room | None = None
    gain: float = 1.0
    light: Light | None = None
    moved: bool = False


class _Set:
    """A folder of logs with their labels."""

    def __init__(self, out: Path, training: Path, cache: Path, scale: float, rng: Rng) -> None:
        self.out, self.training, self.cache, self.rng = out, training, cache, rng
        self.hour_s = round(3600 * scale)
        out.mkdir(parents=True, exist_ok=True)

    def write(self, hours: Sequence[_Hour], queries: Sequence[tuple[dict[str, Any], str]]) -> None:
        """queries: with the kind that each asks for."""
        start_ns = START_NS
        scenes = Deck(planted_pictures.views(self.training), self.rng)
        labels: dict[tuple[str, float, str], Label] = {}
        for hour in progress(hours, f"writing {self.out.name}"):
            streams: dict[StreamInfo, Iterable[Sample]] = {}
            if hour.room is not None:
                heard = hour.plants.get("microphone", ())
                sound = planted_sounds.pcm(heard, hour.seconds, hour.room, hour.gain, self.rng)
                streams[planted_sounds.MICROPHONE] = planted_sounds.samples(sound, start_ns)
            if hour.light is not None:
                streams[planted_pictures.CAMERA] = planted_pictures.samples(
                    hour.plants.get("camera", ()),
                    hour.seconds,
                    hour.light,
                    scenes,
                    self.rng,
                    start_ns,
                )
            if hour.moved:
                moved = planted_motion.motion(hour.plants.get("watch", ()), hour.seconds, self.rng)
                streams[planted_motion.IMU] = planted_motion.samples(moved, start_ns)
            write_log(self.out / f"{hour.name}.mcap", streams)
            for plant in (plant for plants in hour.plants.values() for plant in plants):
                if plant.what.kind:
                    label = _label(plant, f"{hour.name}.mcap")
                    labels[label.log, label.from_s, label.kind] = label  # heard and seen: once
            start_ns += from_s(hour.seconds)
        config = {
            "agent": "evaluate",
            "space": {"path": "compact", "threads": 1},
            "queries": [query for query, _ in queries],
            "bus": {"enabled": False},
        }
        asked = {query["id"]: kind for query, kind in queries}
        events = sorted(labels.values(), key=lambda event: (event.log, event.from_s))
        whole = Labels(queries=asked, events=events)
        with open_atomic(self.out / "LABELS.json") as file:
            file.write(msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")
        with open_atomic(self.out / "config.yaml") as file:
            file.write(yaml.safe_dump(config, sort_keys=False).encode())

    def sounds(self) -> tuple[Kinds, list[Planted]]:
        kinds = planted_sounds.kinds(self.training)
        return kinds, planted_sounds.bystanders(self.cache, kinds)

    def heard(self, kinds: Kinds) -> list[tuple[dict[str, Any], str]]:
        """Text queries of sounds, and by an example where there are enough to keep one back."""
        folder = self.out / "examples"
        folder.mkdir(exist_ok=True)
        queries: list[tuple[dict[str, Any], str]] = []
        for kind, own in kinds.items():
            queries.append(({"id": slug(kind), "text": kind, "senses": ["audio"]}, kind))
            if len(own) >= 8:
                example = folder / f"{slug(kind)}.wav"
                soundfile.write(example, np.asarray(own[0].data) * 0.1, 16_000)
                name = f"{slug(kind)}_heard"
                queries.append(
                    ({"id": name, "audio": f"examples/{example.name}", "senses": ["audio"]}, kind)
                )
        return queries

    def seen(self, kinds: Kinds) -> list[tuple[dict[str, Any], str]]:
        folder = self.out / "examples"
        folder.mkdir(exist_ok=True)
        queries: list[tuple[dict[str, Any], str]] = []
        for kind, own in kinds.items():
            text = f"a photo of a {kind}"
            queries.append(({"id": slug(kind), "text": text, "senses": ["image"]}, kind))
            example = folder / f"{slug(kind)}.png"
            Image.fromarray(np.asarray(own[0].data, np.uint8)).save(example)
            name = f"{slug(kind)}_seen"
            queries.append(
                ({"id": name, "image": f"examples/{example.name}", "senses": ["image"]}, kind)
            )
        return queries

    def deal(
        self, kinds: Kinds, others: Sequence[Planted], hours: int, hourly: int = HOURLY
    ) -> list[list[Plant]]:
        """What happens in each hour. The first of eight is kept back: it is the example."""
        decks = {
            kind: Deck(own[1:] if len(own) >= 8 else own, self.rng) for kind, own in kinds.items()
        }
        rest = Deck(others, self.rng) if others else None
        share = self.hour_s / 3600
        dealt = []
        for _ in range(hours):
            each = max(1, round(hourly * share))
            each = max(1, round(hourly * share))
            planted = [one for deck in decks.values() for one in deck.take(each)]
            planted += rest.take(round(BYSTANDERS * share)) if rest else []
            dealt.append(spread(planted, self.hour_s, self.rng))
        return dealt

    def quiet(self, others: Sequence[Planted]) -> list[Plant]:
        """An hour of what nobody asks for."""
        unasked = [planted for planted in others if not planted.kind]
        share = self.hour_s / 3600
        planted = Deck(unasked, self.rng).take(round(BYSTANDERS * share)) if unasked else []
        return spread(planted, self.hour_s, self.rng)


def _audio(made: _Set) -> None:
    kinds, others = made.sounds()
    quiet = _Hour("0_quiet", made.hour_s, {"microphone": made.quiet(others)}, ROOMS[0])
    dealt = made.deal(kinds, others, len(ROOMS))
    hours = [
        _Hour(f"{i + 1}_hour", made.hour_s, {"microphone": plants}, room)
        for i, (plants, room) in enumerate(zip(dealt, ROOMS, strict=True))
    ]
    made.write([quiet, *hours], made.heard(kinds))


def _image(made: _Set) -> None:
    kinds = planted_pictures.kinds(made.training)
    others = planted_pictures.bystanders(made.training)
    quiet = _Hour("0_quiet", made.hour_s / 2, {}, light=DAY)
    dealt = made.deal(kinds, others, 2, hourly=6)
    hours = [
        _Hour(f"{i + 1}_hour", made.hour_s, {"camera": plants}, light=DAY)
        for i, plants in enumerate(dealt)
    ]
    made.write([quiet, *hours], made.seen(kinds))


def _imu(made: _Set) -> None:
    kinds = planted_motion.kinds(made.cache / "aeon", made.cache / "seglearn")
    quiet = _Hour("0_quiet", made.hour_s / 2, {}, moved=True)
    dealt = made.deal(kinds, (), 2, hourly=6)
    hours = [
        _Hour(f"{i + 1}_hour", made.hour_s, {"watch": plants}, moved=True)
        for i, plants in enumerate(dealt)
    ]
    texts = planted_motion.TEXTS
    queries = [({"id": slug(kind), "text": texts[kind], "senses": ["imu"]}, kind) for kind in kinds]
    made.write([quiet, *hours], queries)


def _room(made: _Set) -> None:
    _changed(made, (ROOMS[0], ROOMS[5]), (1.0, 1.0))


def _gain(made: _Set) -> None:
    _changed(made, (ROOMS[0], ROOMS[0]), (1.0, 0.5))


def _changed(made: _Set, rooms: Sequence[Room], gains: Sequence[float]) -> None:
    kinds, others = made.sounds()
    dealt = made.deal(kinds, others, 2)
    hours = [
        _Hour(name, made.hour_s, {"microphone": plants}, room, gain)
        for name, plants, room, gain in zip(
            ("1_before", "2_after"), dealt, rooms, gains, strict=True
        )
    ]
    made.write(hours, made.heard(kinds))


def _night(made: _Set) -> None:
    kinds = planted_pictures.kinds(made.training)
    dealt = made.deal(kinds, planted_pictures.bystanders(made.training), 2)
    hours = [
        _Hour(name, made.hour_s, {"camera": plants}, light=light)
        for name, plants, light in zip(("1_before", "2_after"), dealt, (DAY, NIGHT), strict=True)
    ]
    made.write(hours, made.seen(kinds))


def _fusion(made: _Set) -> None:
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
        hours.append(_Hour(f"{i + 1}_hour", made.hour_s, both, ROOMS[i], light=DAY))
    queries = [({"id": slug(kind), "text": kind}, kind) for kind in SEEN_AS]
    made.write(hours, queries)


SETS: Mapping[str, Callable[[_Set], None]] = {
    "audio": _audio,
    "image": _image,
    "imu": _imu,
    "room": _room,
    "gain": _gain,
    "night": _night,
    "fusion": _fusion,
}


def _label(plant: Plant, log: str) -> Label:
    return Label(
        kind=plant.what.kind,
        log=log,
        from_s=round(plant.from_s, 3),
        to_s=round(plant.to_s, 3),
        db=plant.db,
        recording=plant.what.recording,
    )


def write_log(path: Path, streams: Mapping[StreamInfo, Iterable[Sample]]) -> None:
    """A log of blocks of several streams, over what may be there. Raises RecordError."""
    blocks = [sample for samples in streams.values() for sample in samples]
    blocks.sort(key=lambda sample: (sample.arrival_ns, sample.stream.name))
    path.unlink(missing_ok=True)  # what a run that was broken off has left
    writer = LogWriter(
        path,
        clock=ManualClock(blocks[0].arrival_ns),
        agent="made",
        boot_id="made",
        metadata={"made_by": "tools/make_labelled_logs.py"},
        max_queue_mb=QUEUE_MB,
    )
    for info in streams:
        writer.add_stream(info)
    for sample in blocks:
        writer.put(sample)
    done = threading.Event()
    done.set()
    writer.run(done)


if __name__ == "__main__":
    sys.exit(main())
