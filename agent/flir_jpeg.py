"""The thermal picture inside a radiometric JPEG of FLIR's.

It is an "FFF" file, cut into APP1 segments that begin with "FLIR": a directory of records, of
which one is the raw picture (16-bit PNG or plain) and one the camera's constants. Offsets are
those that ExifTool documents (Image::ExifTool::TagNames, FLIR Tags; the comments of FLIR.pm on
the layout), held to pictures of four cameras of FLIR's and two of DJI's that have FLIR's cores.
DJI's own format is known by what it fills two types of segments with, and not read.
"""

from __future__ import annotations

import io
import math
import struct
from collections import Counter

import msgspec
import numpy as np
from PIL import Image

from agent.errors import BadData
from agent.radiometry import ZERO_C_K, Planck, Scene
from agent.types import Array

__all__ = ["thermal_picture"]

SOI, APP1, SOS = 0xD8, 0xE1, 0xDA
# DJI writes 16 bits a pixel of the picture's own size into one of these, without a name.
APP3, APP4, SOF0 = 0xE3, 0xE4, 0xC0
NO_LENGTH = (0x01, *range(0xD0, 0xD9))
RAW_DATA, CAMERA_INFO = 0x01, 0x20
PIXELS_AT = 32
FORMAT_VERSIONS = range(100, 200)
MAX_SIDE = 8192


def thermal_picture(data: bytes, label: str) -> Array | None:
    """float32 Celsius (height, width), read-only; None where `data` is no radiometric JPEG.

    Worked out for the emissivity, distance and air that were set on the camera. Raises BadData
    where there is a thermal picture and it is damaged, or in DJI's own format; label: begins the
    message.
    """
    if data[:2] != bytes((0xFF, SOI)):
        return None
    fff = _joined(data, label)
    if fff is None:
        return None
    try:
        records = _records(fff)
        if RAW_DATA not in records or CAMERA_INFO not in records:
            return None
        counts = _counts(records[RAW_DATA])
        celsius = _law(records[CAMERA_INFO])(counts)
    except (struct.error, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as exc:
        raise BadData(f"{label}: its thermal picture is damaged ({exc})") from exc
    celsius.flags.writeable = False
    return celsius


def _joined(data: bytes, label: str) -> bytes | None:
    """The FFF file, put together from its segments; None where there is none."""
    parts: dict[int, bytes] = {}
    sizes: Counter[int] = Counter()
    pixels, last, at = 0, 0, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == SOS:
            break
        if marker == 0xFF or marker in NO_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + size]
        sizes[marker] += len(body)
        if marker == SOF0 and len(body) >= 5:
            height, width = struct.unpack_from(">HH", body, 1)
            pixels = width * height
        if marker == APP1 and body[:5] == b"FLIR\0" and len(body) > 8:
            # byte 5 is 1; then this segment's number and the last one's
            parts[body[6]], last = body[8:], body[7]
        at += 2 + size
    if not parts:
        if pixels and 2 * pixels in (sizes[APP3], sizes[APP4]):
            raise BadData(f"{label}: its thermal picture is in DJI's own format, expected FLIR's")
        return None
    if sorted(parts) != list(range(last + 1)):
        raise BadData(f"{label}: {len(parts)} of {last + 1} segments of its thermal picture")
    return b"".join(parts[number] for number in sorted(parts))


def _records(fff: bytes) -> dict[int, bytes]:
    """The first record of each type."""
    if fff[:4] != b"FFF\0":
        raise ValueError(f"begins with {fff[:4]!r}, expected FFF")
    order = next(
        (o for o in "><" if struct.unpack_from(o + "I", fff, 0x14)[0] in FORMAT_VERSIONS), None
    )
    if order is None:
        raise ValueError("its format version is none of 100 to 199")
    start, count = struct.unpack_from(order + "II", fff, 0x18)
    found: dict[int, bytes] = {}
    for number in range(min(count, 1000)):
        kind, offset, size = struct.unpack_from(order + "H10xII", fff, start + 32 * number)
        if offset + size > len(fff):
            raise ValueError(f"record {kind} ends at {offset + size} of {len(fff)} bytes")
        found.setdefault(kind, fff[offset : offset + size])
    return found


def _order(record: bytes) -> str:
    """A record's own byte order: its first word is a small number."""
    return "<" if struct.unpack_from("<H", record)[0] < 0x100 else ">"


def _counts(record: bytes) -> Array:
    """uint16 (height, width)."""
    order = _order(record)
    width, height = struct.unpack_from(order + "2xHH", record)
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError(f"{width} x {height} pixels, expected 1 to {MAX_SIDE}")
    pixels = record[PIXELS_AT:]
    if not pixels.startswith(b"\x89PNG"):
        if len(pixels) < 2 * width * height:
            raise ValueError(f"{len(pixels)} bytes for {width} x {height} pixels")
        plain = np.frombuffer(pixels, order + "u2", width * height)
        return plain.reshape(height, width).astype(np.uint16)
    with Image.open(io.BytesIO(pixels), formats=("PNG",)) as image:
        counts = np.asarray(image).astype(np.uint16)
    if counts.shape != (height, width):
        raise ValueError(f"PNG of {list(counts.shape)}, expected {[height, width]}")
    # Most cameras write the bytes of a PNG's pixels the wrong way round. Which way it was shows:
    # neighbours differ far more where the low byte has been taken for the high one.
    swapped: Array = counts.byteswap()
    return counts if _roughness(counts) < _roughness(swapped) else swapped


def _roughness(counts: Array) -> int:
    signed = counts.astype(np.int64)
    return int(np.abs(np.diff(signed, axis=0)).sum() + np.abs(np.diff(signed, axis=1)).sum())


def _law(record: bytes) -> Planck:
    order = _order(record)
    emissivity, distance_m, reflected_k, air_k = struct.unpack_from(order + "4f", record, 0x20)
    (humidity,) = struct.unpack_from(order + "f", record, 0x3C)
    r1, b, f = struct.unpack_from(order + "3f", record, 0x58)
    offset, r2 = struct.unpack_from(order + "if", record, 0x308)
    if not all(math.isfinite(v) and v > 0 for v in (r1, b, r2)):
        raise ValueError(f"constants R1 {r1}, B {b}, R2 {r2}, expected above 0")
    scene = msgspec.convert(
        {
            "emissivity": emissivity,
            "reflected_c": reflected_k - ZERO_C_K,
            "air_c": air_k - ZERO_C_K,
            # Some cameras write per cent.
            "humidity": humidity / (100 if humidity > 2 else 1),
            "distance_m": distance_m,
        },
        Scene,
    )
    return Planck(r1 / r2, b, f, -offset, 1.0, scene)
