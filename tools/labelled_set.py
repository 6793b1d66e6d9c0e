"""A folder of made logs in which it is known what happens when, and what is asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
import yaml
from PIL import Image

from agent.atomic import open_atomic
from agent.clock import from_s
from agent.types import Sample, StreamInfo, slug
from tools import planted_motion, planted_pictures, planted_sounds
from tools.event_labels import Label, Labels
from tools.made_log import write_log
from tools.output import progress
from tools.planted_pictures import Light
from tools.planted_sounds import Room
from tools.planting import Deck, Plant, Planted, Rng, spread

__all__ = ["Hour", "LabelledSet"]

START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
METADATA = {"made_by": "tools/make_labelled_logs.py"}
HOURLY = 3  # of each kind
BYSTANDERS = 60  # an hour
ENOUGH = 8  # recordings of a kind, for one of them to be kept back as the example

Kinds = Mapping[str, Sequence[Planted]]


@dataclass(frozen=True)
class Hour:
    """One log of `seconds`. plants: by stream. room, light: None for a log without that stream."""

    name: str
    seconds: float
    plants: Mapping[str, Sequence[Plant]]
    room: Room | None = None
    gain: float = 1.0
    light: Light | None = None
    moved: bool = False


class LabelledSet:
    """A folder of logs with their labels.

    training, cache: as tools/make_labelled_logs.py takes them. scale: of every log's length.
    """

    def __init__(self, out: Path, training: Path, cache: Path, scale: float, rng: Rng) -> None:
        self.out, self.training, self.cache, self.rng = out, training, cache, rng
        self.hour_s = round(3600 * scale)
        out.mkdir(parents=True, exist_ok=True)

    def write(self, hours: Sequence[Hour], queries: Sequence[tuple[dict[str, Any], str]]) -> None:
        """The logs, LABELS.json and config.yaml. queries: with the kind that each asks for.

        Raises ConfigError and RecordError where they cannot be written.
        """
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
            path = self.out / f"{hour.name}.mcap"
            samples = chain.from_iterable(streams.values())
            write_log(path, streams, samples, agent="made", metadata=METADATA)
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
        """What is asked for, and everyday sounds to plant beside it."""
        kinds = planted_sounds.kinds(self.training)
        return kinds, planted_sounds.bystanders(self.cache, kinds)

    def heard(self, kinds: Kinds) -> list[tuple[dict[str, Any], str]]:
        """Queries of sounds by text, and by an example where there are enough to keep one back."""
        folder = self.out / "examples"
        folder.mkdir(exist_ok=True)
        queries: list[tuple[dict[str, Any], str]] = []
        for kind, own in kinds.items():
            queries.append(({"id": slug(kind), "text": kind, "senses": ["audio"]}, kind))
            if _has_example(own):
                example = folder / f"{slug(kind)}.wav"
                soundfile.write(example, np.asarray(own[0].data) * 0.1, 16_000)
                name = f"{slug(kind)}_heard"
                queries.append(
                    ({"id": name, "audio": f"examples/{example.name}", "senses": ["audio"]}, kind)
                )
        return queries

    def seen(self, kinds: Kinds) -> list[tuple[dict[str, Any], str]]:
        """Queries of pictures by text and by an example."""
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
        """What happens in each of `hours`. What is kept back as an example is not planted."""
        decks = {
            kind: Deck(own[1:] if _has_example(own) else own, self.rng)
            for kind, own in kinds.items()
        }
        rest = Deck(others, self.rng) if others else None
        share = self.hour_s / 3600
        dealt = []
        for _ in range(hours):
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


def _has_example(own: Sequence[Planted]) -> bool:
    return len(own) >= ENOUGH


def _label(plant: Plant, log: str) -> Label:
    return Label(
        kind=plant.what.kind,
        log=log,
        from_s=round(plant.from_s, 3),
        to_s=round(plant.to_s, 3),
        db=plant.db,
        recording=plant.what.recording,
    )
