"""Lines of text from a microcontroller: numbers between commas, or a JSON object a line."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agent.types import Settings
from drivers.imu_protocols.base import DEGREE, IMU_CHANNELS, STANDARD_GRAVITY, Decoder, Reading

__all__ = ["CsvLines", "JsonLines", "TextFormat"]

Column = Literal["ax", "ay", "az", "gx", "gy", "gz", "time", "count", "-"]

ACCELERATION = {"m/s^2": 1.0, "g": STANDARD_GRAVITY, "mg": STANDARD_GRAVITY / 1000}
ANGULAR_RATE = {"rad/s": 1.0, "deg/s": DEGREE, "mdeg/s": DEGREE / 1000}
TIME_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
MAX_LINE = 1024  # bytes; without a line's end by then it is garbage


class TextFormat(Settings, frozen=True, kw_only=True):
    """columns: what the numbers of a line are, in order; "-" is passed over. ax to gz are all
    needed. time: the device's clock; count: number of the message, up by one each.

    keys: the name in JSON of a column that is called otherwise there; of JSON the order is free.
    time_bits, count_bits: where the device's counters start again at 0 (32 as of an Arduino's
    micros() and millis(), which are unsigned long).
    """

    columns: tuple[Column, ...] = ("ax", "ay", "az", "gx", "gy", "gz")
    keys: dict[Column, str] = msgspec.field(default_factory=dict)
    acceleration: Literal["m/s^2", "g", "mg"] = "m/s^2"
    angular_rate: Literal["rad/s", "deg/s", "mdeg/s"] = "rad/s"
    time: Literal["s", "ms", "us", "ns"] = "us"
    time_bits: Annotated[int, Meta(ge=8, le=64)] = 32
    count_bits: Annotated[int, Meta(ge=8, le=64)] = 32

    def __post_init__(self) -> None:
        named = [column for column in self.columns if column != "-"]
        missing = [channel for channel in IMU_CHANNELS if channel not in named]
        if missing or len(set(named)) != len(named):
            raise ValueError(f"columns: got {list(self.columns)}, expected each of ax to gz once")


class _Lines(Decoder):
    count_modulo: int
    time_modulo_ns: int

    def __init__(self, text: TextFormat) -> None:
        super().__init__()
        self._text = text
        self.count_modulo = 2**text.count_bits
        self.time_modulo_ns = min(2**text.time_bits * TIME_NS[text.time], 2**63)
        self._scales = {
            channel: ACCELERATION[text.acceleration]
            if channel[0] == "a"
            else ANGULAR_RATE[text.angular_rate]
            for channel in IMU_CHANNELS
        }

    def feed(self, data: bytes) -> list[Reading]:
        """The readings of the lines that `data` completes; one that cannot be read is dropped."""
        readings = []
        *lines, rest = bytes(self._buffer + data).split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            if not line.strip():
                continue
            try:
                if len(line) > MAX_LINE:
                    raise ValueError
                readings.append(self._reading(self._numbers(line)))
            except (ValueError, OverflowError, KeyError, msgspec.MsgspecError):
                self.bad_bytes += len(line) + 1
        excess = len(rest) - MAX_LINE - 1  # one byte too many stays, so that the line is refused
        if excess > 0:
            del self._buffer[:excess]
            self.bad_bytes += excess
        return readings

    @abstractmethod
    def _numbers(self, line: bytes) -> Mapping[str, float]:
        """The number of each column. Raises ValueError, KeyError or MsgspecError."""

    def _reading(self, numbers: Mapping[str, float]) -> Reading:
        count, time = numbers.get("count"), numbers.get("time")
        return Reading(
            tuple(scale * numbers[channel] for channel, scale in self._scales.items()),
            count=None if count is None else int(count),
            device_ns=None
            if time is None
            else round(time * TIME_NS[self._text.time]) % self.time_modulo_ns,
        )


class CsvLines(_Lines):
    """Numbers between commas, as many as there are columns."""

    def _numbers(self, line: bytes) -> Mapping[str, float]:
        pairs = zip(self._text.columns, line.split(b","), strict=True)
        return {
            column: int(word) if column == "count" else float(word)
            for column, word in pairs
            if column != "-"
        }


class JsonLines(_Lines):
    """An object a line, with a number under the key of each column."""

    def __init__(self, text: TextFormat) -> None:
        super().__init__(text)
        self._keys = {c: text.keys.get(c, c) for c in text.columns if c != "-"}

    def _numbers(self, line: bytes) -> Mapping[str, float]:
        found = msgspec.json.decode(line, type=dict[str, object])
        numbers: dict[str, float] = {}
        for column, key in self._keys.items():
            value = found[key]
            if not isinstance(value, int | float):
                raise ValueError
            numbers[column] = value
        return numbers
