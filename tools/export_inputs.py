"""What exported towers are tried on: files of the user's, or what ships with the demo."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.clock import ManualClock, from_s
from agent.errors import ConfigError, EndOfStream
from agent.types import Array, Int64Array, StreamInfo, Window
from drivers.log import LogConfig, LogDriver
from encoders.files import read_file

__all__ = ["Material", "gather"]

TEXTS = (
    "a dog barking",
    "rain",
    "someone is walking down the street",
    "the engine of a motorcycle, idling",
    "a photo of an empty flat with large windows",
    "a person running",
    "birds sing in the forest; far away, a river can be heard between the calls of two owls",
    "waves",
)
WINDOWS = 8
# Of the demo's log, by its sense: how long a window is, and the most ticks of it to keep.
_LENGTH_S = {"image": (0.2, 2), "audio": (2.0, None), "imu": (10.0, None)}


class Material(NamedTuple):
    """windows: of a sense; texts: of text. told: what they are, for the report."""

    windows: list[Window]
    texts: list[str]
    told: str


def gather(senses: Sequence[str], folder: Path | None) -> dict[str, Material]:
    """Something of each sense.

    folder: has a folder a sense, of files as read_file takes them; of text, files with a text a
    line. A sense that is not there is taken from what ships: a log and files of the demo. Nothing
    real of depth or thermal ships: pictures' brightness stands in, and is told as such. Raises
    ConfigError for a file that cannot be read.
    """
    made: dict[str, Material] = {}
    for sense in senses:
        own = folder / sense if folder else None
        if own and own.is_dir():
            made[sense] = _own(own, sense)
        elif sense == "text":
            made[sense] = Material([], list(TEXTS), "prompts")
    missing = [sense for sense in senses if sense not in made]
    return made | (_shipped(missing) if missing else {})


def _own(folder: Path, sense: str) -> Material:
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    if not paths:
        raise ConfigError(f"{folder}: no file, expected some of {sense}")
    chosen = [paths[i] for i in _spread(len(paths))]
    told = f"{len(chosen)} files"
    if sense != "text":
        return Material([read_file(str(path), sense) for path in chosen], [], told)
    try:
        lines = [line for path in chosen for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{folder}: cannot be read ({exc}), expected lines of text") from exc
    return Material([], [line for line in lines if line.strip()], told)


def _shipped(senses: Sequence[str]) -> dict[str, Material]:
    demo = Path(str(package_files("configs.demo")))
    windows = _cut_log(demo / "demo.mcap")
    windows["image"].insert(0, read_file(str(demo / "home.jpg"), "image"))
    windows["audio"].insert(0, read_file(str(demo / "river.flac"), "audio"))
    made = {sense: Material(found, [], "the demo's log") for sense, found in windows.items()}
    for sense in ("depth", "thermal"):
        grey = [_brightness(window, sense) for window in windows["image"]]
        made[sense] = Material(grey, [], "STAND-IN: pictures' brightness")
    return {sense: made[sense] for sense in senses}


def _cut_log(path: Path) -> dict[str, list[Window]]:
    """Windows evenly over the log, by sense."""
    driver = LogDriver("demo", LogConfig(path=path, speed=0.0), ManualClock())
    driver.connect()
    data: dict[StreamInfo, list[tuple[Array, Int64Array]]] = defaultdict(list)
    try:
        while True:
            for sample in driver.read(0.0):
                data[sample.stream].append((sample.data, sample.t_ns))
    except EndOfStream:
        pass
    finally:
        driver.disconnect()
    windows = {}
    for stream, blocks in data.items():
        ticks = np.concatenate([block for block, _ in blocks])
        t_ns = np.concatenate([stamps for _, stamps in blocks])
        length_s, most = _LENGTH_S[stream.modality]
        starts = np.linspace(t_ns[0], t_ns[-1] - from_s(length_s), WINDOWS).astype(np.int64)
        windows[stream.modality] = [
            _window(stream, int(start), from_s(length_s), ticks, t_ns, most) for start in starts
        ]
    return windows


def _window(
    stream: StreamInfo,
    start_ns: int,
    length_ns: int,
    ticks: Array,
    t_ns: Int64Array,
    most: int | None,
) -> Window:
    first, end = np.searchsorted(t_ns, [start_ns, start_ns + length_ns])
    part = slice(first, end if most is None else min(end, first + most))
    return Window(stream, start_ns, start_ns + length_ns, ticks[part], t_ns[part])


def _brightness(window: Window, sense: str) -> Window:
    grey = window.data.mean(axis=-1)
    # As millimetres, what a camera in a room measures.
    data = (500 + 16 * grey).astype(np.uint16) if sense == "depth" else grey.astype(np.uint8)
    unit = "mm" if sense == "depth" else "mono8"
    info = StreamInfo(f"grey_{sense}", sense, str(data.dtype), data.shape[1:], None, unit)
    return Window(info, window.start_ns, window.end_ns, data, window.t_ns)


def _spread(count: int) -> list[int]:
    """At most WINDOWS of so many, evenly."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, WINDOWS))})
