"""All of a log, as its driver plays it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from agent.clock import ManualClock
from agent.errors import EndOfStream
from agent.types import Sample
from drivers.log import LogConfig, LogDriver


def read_log(path: Path) -> dict[str, list[Sample]]:
    """The samples of each stream in their order."""
    driver = LogDriver("log", LogConfig(path=path, speed=0.0), ManualClock())
    driver.connect()
    found: dict[str, list[Sample]] = {info.name: [] for info in driver.streams}
    with suppress(EndOfStream):
        while True:
            for sample in driver.read(0.0):
                found[sample.stream.name].append(sample)
    driver.disconnect()
    return found
