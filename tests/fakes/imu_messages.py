"""What inertial sensors send, built from their manuals and not from our parsers.

Each builder takes a tick's number; the values follow from it, so that a test can tell what it got.
"""

from __future__ import annotations

import json
import struct

import numpy as np

G = 9.80665


def values(number: int) -> tuple[float, ...]:
    """ax ay az in m/s^2, gx gy gz in rad/s of a tick, away from each other."""
    phase = number % 50 / 50
    return (0.1 + phase, -0.2 - phase, 9.8, 0.3 + phase, -0.4, 0.5 - phase)


def crc16_ccitt(data: bytes) -> int:
    """Bit by bit, as in VectorNav's manual ("16-bit CRC")."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


def rvc(number: int) -> bytes:
    """BNO08X Data Sheet 1000-3927, "UART-RVC": yaw 1.00, pitch -2.00, roll by number, 1 g on z."""
    body = bytes([number % 256])
    for value in (100, -200, number % 50, 10, -20, 1000):
        body += value.to_bytes(2, "little", signed=True)
    body += bytes(3)
    return b"\xaa\xaa" + body + bytes([sum(body) & 0xFF])


def rvc_values(number: int) -> tuple[float, ...]:
    angles = np.deg2rad([1.0, -2.0, number % 50 / 100])
    return (*angles, 0.01 * G, -0.02 * G, G)


def wit(kind: int, raw: list[int]) -> bytes:
    """WT901 manual, "Communication Protocol": one packet of four int16."""
    packet = bytes([0x55, kind]) + b"".join(v.to_bytes(2, "little", signed=True) for v in raw)
    return packet + bytes([sum(packet) & 0xFF])


def wit_cycle(number: int) -> bytes:
    """Acceleration, angular rate and angle, as the sensor is delivered."""
    v = values(number)
    acceleration = [round(a / G / 16 * 32768) for a in v[:3]]
    rate = [round(np.rad2deg(w) / 2000 * 32768) for w in v[3:]]
    temperature = [2500]
    return (
        wit(0x51, acceleration + temperature)
        + wit(0x52, rate + temperature)
        + wit(0x53, [1, 2, 3, 4])
    )


def xsens(number: int, *, double: bool = False, extended: bool = False) -> bytes:
    """MT Low-Level Communication Protocol, "MTData2": counter, time (10 kHz), acceleration, rate.

    Ticks are 10 ms apart.
    """
    v, code, size, form = values(number), ("d" if double else "f"), (24 if double else 12), 3
    low = form if double else 0
    data = bytes([0x10, 0x20, 2]) + (number % 65536).to_bytes(2, "big")
    data += bytes([0x10, 0x60, 4]) + (number * 100 % 2**32).to_bytes(4, "big")
    data += bytes([0x40, 0x20 | low, size]) + struct.pack(f">3{code}", *v[:3])
    data += bytes([0x80, 0x20 | low, size]) + struct.pack(f">3{code}", *v[3:])
    data += bytes([0xE0, 0x20, 4]) + bytes(4)  # a status word, which is passed over
    length = b"\xff" + len(data).to_bytes(2, "big") if extended else bytes([len(data)])
    body = b"\xff\x36" + length + data
    return b"\xfa" + body + bytes([-sum(body) & 0xFF])


def vectornav(number: int, *, imu: bool = False) -> bytes:
    """VN-100 User Manual, "Binary Output Messages": time, yaw pitch roll, rate, acceleration.

    Ticks are 10 ms apart. With `imu` the field Imu instead of Accel and AngularRate.
    """
    v = values(number)
    time, angles = struct.pack("<Q", number * 10_000_000), bytes(12)
    if imu:
        fields, payload = 1 << 0 | 1 << 3 | 1 << 9, time + angles + struct.pack("<6f", *v)
    else:
        fields = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 8
        payload = time + angles + struct.pack("<3f", *v[3:]) + struct.pack("<3f", *v[:3])
    body = b"\x01" + fields.to_bytes(2, "little") + payload
    return b"\xfa" + body + crc16_ccitt(body).to_bytes(2, "big")


def csv(number: int) -> bytes:
    """g and degree/s, micros() and a counter; as TEXT_CSV says."""
    v = values(number)
    words = [number * 10_000 % 2**32, number % 2**32]
    words += [a / G for a in v[:3]] + [np.rad2deg(w) for w in v[3:]]
    return (",".join(map(repr, map(float, words[:1]))) + f",{words[1]},").encode() + (
        ",".join(repr(float(w)) for w in words[2:]) + "\r\n"
    ).encode()


def json_line(number: int) -> bytes:
    """SI units under names of its own."""
    names = ("accX", "accY", "accZ", "gx", "gy", "gz")
    return (
        json.dumps({**dict(zip(names, values(number), strict=True)), "n": number}) + "\n"
    ).encode()


TEXT_CSV = {
    "columns": ["time", "count", "ax", "ay", "az", "gx", "gy", "gz"],
    "acceleration": "g",
    "angular_rate": "deg/s",
}
TEXT_JSON = {
    "columns": ["ax", "ay", "az", "gx", "gy", "gz", "count"],
    "keys": {"ax": "accX", "ay": "accY", "az": "accZ", "count": "n"},
}

# protocol -> (a tick's bytes, its text format)
MESSAGES = {
    "bno08x_rvc": (rvc, None),
    "witmotion": (wit_cycle, None),
    "xsens": (xsens, None),
    "vectornav": (vectornav, None),
    "csv": (csv, TEXT_CSV),
    "json": (json_line, TEXT_JSON),
}


def expected(protocol: str, number: int) -> tuple[float, ...]:
    return rvc_values(number) if protocol == "bno08x_rvc" else values(number)
