"""ROS 1 and ROS 2 messages to ticks, from the type definitions that logs carry."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)

from agent.clock import NS_PER_S
from agent.codecs import decode_compressed, decode_pixels
from agent.errors import BadData
from agent.types import Array, StreamInfo, slug
from drivers.log_formats.base import (
    IMU_CHANNELS,
    Blocks,
    Decoded,
    Decoder,
    TickDecoder,
    audio_stamps,
    capture_ns,
    measured_rate_hz,
    picture_stream,
    vector_stream,
)

__all__ = [
    "AUDIO_INFO",
    "AudioFormat",
    "RosType",
    "audio_format",
    "audio_info_topic",
    "ros_decoder",
]

AUDIO_INFO = "audio_common_msgs/msg/AudioInfo"

_IMU_FIELDS = ("linear_acceleration", "angular_velocity")
# Types whose messages hold more than what they are named for: the fields to take, and their unit.
_SENSORS: dict[str, tuple[tuple[str, ...], str]] = {
    "sensor_msgs/msg/MagneticField": (tuple(f"magnetic_field.{axis}" for axis in "xyz"), "T"),
    "sensor_msgs/msg/FluidPressure": (("fluid_pressure",), "Pa"),
    "sensor_msgs/msg/Temperature": (("temperature",), "c"),
}
_TIMES = ("builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration", "std_msgs/msg/Header")
_TEXT = ("string", "wstring", "char", "wchar")
_PCM = {"S16LE": "<i2", "S32LE": "<i4", "F32LE": "<f4"}


class RosType:
    """One message type with all that it contains."""

    def __init__(
        self, name: str, definition: str, *, idl: bool = False, ros1: bool = False
    ) -> None:
        """definition: the text a log carries, "" for a type that every ROS 2 has.

        Raises BadData where it cannot be parsed or is not known.
        """
        self._ros1 = ros1
        try:
            if definition:
                types = (
                    get_types_from_idl(definition) if idl else get_types_from_msg(definition, name)
                )
                self._store = get_typestore(Stores.EMPTY)
                self._store.register(types)
                # A log of ROS 1 says "sensor_msgs/Imu"; the parsed name is the same everywhere.
                self.name = name if idl else next(iter(types))
            else:
                self._store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
                self.name = name
            self.fields = self._store.fielddefs[self.name][1]
        except (TypesysError, KeyError) as exc:
            raise BadData(f"log type {name}: its definition cannot be used: {exc}") from exc

    def read(self, raw: bytes) -> Any:
        """A message object. Raises BadData."""
        try:
            if self._ros1:
                return self._store.deserialize_ros1(raw, self.name)
            return self._store.deserialize_cdr(raw, self.name)
        except (SerdeError, KeyError, AssertionError) as exc:
            raise BadData(f"log message: not a {self.name}: {exc}") from exc

    def numbers(self) -> list[tuple[str, int]] | None:
        """(path, length) of every numeric leaf outside headers and times, length 0 for a scalar.

        None where a field has no fixed length.
        """
        return self._leaves(self.name, "")

    def _leaves(self, name: str, prefix: str) -> list[tuple[str, int]] | None:
        found: list[tuple[str, int]] = []
        fields: Any = self._store.fielddefs[name][1]  # a union too deep to narrow
        for field, (kind, detail) in fields:
            path = prefix + field
            if kind == Nodetype.BASE:
                found += [] if detail[0] in _TEXT else [(path, 0)]
            elif kind == Nodetype.NAME:
                inner = [] if detail in _TIMES else self._leaves(detail, f"{path}.")
                if inner is None:
                    return None
                found += inner
            elif kind == Nodetype.ARRAY and detail[0][0] == Nodetype.BASE:
                found += [] if detail[0][1][0] in _TEXT else [(path, detail[1])]
            else:
                return None
        return found


class AudioFormat(NamedTuple):
    """What an AudioInfo message says; dtype: of the bytes of an AudioData, little-endian."""

    channels: int
    rate_hz: float
    dtype: str


def audio_format(message: Any) -> AudioFormat | None:
    """The format that audio_common_msgs/AudioInfo gives; None for compressed sound."""
    dtype = _PCM.get(message.sample_format.upper())
    if message.coding_format.lower() not in ("wave", "wav", "raw", "pcm", "") or dtype is None:
        return None
    if not message.channels or not message.sample_rate:
        return None
    return AudioFormat(message.channels, float(message.sample_rate), dtype)


def audio_info_topic(topic: str, infos: Sequence[str]) -> str | None:
    """Which AudioInfo topic speaks of `topic`: the one beside it, else the only one."""
    beside = f"{topic}_info"
    if beside in infos:
        return beside
    return infos[0] if len(infos) == 1 else None


def ros_decoder(
    topic: str,
    ros_type: RosType,
    head: Iterable[tuple[int, bytes]],
    modality: str | None,
    sound: Callable[[], AudioFormat | None],
) -> Decoder | None:
    """A decoder for a topic; None where its messages have no numeric form of a fixed length.

    head: its first messages as (log time, raw), from which shape and rate are taken. sound: finds
    the format of an AudioData, which does not say it itself. Raises BadData where the first
    message cannot be read.
    """
    messages = ((log_ns, ros_type.read(raw)) for log_ns, raw in head)
    first = next(messages, None)
    if first is None:
        return None
    kind, message = ros_type.name, first[1]
    if kind in ("audio_common_msgs/msg/AudioData", "audio_common_msgs/msg/AudioDataStamped"):
        pcm = sound()
        return None if pcm is None else _AudioDecoder(topic, ros_type, pcm, modality)
    if kind in ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"):
        rate_hz = _rate_hz(chain([first], messages))
        compressed = kind.endswith("CompressedImage")
        return _picture_decoder(topic, ros_type, message, compressed, modality, rate_hz)
    leaves = ros_type.numbers()
    if not leaves or kind == AUDIO_INFO:
        return None
    rate_hz = _rate_hz(chain([first], messages))
    if kind == "sensor_msgs/msg/Imu":
        frame_id = message.header.frame_id
        info = StreamInfo(
            slug(topic), modality or "imu", "float32", (6,), rate_hz, "m/s^2,rad/s", frame_id,
            topic=topic, channels=IMU_CHANNELS,
        )  # fmt: skip
        paths, dtype = [f"{f}.{axis}" for f in _IMU_FIELDS for axis in "xyz"], np.float32
        leaves = [(path, 0) for path in paths]
        return TickDecoder(info, _vector_extractor(ros_type, leaves, dtype))
    unit = "unspecified"
    if kind in _SENSORS:
        paths_of_sensor, unit = _SENSORS[kind]
        leaves = [(path, 0) for path in paths_of_sensor]
    channels = [c for path, n in leaves for c in ([f"{path}[{i}]" for i in range(n)] or [path])]
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.rpartition("/")[2])
    info = vector_stream(topic, modality or slug(name), channels, unit, rate_hz)
    return TickDecoder(info, _vector_extractor(ros_type, leaves, np.float64))


def _stamp_ns(message: Any) -> int:
    """The header's stamp, 0 where there is none."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    return 0 if stamp is None else stamp.sec * NS_PER_S + stamp.nanosec


def _rate_hz(messages: Iterator[tuple[int, Any]]) -> float | None:
    return measured_rate_hz(capture_ns(_stamp_ns(m), log_ns) for log_ns, m in messages)


def _vector_extractor(
    ros_type: RosType, leaves: list[tuple[str, int]], dtype: type[np.floating[Any]]
) -> Callable[[bytes], tuple[Array, int]]:
    getters = [operator.attrgetter(path) for path, _ in leaves]

    def extract(raw: bytes) -> tuple[Array, int]:
        message = ros_type.read(raw)
        tick = np.hstack([get(message) for get in getters]).astype(dtype)
        return tick, _stamp_ns(message)

    return extract


def _picture_decoder(
    topic: str,
    ros_type: RosType,
    first: Any,
    compressed: bool,
    modality: str | None,
    rate_hz: float | None,
) -> TickDecoder | None:
    def pixels(message: Any) -> Array:
        if not compressed:
            return decode_pixels(
                message.encoding,
                message.width,
                message.height,
                message.step,
                message.data.tobytes(),
                bool(message.is_bigendian),
            )
        # image_transport puts the depth quantisation, 12 bytes, before a compressedDepth PNG.
        skip = 12 if "compressedDepth" in message.format else 0
        return decode_compressed(message.data[skip:].tobytes())

    try:
        picture = pixels(first)
    except BadData:
        return None
    if not compressed and first.encoding == "mono16":
        modality = modality or "thermal"
    info, convert = picture_stream(topic, picture, modality, rate_hz, first.header.frame_id)

    def extract(raw: bytes) -> tuple[Array, int]:
        message = ros_type.read(raw)
        return convert(pixels(message)), _stamp_ns(message)

    return TickDecoder(info, extract)


class _AudioDecoder:
    def __init__(
        self, topic: str, ros_type: RosType, pcm: AudioFormat, modality: str | None
    ) -> None:
        self._type, self._pcm, self._topic = ros_type, pcm, topic
        self.info = StreamInfo(
            name=slug(topic),
            modality=modality or "audio",
            dtype="int16" if pcm.dtype == "<i2" else "float32",
            shape=(pcm.channels,),
            rate_hz=pcm.rate_hz,
            unit="full_scale",
            topic=topic,
        )

    def decode(self, log_ns: int, payload: bytes) -> Blocks:
        message = self._type.read(payload)
        sound = getattr(message, "audio", message).data.tobytes()
        frame = self._pcm.channels * np.dtype(self._pcm.dtype).itemsize
        if not sound or len(sound) % frame:
            raise BadData(f"log audio: {len(sound)} bytes, expected whole frames of {frame}")
        data = np.frombuffer(sound, self._pcm.dtype).reshape(-1, self._pcm.channels)
        if data.dtype.kind == "i" and data.dtype.itemsize == 4:
            data = data / 2.0**31
        stamps = audio_stamps(0, len(data), self._pcm.rate_hz)
        stamp_ns = _stamp_ns(message)
        # Without a stamp all that is known is when the block was there: with its last frame.
        first_ns = capture_ns(stamp_ns, log_ns) if stamp_ns else log_ns - int(stamps[-1])
        t_ns = stamps + first_ns
        arrival_ns = max(log_ns, int(t_ns[-1]))
        return [Decoded(data.astype(self.info.dtype), t_ns, arrival_ns, t_ns.copy())]

    def finish(self) -> Blocks:
        return ()
