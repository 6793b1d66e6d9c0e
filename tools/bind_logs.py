"""Two streams of a log as pairs of windows that end together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agent.clock import ManualClock, from_s
from agent.errors import BadData, ConfigError, EndOfStream
from agent.stream.ring import Ring
from agent.stream.windows import Windows
from agent.types import Sample, StreamInfo, Window, WindowSpec
from drivers.log import LogConfig, LogDriver

__all__ = ["Cut", "log_pairs"]

SLACK_S = 1.0  # a block of ticks that comes at once is not longer
FOREVER_NS = 1 << 62


class Cut(NamedTuple):
    """Which stream of a log, the sense it is to be of, and the windows that its tower wants."""

    stream: str
    modality: str
    spec: WindowSpec


def log_pairs(
    path: Path, sense: Cut, anchor: Cut, stretch_s: float
) -> Iterator[tuple[Window, Window, str]]:
    """(window of the sense, window of the anchor, recording), as the live agent cuts them, at the
    sense's hop. A recording is a stretch of `stretch_s` of the log; a pair that reaches over its
    edge is left out, so that no two stretches share a tick.

    Raises ConfigError for a stream that the log does not have or that is of another sense, as the
    agent would give its windows to another tower; as LogDriver.connect for the log.
    """
    spec = replace(anchor.spec, hop_s=sense.spec.hop_s)
    longest_s = max(sense.spec.length_s, spec.length_s)
    if stretch_s < longest_s:
        raise ConfigError(
            f"log {path}: stretch is {stretch_s:g} s, expected at least the {longest_s:g} s of a "
            "window"
        )
    topics = _topics(path, (sense.stream, anchor.stream))
    config = LogConfig(path=path, speed=0.0, topics=list(dict.fromkeys(topics)))
    driver = LogDriver("bind", config, ManualClock())
    driver.connect()
    try:
        infos = {info.topic: info for info in driver.streams}
        for topic, cut in zip(topics, (sense, anchor), strict=True):
            if infos[topic].modality != cut.modality:
                raise ConfigError(
                    f"log {path}: stream {cut.stream!r} is of the sense "
                    f"{infos[topic].modality!r}, expected {cut.modality!r}"
                )
        cutters = [
            _cutter(infos[topic], wanted)
            for topic, wanted in zip(topics, (sense.spec, spec), strict=True)
        ]
        waiting: list[dict[int, Window]] = [{}, {}]
        for sample in _samples(driver):
            for windows in cutters:
                ring = windows.ring
                newest_ns = ring.newest_t_ns
                late = newest_ns is not None and int(sample.t_ns[0]) < newest_ns
                if ring.stream == sample.stream and not late:
                    ring.push(sample)
            # Only what a later tick has closed: time by the clock does not pass here.
            yield from _paired(cutters, waiting, 0, path, stretch_s)
        yield from _paired(cutters, waiting, FOREVER_NS, path, stretch_s)
    finally:
        driver.disconnect()


def _topics(path: Path, names: tuple[str, str]) -> list[str]:
    """The topics of two streams, named as streams or as topics."""
    driver = LogDriver("bind", LogConfig(path=path, speed=0.0), ManualClock())
    driver.connect()
    streams = driver.streams
    driver.disconnect()
    known = {name: info.topic for info in streams for name in (info.name, info.topic)}
    for name in names:
        if name not in known:
            has = ", ".join(info.name for info in streams) or "none"
            raise ConfigError(f"log {path}: no stream {name!r}, it has {has}")
    return [known[name] for name in names]


def _cutter(info: StreamInfo, spec: WindowSpec) -> Windows:
    capacity = Windows.capacity(spec, info.rate_hz, spec.length_s + SLACK_S)
    return Windows(Ring(info, capacity), spec)


def _samples(driver: LogDriver) -> Iterator[Sample]:
    while True:
        try:
            yield from driver.read(0.0)
        except EndOfStream:
            return
        except BadData:
            continue  # a damaged message costs itself, as it does live


def _paired(
    cutters: list[Windows],
    waiting: list[dict[int, Window]],
    now_ns: int,
    path: Path,
    stretch_s: float,
) -> Iterator[tuple[Window, Window, str]]:
    for windows, held in zip(cutters, waiting, strict=True):
        held.update((window.end_ns, window) for window in windows.take(now_ns))
    own, other = waiting
    for end_ns in sorted(own.keys() & other.keys()):
        pair = own.pop(end_ns), other.pop(end_ns)
        first = int(min(window.t_ns[0] for window in pair)) // from_s(stretch_s)
        if first == (end_ns - 1) // from_s(stretch_s):
            yield *pair, f"{path}:{first}"
    # What the other stream has passed by will find no partner any more.
    for held, partner in ((own, cutters[1]), (other, cutters[0])):
        newest_ns = partner.ring.newest_t_ns
        if newest_ns is not None:
            oldest_ns = newest_ns - from_s(partner.spec.length_s + SLACK_S)
            for end_ns in [end_ns for end_ns in held if end_ns < oldest_ns]:
                del held[end_ns]
