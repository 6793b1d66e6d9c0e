"""Motion for training, out of the packages that publish it: records as those of sources.py."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from agent.clock import NS_PER_S
from agent.errors import BadData, ConfigError
from agent.types import Array, StreamInfo, Window
from encoders.bind.sources import Record

__all__ = ["basic_motions", "motion_record", "read_object_array", "watch"]

GRAVITY = 9.80665  # m/s^2 a g
WATCH_SUBJECTS = 8  # the later ones are for judging
WATCH_HZ, MOTIONS_HZ = 50.0, 10.0

WATCH_FILE = "seglearn/data/watch_dataset.npy"
WATCH_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
MOTIONS_FILE = "aeon/datasets/data/BasicMotions/BasicMotions_TRAIN.ts"
MOTIONS_SHA256 = "8dc43cc6306cb679c888c01e26f91772ac4441a916da43bac8b79734a538b9d6"


def basic_motions(package: Path) -> list[Record]:
    """BasicMotions' TRAIN file: 40 series of 10 s from a smartwatch, gravity taken out.

    package: the unpacked aeon. Channels are acceleration in m/s^2 and rotation in rad/s.
    """
    path = package / MOTIONS_FILE
    lines = _checked(path, MOTIONS_SHA256).decode().splitlines()
    rows = [line.split(":") for line in lines if line.count(":") == 6]
    records = []
    for number, (*channels, label) in enumerate(rows):
        data = np.array([[float(cell) for cell in channel.split(",")] for channel in channels]).T
        records.append(
            motion_record(data, MOTIONS_HZ, label, f"basic_motions/{number}", "BasicMotions (aeon)")
        )
    return records


def watch(package: Path) -> list[Record]:
    """Exercises of the shoulder by persons 1 to 8, from a smartwatch, with gravity.

    package: the unpacked seglearn, which publishes a pickle: it is read with nothing callable but
    what builds arrays, and only where its SHA-256 is known.
    """
    path = package / WATCH_FILE
    content = read_object_array(_checked(path, WATCH_SHA256), path)
    labels = [content["y_labels"][number] for number in content["y"]]
    scale = np.repeat([GRAVITY, 1.0], 3)
    return [
        motion_record(np.asarray(data) * scale, WATCH_HZ, label, f"watch/{subject}", "seglearn")
        for data, label, subject in zip(content["X"], labels, content["subject"], strict=True)
        if subject <= WATCH_SUBJECTS
    ]


def motion_record(data: Array, rate_hz: float, label: str, recording: str, source: str) -> Record:
    """data: (n, 6), acceleration in m/s^2 and rotation in rad/s; its first tick is at 0."""
    t_ns = np.rint(np.arange(len(data)) * (NS_PER_S / rate_hz)).astype(np.int64)
    info = StreamInfo(
        name="watch",
        modality="imu",
        dtype="float32",
        shape=(6,),
        rate_hz=rate_hz,
        unit="m/s^2,rad/s",
    )
    return Record(
        modality="imu",
        content=Window(info, 0, int(t_ns[-1]) + 1, data.astype(np.float32), t_ns),
        recording=recording,
        source=source,
        licence="BSD-3-Clause (package); data of its authors",
        label=label,
    )


def _checked(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}, expected the unpacked package") from exc
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise ConfigError(f"{path}: sha256 {digest[:12]}, expected {sha256[:12]}")
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays, lists and texts; any other global is refused, not called."""

    _ALLOWED: Mapping[tuple[str, str], Any] = {
        # Where numpy keeps it differs by version; an array knows.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how Python 2's bytes went
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}, expected arrays only")
        return self._ALLOWED[module, name]


def read_object_array(content: bytes, path: Path) -> Any:
    """The one object of an .npy of objects. Raises BadData for anything but arrays and lists."""
    stream = BytesIO(content)
    try:
        np.lib.format.read_magic(stream)
        np.lib.format.read_array_header_1_0(stream)
        return _ArrayUnpickler(stream).load().item()
    except (ValueError, pickle.UnpicklingError, EOFError, AttributeError) as exc:
        raise BadData(f"{path}: not an .npy of arrays ({exc})") from exc
