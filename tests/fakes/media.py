"""Driver media on a file or a URL, played to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from agent.clock import Clock, ManualClock
from agent.errors import BadData, DriverError
from agent.types import Sample
from drivers.media import PLUGIN, MediaConfig, MediaDriver
from tests.contracts.driver_contract import START_NS, by_stream, read_all
from tests.fakes.clips import tone, write_clip

__all__ = ["build", "content", "pictures", "play", "play_damaged", "short_clip", "times"]


def pictures(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Grey pictures, each of another shade than the one before."""
    return [np.full((size[1], size[0], 3), 8 * (n % 30), np.uint8) for n in range(count)]


def build(source: Path | str, clock: Clock | None = None, **fields: Any) -> MediaDriver:
    """A driver named `cam`, unpaced unless said otherwise."""
    place = {"url": source} if isinstance(source, str) else {"path": source}
    config = MediaConfig(**place, **{"speed": 0, **fields})
    return PLUGIN("cam", config, clock or ManualClock(START_NS))


def play(source: Path | str, **fields: Any) -> dict[str, list[Sample]]:
    driver = build(source, **fields)
    driver.connect()
    try:
        return by_stream(list(read_all(driver, 100_000)))
    finally:
        driver.disconnect()


def play_damaged(source: Path | str, **fields: Any) -> tuple[list[Sample], list[str], DriverError]:
    """All samples, what BadData said, and the error that it ended with."""
    driver = build(source, **fields)
    driver.connect()
    samples: list[Sample] = []
    told: list[str] = []
    while True:
        try:
            samples += driver.read(1)
        except BadData as exc:
            told.append(str(exc))
        except DriverError as exc:
            driver.disconnect()
            return samples, told, exc


def times(blocks: list[Sample]) -> np.ndarray:
    """Stamps of all ticks in ns from START_NS."""
    return np.concatenate([b.t_ns for b in blocks]) - START_NS


def content(blocks: list[Sample]) -> np.ndarray:
    return np.concatenate([b.data for b in blocks])


def short_clip(path: Path) -> Path:
    """One second of 30 Hz video and 48 kHz stereo sound."""
    sound = tone(48000, 48000, channels=2)
    faststart = {"movflags": "faststart"}
    return write_clip(path, frames=pictures(30), sound=sound, options=faststart)
