"""What every log format gives the driver, and the arithmetic they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from agent.clock import NS_PER_S, from_s
from agent.errors import BadData
from agent.types import Array, Int64Array, StreamInfo, slug

__all__ = [
    "IMU_CHANNELS",
    "RATE_MESSAGES",
    "Blocks",
    "Decoded",
    "Decoder",
    "LogFile",
    "Message",
    "TickDecoder",
    "audio_stamps",
    "capture_ns",
    "measured_rate_hz",
    "picture_stream",
    "to_millimetres",
    "vector_stream",
]

IMU_CHANNELS = ("ax", "ay", "az", "gx", "gy", "gz")

# Messages at the start of a topic from whose stamps its rate is measured.
RATE_MESSAGES = 64
# A capture stamp further than this from the log time was made on another clock.
_SAME_CLOCK_NS = from_s(3600)


class Message(NamedTuple):
    """One message of a log. log_ns: when the recorder had it; payload: as the format gives it."""

    topic: str
    log_ns: int
    payload: Any


class Decoded(NamedTuple):
    """One block on the log's own clock. seq: None to count on from the last one."""

    data: Array
    t_ns: Int64Array
    arrival_ns: int
    device_t_ns: Int64Array | None
    seq: int | None = None
    lost: int = 0


Blocks = Sequence[Decoded]


class Decoder(Protocol):
    """Turns the messages of one topic into blocks of one stream; `info.name` is provisional."""

    @property
    def info(self) -> StreamInfo: ...

    def decode(self, log_ns: int, payload: Any) -> Blocks:
        """Blocks that are whole with this message. Raises BadData."""

    def finish(self) -> Blocks:
        """What is left at the end of the log."""


class LogFile(Protocol):
    """An open log. topics: all of them, whether or not they can be decoded. metadata: by record
    name. start_ns, end_ns: first and last log time, 0 without messages.
    """

    metadata: dict[str, dict[str, str]]
    topics: tuple[str, ...]
    start_ns: int
    end_ns: int

    @property
    def complete(self) -> bool:
        """False once the log is known to be cut off."""

    def decoder(self, topic: str, modality: str | None) -> Decoder | None:
        """A fresh decoder; None for a topic without a numeric form, or without messages.

        modality: what to call it instead of the default.
        """

    def messages(self) -> Iterator[Message]:
        """All messages by log time, from the start each time. Raises BadData where damaged."""

    def close(self) -> None:
        """Idempotent."""


@dataclass(frozen=True)
class TickDecoder:
    """One tick a message. extract: payload -> (tick, capture stamp in ns or 0 for none)."""

    info: StreamInfo
    extract: Callable[[Any], tuple[Array, int]]

    def decode(self, log_ns: int, payload: Any) -> Blocks:
        tick, stamp_ns = self.extract(payload)
        t_ns = np.array([capture_ns(stamp_ns, log_ns)], np.int64)
        device_t_ns = np.array([stamp_ns or log_ns], np.int64)
        return [Decoded(tick[None], t_ns, log_ns, device_t_ns)]

    def finish(self) -> Blocks:
        return ()


def capture_ns(stamp_ns: int, log_ns: int) -> int:
    """Capture time on the log's clock: the message's own stamp, where that can be.

    A stamp of 0 is no stamp; one more than an hour off is of another clock; and a later one than
    the log time, which a capture cannot be, comes from two computers' clocks that differ.
    """
    if not stamp_ns or abs(log_ns - stamp_ns) > _SAME_CLOCK_NS:
        return log_ns
    return min(stamp_ns, log_ns)


def audio_stamps(first_ns: int, count: int, rate_hz: float) -> Int64Array:
    """int64 (count,): stamps of the frames of a block that begins at `first_ns`."""
    steps: Int64Array = np.rint(np.arange(count) * (NS_PER_S / rate_hz)).astype(np.int64)
    return first_ns + steps


def measured_rate_hz(stamps_ns: Iterable[int]) -> float | None:
    """Ticks a second from the median of the differences; None where that says nothing."""
    steps = np.diff(np.fromiter(stamps_ns, np.int64))
    median_ns = float(np.median(steps)) if len(steps) else 0.0
    return float(f"{NS_PER_S / median_ns:.6g}") if median_ns > NS_PER_S / 1e7 else None


def to_millimetres(metres: Array) -> Array:
    """Depth in float metres (REP-118) to uint16 mm; what is not finite or too far becomes 0."""
    millimetres = np.rint(np.nan_to_num(metres, nan=0, posinf=0, neginf=0) * 1000.0)
    return np.where((millimetres < 0) | (millimetres > 65535), 0, millimetres).astype(np.uint16)


def vector_stream(
    topic: str, modality: str, channels: Sequence[str], unit: str, rate_hz: float | None
) -> StreamInfo:
    """A stream of float64 vectors, one value a channel."""
    return StreamInfo(
        name=slug(topic),
        modality=modality,
        dtype="float64",
        shape=(len(channels),),
        rate_hz=rate_hz,
        unit=unit,
        topic=topic,
        channels=tuple(channels),
    )


def picture_stream(
    topic: str, picture: Array, modality: str | None, rate_hz: float | None, frame_id: str = ""
) -> tuple[StreamInfo, Callable[[Array], Array]]:
    """The stream of a topic whose first picture this is, and how to bring each to its dtype.

    Grey and colour bytes are images, float32 is depth in metres and 16 bits are depth in mm,
    unless `modality` says otherwise. Raises BadData for other dtypes.
    """
    if picture.dtype == np.uint8:
        modality = modality or "image"
        unit = "rgb8" if picture.ndim == 3 else "mono8"
    elif picture.dtype in (np.uint16, np.float32):
        modality = modality or "depth"
        thermal = "c" if picture.dtype == np.float32 else "counts"
        unit = {"depth": "mm", "thermal": thermal}.get(modality, picture.dtype.name)
    else:
        raise BadData(f"log topic {topic}: pictures of {picture.dtype}, expected 8 or 16 bits")
    metres = modality == "depth" and picture.dtype == np.float32
    info = StreamInfo(
        name=slug(topic),
        modality=modality,
        dtype="uint16" if metres else picture.dtype.name,
        shape=picture.shape,
        rate_hz=rate_hz,
        unit=unit,
        frame_id=frame_id,
        topic=topic,
    )
    return info, to_millimetres if metres else np.asarray
