"""Samples to messages, in schemas that Foxglove, Rerun and ROS 2 tools know."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import foxglove
import msgspec
import numpy as np
from foxglove import messages as fox
from PIL import Image

from agent.clock import NS_PER_S
from agent.errors import ConfigError
from agent.types import Array, Sample, StreamInfo

__all__ = ["IMU_TYPE", "STREAM_KEY", "VECTOR_TYPE", "Codec", "Schema", "codec_for", "ros2_types"]

# The key in a channel's metadata that holds its StreamInfo as JSON, so that no reader must guess.
STREAM_KEY = "sensebind.stream"

IMU_TYPE = "sensor_msgs/msg/Imu"
VECTOR_TYPE = "sensebind.Vector"

# Foxglove and ROS names of one-channel pixel formats. 16UC1 is depth in mm by REP-118; mono16
# keeps raw thermal counts apart from it.
_PIXELS = {"uint8": "mono8", "uint16": "16UC1", "float32": "32FC1"}

_VECTOR_SCHEMA: dict[str, Any] = {
    "title": VECTOR_TYPE,
    "type": "object",
    "description": "One tick of a numeric stream; what the values are is in the channel's metadata",
    "properties": {
        "timestamp": {
            "type": "object",
            "title": "time",
            "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}},
        },
        "data": {"type": "array", "items": {"type": "number"}},
    },
    "required": ["timestamp", "data"],
}


class Schema(NamedTuple):
    """What a channel declares. encoding is the schema's own, message_encoding the messages'."""

    name: str
    encoding: str
    data: bytes
    message_encoding: str


class Codec(NamedTuple):
    """How one stream is written.

    encode: Sample -> its messages in order, all with the log time `sample.arrival_ns`: one a tick
    for pictures, IMU and vectors, one a block for audio. Capture time of the (first) tick is in
    the message itself. Raises OverflowError for a stamp outside 1970..2106.
    """

    schema: Schema
    metadata: dict[str, str]
    encode: Callable[[Sample], list[bytes]]


def codec_for(info: StreamInfo, jpeg_quality: int = 90) -> Codec:
    """The codec of a stream.

    uint8 pictures become JPEG (`jpeg_quality` 1..95, Pillow's scale) except thermal ones; these,
    depth and float32 pictures keep every bit as RawImage. float32 audio is rounded to 16 bits.
    Raises ConfigError for audio without a rate.
    """
    kind = (info.modality, info.dtype, len(info.shape))
    encode: Callable[[Sample], list[bytes]]
    if info.modality == "audio" and info.dtype in ("int16", "float32") and len(info.shape) == 1:
        if info.rate_hz is None:
            raise ConfigError(f"stream {info.name}: audio needs a rate_hz to be recorded, not null")
        schema, encode = _fox(fox.RawAudio.get_schema()), _audio
    elif kind == ("imu", "float32", 1) and info.shape == (6,):
        schema, encode = _imu_schema(), _imu
    elif info.dtype == "uint8" and (info.shape[2:] == (3,) or kind[::2] == ("image", 2)):
        schema = _fox(fox.CompressedImage.get_schema())

        def encode(sample: Sample) -> list[bytes]:
            return [_jpeg(sample, i, jpeg_quality) for i in range(len(sample))]

    elif info.dtype in _PIXELS and len(info.shape) == 2:
        schema, encode = _fox(fox.RawImage.get_schema()), _raw
    else:
        data = msgspec.json.encode(_VECTOR_SCHEMA)
        schema, encode = Schema(VECTOR_TYPE, "jsonschema", data, "json"), _vector
    return Codec(schema, {STREAM_KEY: msgspec.json.encode(info).decode()}, encode)


@cache
def ros2_types() -> Any:
    """The message types of ROS 2 Humble: those in use here are the same in every release."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.ROS2_HUMBLE)


def _fox(schema: foxglove.Schema) -> Schema:
    return Schema(schema.name, schema.encoding, schema.data, "protobuf")


@cache
def _imu_schema() -> Schema:
    store = ros2_types()
    store.get_msgdef(IMU_TYPE)  # makes the (de)serialiser now and not for the first sample
    text, _ = store.generate_msgdef(IMU_TYPE, ros_version=2)
    return Schema(IMU_TYPE, "ros2msg", text.encode(), "cdr")


def _stamp(t_ns: int) -> fox.Timestamp:
    return fox.Timestamp(*divmod(t_ns, NS_PER_S))


def _jpeg(sample: Sample, i: int, quality: int) -> bytes:
    picture = io.BytesIO()
    Image.fromarray(sample.data[i]).save(picture, "JPEG", quality=quality)
    return fox.CompressedImage(
        timestamp=_stamp(int(sample.t_ns[i])),
        frame_id=sample.stream.frame_id,
        data=picture.getvalue(),
        format="jpeg",
    ).encode()


def _raw(sample: Sample) -> list[bytes]:
    info = sample.stream
    height, width = info.shape
    thermal_counts = info.modality == "thermal" and info.dtype == "uint16"
    encoding = "mono16" if thermal_counts else _PIXELS[info.dtype]
    little = sample.data.dtype.newbyteorder("<")
    return [
        fox.RawImage(
            timestamp=_stamp(int(t_ns)),
            frame_id=info.frame_id,
            width=width,
            height=height,
            encoding=encoding,
            step=width * little.itemsize,
            data=frame.astype(little).tobytes(),
        ).encode()
        for t_ns, frame in zip(sample.t_ns, sample.data, strict=True)
    ]


def _audio(sample: Sample) -> list[bytes]:
    info, data = sample.stream, sample.data
    if data.dtype.kind == "f":
        # 2^15 and not 2^15 - 1, so that 16-bit sound that was scaled to floats comes back exactly.
        data = np.clip(np.rint(data * 32768.0), -32768, 32767)
    return [
        fox.RawAudio(
            timestamp=_stamp(int(sample.t_ns[0])),
            data=data.astype("<i2").tobytes(),
            format="pcm-s16",
            sample_rate=round(info.rate_hz or 0),
            number_of_channels=info.shape[0],
        ).encode()
    ]


def _imu(sample: Sample) -> list[bytes]:
    store = ros2_types()
    types = store.types
    vector = types["geometry_msgs/msg/Vector3"]
    unknown = np.zeros(9)  # covariances all zero: "unknown", by the message's own definition
    no_orientation = unknown.copy()
    no_orientation[0] = -1.0  # "no estimate", by the same
    rest = {
        "orientation": types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
        "orientation_covariance": no_orientation,
        "angular_velocity_covariance": unknown,
        "linear_acceleration_covariance": unknown,
    }

    def message(t_ns: int, tick: Array) -> bytes:
        ax, ay, az, gx, gy, gz = map(float, tick)
        sec, nanosec = divmod(t_ns, NS_PER_S)
        header = types["std_msgs/msg/Header"](
            stamp=types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec),
            frame_id=sample.stream.frame_id,
        )
        imu = types[IMU_TYPE](
            header=header,
            angular_velocity=vector(x=gx, y=gy, z=gz),
            linear_acceleration=vector(x=ax, y=ay, z=az),
            **rest,
        )
        return bytes(store.serialize_cdr(imu, IMU_TYPE, little_endian=True))

    return [message(int(t), tick) for t, tick in zip(sample.t_ns, sample.data, strict=True)]


def _vector(sample: Sample) -> list[bytes]:
    flat = sample.data.reshape(len(sample), -1)
    return [
        msgspec.json.encode(
            {
                "timestamp": dict(zip(("sec", "nsec"), divmod(int(t), NS_PER_S), strict=True)),
                "data": tick.tolist(),
            }
        )
        for t, tick in zip(sample.t_ns, flat, strict=True)
    ]
