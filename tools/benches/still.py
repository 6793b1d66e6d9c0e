"""A camera that stands: how often noise opens the change gate, and how small an object does."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agent import plugins
from agent.clock import NS_PER_S, ManualClock
from agent.config_file import convert_section
from agent.errors import ConfigError, EndOfStream
from agent.stream.change import Fingerprint, fingerprint
from agent.types import Array, StreamInfo, Window
from tools.benches.common import make_table

__all__ = ["add_parser"]

EVERY_NS = 5 * NS_PER_S
NOISE, FLICKER = 2.0, 0.01  # of a sensor, in steps of 8 bits; of lamps, as a share
LIGHTS = (1.0, 0.25, 0.08)  # the same scene, and darker ones
SIDES = (1 / 32, 1 / 16, 1 / 8, 1 / 4)  # of an object, of the picture's height
TRIES = 6


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `still` to the benchmarks."""
    parser = commands.add_parser(
        "still",
        help="pictures of a log held still under a sensor's noise, in three lights, and parts of "
        "others of them let in: share of windows that a change gate encodes",
    )
    parser.add_argument("--log", type=Path, required=True, help="with 8-bit colour pictures")
    parser.add_argument("--threshold", type=float, default=0.2, help="default %(default)s")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    pictures = list(_pictures(args.log))
    if len(pictures) < 2:
        raise ConfigError(f"--log: {args.log} has {len(pictures)} pictures 5 s apart, expected 2")
    figures: dict[str, Any] = {"pictures": len(pictures), "rows": []}
    figures["rows"] = [_row(pictures, light, args.threshold) for light in LIGHTS]
    headings = ["light", "still", *(f"1/{round(1 / side)} of the height" for side in SIDES)]
    headings += ["1/8, by the mean"]
    rows = [
        [f"{r['light']:g}", f"{r['still']:.0%}"]
        + [f"{share:.0%}" for share in r["objects"]]
        + [f"{r['by_mean']:.0%}"]
        for r in figures["rows"]
    ]
    title = f"windows that are encoded at change: {args.threshold:g}, of a camera that stands"
    console.print(make_table(title, headings, rows))
    return figures


def _pictures(log: Path) -> Iterator[Array]:
    """One of each image stream in five seconds, uint8 (height, width, 3)."""
    plugin = plugins.load("drivers", "log")
    settings = convert_section({"path": str(log.absolute()), "speed": 0.0}, plugin.Config, "--log")
    driver = plugin("log", settings, ManualClock())
    driver.connect()
    due_ns: dict[str, int] = {}
    try:
        while True:
            for sample in driver.read(0.0):
                name, t_ns = sample.stream.name, int(sample.t_ns[-1])
                colour = sample.stream.modality == "image" and sample.data.ndim == 4
                if colour and t_ns >= due_ns.get(name, t_ns):
                    due_ns[name] = t_ns + EVERY_NS
                    yield sample.data[-1]
    except EndOfStream:
        return
    finally:
        driver.disconnect()


def _row(pictures: Sequence[Array], light: float, threshold: float) -> dict[str, Any]:
    """Shares of windows over the threshold; by_mean: of objects of 1/8 the height, if the mean
    difference were judged, by a threshold that one still window in a hundred is over.
    """
    rng = np.random.default_rng(1)
    still: list[tuple[float, float]] = []
    moved: dict[float, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for n, picture in enumerate(pictures):
        before = _shot(picture, light, rng)
        still += [_apart(before, _shot(picture, light, rng)) for _ in range(TRIES)]
        other = pictures[(n + 1) % len(pictures)]
        for side in SIDES:
            for _ in range(TRIES):
                now = _shot(_with_object(picture, other, side, rng), light, rng)
                moved[side].append(_apart(before, now))
    limit = float(np.percentile([mean for _, mean in still], 99))
    return {
        "light": light,
        "still": float(np.mean([most > threshold for most, _ in still])),
        "objects": [float(np.mean([m > threshold for m, _ in moved[side]])) for side in SIDES],
        "by_mean": float(np.mean([mean > limit for _, mean in moved[1 / 8]])),
    }


def _with_object(picture: Array, other: Array, side: float, rng: np.random.Generator) -> Array:
    height, width = (min(a, b) for a, b in zip(picture.shape[:2], other.shape[:2], strict=True))
    size = max(1, int(min(height, width) * side))
    y, x, top, left = (int(rng.integers(end - size)) for end in (height, width, height, width))
    out: Array = picture.copy()
    out[y : y + size, x : x + size] = other[top : top + size, left : left + size]
    return out


def _shot(scene: Array, light: float, rng: np.random.Generator) -> Fingerprint:
    lit = scene * light * (1 + rng.normal(0, FLICKER)) + rng.normal(0, NOISE, scene.shape)
    data = np.clip(np.rint(lit), 0, 255).astype(np.uint8)[np.newaxis]
    info = StreamInfo("still", "image", "uint8", scene.shape, None, "rgb8")
    return fingerprint(Window(info, 0, 1, data, np.zeros(1, np.int64)))


def _apart(before: Fingerprint, now: Fingerprint) -> tuple[float, float]:
    """(as the gate judges it, in the mean over all blocks)"""
    return before.difference(now), float(np.abs(before.values - now.values).mean())
