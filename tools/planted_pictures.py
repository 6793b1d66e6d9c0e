"""A camera that looks at views for minutes, with pictures held before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agent.clock import NS_PER_S
from agent.types import Sample, StreamInfo
from encoders.bind.sources import depth_pairs, thermal_pairs
from encoders.bind.sources_tiles import read_tiles
from encoders.bind.splits import held_out
from tools.planting import Deck, Plant, Planted, Rng

__all__ = ["ASKED", "CAMERA", "DAY", "NIGHT", "Light", "bystanders", "kinds", "samples", "views"]

HZ = 3.0
WIDTH, HEIGHT = 160, 120
SHOWN_S = 5.0
VIEW_S = 120.0

CAMERA = StreamInfo("camera", "image", "uint8", (HEIGHT, WIDTH, 3), HZ, "rgb8")

# Classes of tiles that neither a kitchen nor a street shows, as the views do.
ASKED = {
    "cifar10": ("airplane", "bird", "cat", "deer", "dog", "frog", "horse", "ship"),
    "cifar100": (
        *("apple", "bear", "butterfly", "cattle", "elephant", "keyboard", "lion", "mountain"),
        *("mushroom", "orange", "rocket", "rose", "sunflower"),
    ),
}
# Who else is seen: not what an asked name would do for too.
NEVER = ("leopard", "tiger", "poppy", "tulip", "plain", "pear", "sweet pepper", "wolf", "fox")


@dataclass(frozen=True)
class Light:
    """gain: of every pixel. noise: deviation, in steps of 0..255."""

    gain: float
    noise: float


DAY, NIGHT = Light(1.0, 3.0), Light(0.2, 10.0)


def kinds(training: Path) -> dict[str, list[Planted]]:
    """By label, the tiles that no tower was trained on."""
    found: dict[str, list[Planted]] = {}
    for name, labels in ASKED.items():
        for planted in _tiles(training, name, labels):
            found.setdefault(planted.kind, []).append(planted)
    return found


def bystanders(training: Path) -> list[Planted]:
    """Tiles of other classes, that no tower was trained on either."""
    all_asked = {label for labels in ASKED.values() for label in labels}
    found = _tiles(training, "cifar100", None)
    return [
        Planted("", each.recording, each.data, each.duration_s)
        for each in found
        if each.kind not in all_asked and each.kind not in NEVER
    ]


def views(training: Path) -> list[NDArray[np.uint8]]:
    """Streets and a kitchen, uint8 (120 + margin, 160 + margin, 3)."""
    records = [*thermal_pairs(training), *depth_pairs(training)]
    found = []
    for record in records:
        if record.held_out and record.photo is not None:
            with Image.open(record.photo) as picture:
                small = picture.convert("RGB").resize((WIDTH + 32, HEIGHT + 24))
            found.append(np.asarray(small, np.uint8))
    return found


def samples(
    plants: Sequence[Plant],
    seconds: float,
    light: Light,
    scenes: Deck[NDArray[np.uint8]],
    rng: Rng,
    start_ns: int,
) -> Iterator[Sample]:
    """Frames, that arrive 30 ms after they are taken. How much of the frame a picture takes is to
    the rest as its level says, where its height allows it: half at 0 dB, 0.75 in place of 0.8 at 6.
    """
    count = round(seconds * HZ)
    scene = scenes.take(1)[0]
    coming = list(plants)
    place = (0, 0)
    for i in range(count):
        t_s = i / HZ
        if i and i % round(VIEW_S * HZ) == 0:
            scene = scenes.take(1)[0]
        while coming and coming[0].to_s <= t_s:
            coming.pop(0)
        left = 16 + round(12 * math.sin(0.13 * t_s) + 3 * math.sin(1.9 * t_s))
        top = 12 + round(9 * math.sin(0.11 * t_s))
        frame = scene[top : top + HEIGHT, left : left + WIDTH].astype(np.float32)
        if coming and coming[0].from_s <= t_s:
            plant = coming[0]
            if plant.from_s > t_s - 1 / HZ:
                place = (int(rng.integers(-8, 9)), int(rng.integers(-8, 9)))
            _hold(frame, plant, place)
        lit = frame * light.gain + rng.normal(0, light.noise, frame.shape)
        data = np.clip(lit, 0, 255).astype(np.uint8)[np.newaxis]
        t_ns = np.array([start_ns + round(t_s * NS_PER_S)], np.int64)
        yield Sample(CAMERA, i, t_ns, int(t_ns[0]) + 30_000_000, data)


def _hold(frame: NDArray[np.float32], plant: Plant, place: tuple[int, int]) -> None:
    """Put a picture before the camera, about its middle."""
    over = 10 ** (plant.db / 10)
    side = min(HEIGHT, round(math.sqrt(over / (1 + over) * WIDTH * HEIGHT)))
    picture = Image.fromarray(np.asarray(plant.what.data, np.uint8))
    drawn = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), np.float32)
    top = min(max((HEIGHT - side) // 2 + place[0], 0), HEIGHT - side)
    left = min(max((WIDTH - side) // 2 + place[1], 0), WIDTH - side)
    frame[top : top + side, left : left + side] = drawn


def _tiles(training: Path, name: str, labels: Sequence[str] | None) -> list[Planted]:
    own = read_tiles(training, name)
    wanted = set(own.labels if labels is None else labels)
    return [
        Planted(own.labels[number], recording, pixels, SHOWN_S)
        for pixels, number, recording in zip(own.pixels, own.classes, own.recordings, strict=True)
        if own.labels[number] in wanted and held_out(recording)
    ]
