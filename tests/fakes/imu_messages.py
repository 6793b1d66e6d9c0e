"""What inertial sensors send, built from their manuals and not from our parsers.

Each builder takes a tick's number; the values follow from it, so that a test can tell what it got.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial

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


def wit_cycle(number: int, *, range_g: float = 16, range_dps: float = 2000) -> bytes:
    """Acceleration, angular rate and angle; the ranges are those the sensor is delivered with."""
    v = values(number)
    acceleration = [round(a / G / range_g * 32768) for a in v[:3]]
    rate = [round(np.rad2deg(w) / range_dps * 32768) for w in v[3:]]
    temperature = [2500]
    return (
        wit(0x51, acceleration + temperature)
        + wit(0x52, rate + temperature)
        + wit(0x53, [1, 2, 3, 4])
    )


def xsens(
    number: int, *, double: bool = False, extended: bool = False, rate_hz: int = 100
) -> bytes:
    """MT Low-Level Communication Protocol, "MTData2": counter, time (10 kHz), vectors, status."""
    v, code, size, form = values(number), ("d" if double else "f"), (24 if double else 12), 3
    low = form if double else 0
    data = bytes([0x10, 0x20, 2]) + (number % 65536).to_bytes(2, "big")
    data += bytes([0x10, 0x60, 4]) + (number * 10_000 // rate_hz % 2**32).to_bytes(4, "big")
    data += bytes([0x40, 0x20 | low, size]) + struct.pack(f">3{code}", *v[:3])
    data += bytes([0x80, 0x20 | low, size]) + struct.pack(f">3{code}", *v[3:])
    data += bytes([0xE0, 0x20, 4]) + bytes(4)  # a status word, which is passed over
    length = b"\xff" + len(data).to_bytes(2, "big") if extended else bytes([len(data)])
    body = b"\xff\x36" + length + data
    return b"\xfa" + body + bytes([-sum(body) & 0xFF])


def vectornav(number: int, *, form: str = "common", rate_hz: int = 100) -> bytes:
    """VN-100 and VN-200 User Manual, "Binary Output Messages" and the tables of the groups.

    form: which fields the sensor is set to send; in each there are others around those of use.
    """
    v = values(number)
    time = struct.pack("<Q", number * 1_000_000_000 // rate_hz)
    acceleration, rate = struct.pack("<3f", *v[:3]), struct.pack("<3f", *v[3:])
    angles, temperature_pressure = bytes(12), bytes(8)
    # Groups, then the fields of each: of the common group time 0, angles 3, rate 5, acceleration 8,
    # both as measured 9; of the time group time 0, GPS time 1; of the IMU group status 0,
    # magnetometer 1, as measured 2 and 3, temperature and pressure 4 and 5, acceleration 9, rate
    # 10; of the attitude group status 0, angles 1, matrix 3; of INS status 0, position 1.
    body = {
        "common": (1, (1 << 0 | 1 << 3 | 1 << 5 | 1 << 8,), time + angles + rate + acceleration),
        "imu": (1, (1 << 0 | 1 << 3 | 1 << 9,), time + angles + acceleration + rate),
        "groups": (
            0b110110,
            (1 << 0 | 1 << 1, 1 << 0 | 1 << 9 | 1 << 10, 1 << 1 | 1 << 3, 1 << 0 | 1 << 1),
            time + bytes(8) + bytes(2) + acceleration + rate + angles + bytes(36) + bytes(26),
        ),
        "raw": (
            0b110,
            (1 << 0, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5),
            time + bytes(12) + acceleration + rate + temperature_pressure,
        ),
    }[form]
    groups, fields, payload = body
    sent = bytes([groups]) + b"".join(f.to_bytes(2, "little") for f in fields) + payload
    return b"\xfa" + sent + crc16_ccitt(sent).to_bytes(2, "big")


def csv(number: int, *, rate_hz: int = 100) -> bytes:
    """g and degree/s, micros() and a counter; as TEXT_CSV says."""
    v = values(number)
    words = [number * 1_000_000 // rate_hz % 2**32, number % 2**32]
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

# Those that send a device's stamp, and those that number their messages.
DEVICE_CLOCK = ("csv", "vectornav", "xsens")
NUMBERED = ("bno08x_rvc", "csv", "json", "witmotion", "xsens")

# protocol -> (a tick's bytes, its text format)
MESSAGES = {
    "bno08x_rvc": (rvc, None),
    "witmotion": (wit_cycle, None),
    "xsens": (xsens, None),
    "vectornav": (vectornav, None),
    "csv": (csv, TEXT_CSV),
    "json": (json_line, TEXT_JSON),
}


def at_rate(protocol: str, rate_hz: int) -> Callable[[int], bytes]:
    """Messages of which the device's clock, where it has one, says that they are as far apart."""
    message = MESSAGES[protocol][0]
    return partial(message, rate_hz=rate_hz) if protocol in DEVICE_CLOCK else message


def expected(protocol: str, number: int) -> tuple[float, ...]:
    return rvc_values(number) if protocol == "bno08x_rvc" else values(number)
