"""Parsers of what inertial sensors send over a serial line, one module a protocol."""

from __future__ import annotations

from drivers.imu_protocols.base import (
    DEGREE,
    IMU_CHANNELS,
    STANDARD_GRAVITY,
    Decoder,
    FrameDecoder,
    Reading,
)
from drivers.imu_protocols.bno08x_rvc import Bno08xRvc
from drivers.imu_protocols.text import CsvLines, JsonLines, TextFormat
from drivers.imu_protocols.vectornav import VectorNav
from drivers.imu_protocols.witmotion import WitMotion
from drivers.imu_protocols.xsens import Xsens

__all__ = [
    "DEGREE",
    "IMU_CHANNELS",
    "STANDARD_GRAVITY",
    "Bno08xRvc",
    "CsvLines",
    "Decoder",
    "FrameDecoder",
    "JsonLines",
    "Reading",
    "TextFormat",
    "VectorNav",
    "WitMotion",
    "Xsens",
]
