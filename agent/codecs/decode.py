"""Messages of a log to ticks: ours, and the same schemas written by others."""

from __future__ import annotations

import io
from typing import NamedTuple

import msgspec
import numpy as np
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from google.protobuf.message import DecodeError
from PIL import Image, UnidentifiedImageError

from agent.clock import NS_PER_S
from agent.codecs.encode import IMU_TYPE, VECTOR_TYPE, ros2_types
from agent.errors import BadData
from agent.types import Array, StreamInfo

__all__ = ["Ticks", "decode", "decode_compressed", "decode_pixels"]

# Pixel formats by their ROS (sensor_msgs/image_encodings.hpp) and Foxglove names:
# dtype, channels, and the order that makes RGB of them (None: as they are).
_ENCODINGS: dict[str, tuple[str, int, list[int] | None]] = {
    "mono8": ("u1", 1, None),
    "8UC1": ("u1", 1, None),
    "mono16": ("u2", 1, None),
    "16UC1": ("u2", 1, None),
    "32FC1": ("f4", 1, None),
    "rgb8": ("u1", 3, None),
    "bgr8": ("u1", 3, [2, 1, 0]),
    "8UC3": ("u1", 3, [2, 1, 0]),
    "rgba8": ("u1", 4, [0, 1, 2]),
    "bgra8": ("u1", 4, [2, 1, 0]),
}


class Ticks(NamedTuple):
    """One message: t_ns of its first tick, data (n, *shape), and what it says of its source.

    data may be a read-only view of the message. encoding: the pixel or sample format's name.
    """

    t_ns: int
    data: Array
    encoding: str
    frame_id: str = ""
    rate_hz: float | None = None


class _Time(msgspec.Struct):
    sec: int
    nsec: int


class _Vector(msgspec.Struct):
    timestamp: _Time
    data: list[int | float | bool]


def decode(schema_name: str, payload: bytes, info: StreamInfo | None = None) -> Ticks | None:
    """Ticks of one message; None where the schema is none of those that codec_for writes.

    info: the stream it was written for, where known: gives float32 audio and shaped vectors back.
    Raises BadData for a message that does not hold what its schema says.
    """
    try:
        if schema_name == "foxglove.CompressedImage":
            picture = CompressedImage.FromString(payload)
            image = decode_compressed(picture.data)
            t_ns = picture.timestamp.ToNanoseconds()
            return Ticks(t_ns, image[None], picture.format, picture.frame_id)
        if schema_name == "foxglove.RawImage":
            raw = RawImage.FromString(payload)
            pixels = decode_pixels(raw.encoding, raw.width, raw.height, raw.step, raw.data)
            return Ticks(raw.timestamp.ToNanoseconds(), pixels[None], raw.encoding, raw.frame_id)
        if schema_name == "foxglove.RawAudio":
            return _audio(RawAudio.FromString(payload), info)
        if schema_name == VECTOR_TYPE:
            return _vector(payload, info)
    except DecodeError as exc:
        raise BadData(f"log message: not a {schema_name}: {exc}") from exc
    if schema_name == IMU_TYPE:
        return _imu(payload)
    return None


def decode_compressed(data: bytes) -> Array:
    """A JPEG or PNG picture: uint8 (h, w, 3) RGB or (h, w) grey, or uint16 (h, w) of 16-bit grey.

    Raises BadData where the bytes are no picture.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.mode.startswith("I"):
            return np.asarray(picture).astype(np.uint16)
        return np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError) as exc:
        raise BadData(f"log message: not a JPEG or PNG picture: {exc}") from exc


def decode_pixels(
    encoding: str, width: int, height: int, step: int, data: bytes, big_endian: bool = False
) -> Array:
    """A raw picture: (h, w, 3) RGB uint8, or (h, w) uint8, uint16 or float32, native byte order.

    step: bytes of one row, padding and all. Raises BadData for an encoding that is not known or
    for a length that does not fit.
    """
    if encoding not in _ENCODINGS:
        known = ", ".join(_ENCODINGS)
        raise BadData(f"log image: encoding {encoding!r} is not known, expected one of {known}")
    code, channels, order = _ENCODINGS[encoding]
    dtype = np.dtype(code).newbyteorder(">" if big_endian else "<")
    row = width * channels * dtype.itemsize
    if step < row or len(data) < step * height or not row * height:
        raise BadData(
            f"log image: {len(data)} bytes in rows of {step}, expected {height} rows of >= {row}"
        )
    rows = np.frombuffer(data, np.uint8, step * height).reshape(height, step)[:, :row]
    pixels: Array = np.ascontiguousarray(rows).view(dtype)
    pixels = pixels.astype(dtype.newbyteorder("="), copy=False)
    if channels == 1:
        return pixels
    pixels = pixels.reshape(height, width, channels)
    return pixels if order is None else np.ascontiguousarray(pixels[:, :, order])


def _audio(message: RawAudio, info: StreamInfo | None) -> Ticks:
    channels = message.number_of_channels
    if message.format != "pcm-s16" or not channels or len(message.data) % (2 * channels):
        raise BadData(
            f"log audio: {len(message.data)} bytes of {message.format!r} in {channels} channels, "
            "expected whole frames of 'pcm-s16'"
        )
    data: Array = np.frombuffer(message.data, "<i2").astype(np.int16).reshape(-1, channels)
    if info is not None and info.dtype == "float32":
        data = (data / np.float32(32768.0)).astype(np.float32)
    rate_hz = float(message.sample_rate) or None
    return Ticks(message.timestamp.ToNanoseconds(), data, message.format, rate_hz=rate_hz)


def _imu(payload: bytes) -> Ticks:
    from rosbags.serde import SerdeError

    try:
        message = ros2_types().deserialize_cdr(payload, IMU_TYPE)
    except SerdeError as exc:
        raise BadData(f"log message: not a {IMU_TYPE}: {exc}") from exc
    a, g = message.linear_acceleration, message.angular_velocity
    stamp = message.header.stamp
    tick = np.array([[a.x, a.y, a.z, g.x, g.y, g.z]], np.float32)
    t_ns = stamp.sec * NS_PER_S + stamp.nanosec
    return Ticks(t_ns, tick, "float64", message.header.frame_id)


def _vector(payload: bytes, info: StreamInfo | None) -> Ticks:
    try:
        message = msgspec.json.decode(payload, type=_Vector)
        data = np.array(message.data, info.dtype if info else np.float64)
        data = data.reshape(1, *(info.shape if info else (-1,)))
    except (msgspec.DecodeError, ValueError, OverflowError) as exc:
        raise BadData(f"log message: not a {VECTOR_TYPE}: {exc}") from exc
    return Ticks(message.timestamp.sec * NS_PER_S + message.timestamp.nsec, data, data.dtype.name)
