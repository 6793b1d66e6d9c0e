"""CSV logs of motion sensors: x-io's (units in the header) and the plain t,ax,ay,az,gx,gy,gz."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from agent.errors import BadData, DeviceNotFound
from agent.types import Array, StreamInfo
from drivers.log_formats.base import (
    IMU_CHANNELS,
    RATE_MESSAGES,
    Decoder,
    Message,
    TickDecoder,
    measured_rate_hz,
)

__all__ = ["CsvLog", "csv_columns"]

# More than the longest row: what is read from the end to find the last one.
_TAIL_BYTES = 1 << 16

_PLAIN = ["t", *IMU_CHANNELS]
_COLUMN = re.compile(r"(time|gyroscope|accelerometer|magnetometer)(?: ([xyz]))? \((.+)\)")

# To s, rad/s, m/s^2 and T. Standard gravity is exact by definition (CGPM 1901).
_EXPONENTS = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_SCALES: dict[str, dict[str, float]] = {
    "gyroscope": {"deg/s": math.pi / 180, "rad/s": 1.0},
    "accelerometer": {"g": 9.80665, "m/s^2": 1.0, "m/s/s": 1.0, "m/s²": 1.0},
    "magnetometer": {"ut": 1e-6, "mt": 1e-3, "t": 1.0},
}


class Columns(NamedTuple):
    """Where things are. time: its column, and 10^exponent ns are its unit; (column, scale) by
    channel.
    """

    time: int
    exponent: int
    imu: list[tuple[int, float]]
    magnetometer: list[tuple[int, float]]


def csv_columns(line: str) -> Columns | None:
    """The columns of a header line; None where it is not one of a motion log."""
    names = [cell.strip().lower() for cell in line.lstrip("\ufeff").split(",")]
    if names == _PLAIN:
        return Columns(0, _EXPONENTS["s"], [(i, 1.0) for i in range(1, 7)], [])
    time: tuple[int, int] | None = None
    found: dict[str, tuple[int, float]] = {}
    for i, name in enumerate(names):
        match = _COLUMN.fullmatch(name)
        if match is None:
            continue
        kind, axis, unit = match.groups()
        if kind == "time" and unit in _EXPONENTS:
            time = i, _EXPONENTS[unit]
        elif kind != "time" and unit in _SCALES[kind]:
            found[f"{kind} {axis}"] = i, _SCALES[kind][unit]
    imu = [found[n] for n in _names("accelerometer", "gyroscope") if n in found]
    magnetometer = [found[n] for n in _names("magnetometer") if n in found]
    if time is None or len(imu) != 6:
        return None
    return Columns(*time, imu, magnetometer if len(magnetometer) == 3 else [])


def _names(*kinds: str) -> list[str]:
    return [f"{kind} {axis}" for kind in kinds for axis in "xyz"]


class CsvLog:
    """See base.LogFile. Topics "imu" and, where it is there, "magnetometer"; a row is a message."""

    def __init__(self, path: Path) -> None:
        """Raises DeviceNotFound for a file without a header and a first row of numbers."""
        self._path = path
        self._file: BinaryIO = path.open("rb")
        header = self._file.readline()
        columns = csv_columns(header.decode("utf-8", "replace"))
        if columns is None:
            self._file.close()
            raise DeviceNotFound(f"log {path}: its first line is not the header of a motion log")
        self._columns, self._body = columns, len(header)
        self._width = len(header.split(b","))
        self.metadata: dict[str, dict[str, str]] = {}
        self.topics: tuple[str, ...] = ("imu", "magnetometer") if columns.magnetometer else ("imu",)
        self.complete = True
        self.start_ns, self.end_ns = 0, 0
        first = next(self._rows(), None)
        if first is not None:
            self.start_ns = first[0]
            self.end_ns = self._last_ns()

    def messages(self) -> Iterator[Message]:
        for log_ns, cells in self._rows():
            for topic in self.topics:
                yield Message(topic, log_ns, cells)

    def decoder(self, topic: str, modality: str | None) -> Decoder | None:
        rate_hz = measured_rate_hz(log_ns for log_ns, _ in islice(self._rows(), RATE_MESSAGES))
        if topic == "imu":
            info = StreamInfo(
                "imu", modality or "imu", "float32", (6,), rate_hz, "m/s^2,rad/s",
                topic=topic, channels=IMU_CHANNELS,
            )  # fmt: skip
            picked = self._columns.imu
        else:
            info = StreamInfo(
                "magnetometer", modality or "magnetic_field", "float64", (3,), rate_hz, "T",
                topic=topic, channels=("x", "y", "z"),
            )  # fmt: skip
            picked = self._columns.magnetometer
        columns = [i for i, _ in picked]
        scales = np.array([scale for _, scale in picked])

        def extract(cells: list[bytes]) -> tuple[Array, int]:
            try:
                values = np.array([float(cells[i]) for i in columns])
            except (ValueError, IndexError) as exc:
                row = b",".join(cells).strip().decode("utf-8", "replace")
                raise BadData(f"log {self._path}: row {row!r} is not numbers") from exc
            return (values * scales).astype(info.dtype), 0

        return TickDecoder(info, extract)

    def close(self) -> None:
        self._file.close()

    def _rows(self) -> Iterator[tuple[int, list[bytes]]]:
        """(time in ns, cells) of every row; a row without a time gets that of the one before."""
        position, log_ns = self._body, self.start_ns
        while True:
            self._file.seek(position)
            line = self._file.readline()
            position += len(line)
            if not line:
                return
            cells = line.split(b",")
            if self._is_cut(line, cells):
                self.complete = False
                return
            if line.strip():
                time_ns = self._time_ns(cells)
                log_ns = log_ns if time_ns is None else time_ns
                yield log_ns, cells

    def _is_cut(self, line: bytes, cells: list[bytes]) -> bool:
        return not line.endswith(b"\n") and len(cells) != self._width

    def _time_ns(self, cells: list[bytes]) -> int | None:
        try:
            text = cells[self._columns.time].decode()
            return int(Decimal(text.strip()).scaleb(self._columns.exponent))
        except (ArithmeticError, ValueError, IndexError):
            return None

    def _last_ns(self) -> int:
        """Time of the last row that has one; `complete` where the file ends inside a row."""
        size = self._file.seek(0, io.SEEK_END)
        self._file.seek(max(self._body, size - _TAIL_BYTES))
        for line in reversed(self._file.read().splitlines(keepends=True)):
            cells = line.split(b",")
            if self._is_cut(line, cells):
                self.complete = False
                continue
            time_ns = self._time_ns(cells) if len(cells) == self._width else None
            if time_ns is not None:
                return time_ns
        return self.start_ns
