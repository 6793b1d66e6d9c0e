"""A radiometric JPEG as FLIR's cameras write it, by the layout that ExifTool documents."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["CAMERA", "radiometric_jpeg"]

CAMERA: Mapping[str, float] = {
    "emissivity": 0.95,
    "distance_m": 1.0,
    "reflected_k": 293.15,
    "air_k": 293.15,
    "humidity": 0.5,
    "r1": 21106.77,
    "b": 1501.0,
    "f": 1.0,
    "o": -7340,
    "r2": 0.012545258,
}
"""The constants are of the order of a real E-series camera's."""


def radiometric_jpeg(
    counts: NDArray[np.uint16],
    stored: str,
    order: str = "<",
    camera: Mapping[str, float] = CAMERA,
    segment_bytes: int = 60_000,
) -> bytes:
    """stored: "raw", "png", or "swapped" (a PNG with the bytes of its pixels the wrong way round)
    as most cameras write it. order: of the records.
    """
    height, width = counts.shape
    if stored == "raw":
        pixels = counts.astype(order + "u2").tobytes()
    else:
        written = counts.byteswap() if stored == "swapped" else counts
        buffer = io.BytesIO()
        Image.fromarray(written).save(buffer, "PNG")
        pixels = buffer.getvalue()
    raw = struct.pack(order + "HHH26x", 2, width, height) + pixels
    info = bytearray(0x400)
    struct.pack_into(order + "H", info, 0, 2)
    c = camera
    struct.pack_into(
        order + "4f", info, 0x20, c["emissivity"], c["distance_m"], c["reflected_k"], c["air_k"]
    )
    struct.pack_into(order + "f", info, 0x3C, c["humidity"])
    struct.pack_into(order + "3f", info, 0x58, c["r1"], c["b"], c["f"])
    struct.pack_into(order + "if", info, 0x308, int(c["o"]), c["r2"])
    records = [(0x01, raw), (0x20, bytes(info))]
    at = 0x40 + 32 * len(records)
    directory, bodies = b"", b""
    for kind, body in records:
        directory += struct.pack(">HHIIIIIII", kind, 1, 100, 0, at, len(body), 0, 0, 0)
        at, bodies = at + len(body), bodies + body
    head = struct.pack(">4s16sIII", b"FFF\0", b"made for a test", 101, 0x40, len(records))
    fff = head.ljust(0x40, b"\0") + directory + bodies
    parts = [fff[n : n + segment_bytes] for n in range(0, len(fff), segment_bytes)]
    segments = b""
    for number, part in enumerate(parts):
        body = b"FLIR\0" + bytes((1, number, len(parts) - 1)) + part
        segments += struct.pack(">BBH", 0xFF, 0xE1, len(body) + 2) + body
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (10, 60, 160)).save(buffer, "JPEG")
    visible = buffer.getvalue()
    return visible[:2] + segments + visible[2:]
