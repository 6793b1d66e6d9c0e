"""All five kinds of devices in one agent, each killed once, in a minute; for ten minutes and the
figures: python -m tests.soak.five_devices.
"""

from __future__ import annotations

import importlib.util
import shutil
from typing import Any

import pytest

from tests.fakes.gige_camera import PROGRAM
from tests.fakes.pulse import why_not

SECONDS, PERIOD_S, SETTLE_S = 48, 30, 8


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    missing = [
        m
        for m in ("cv2", "pyrealsense2", "pyGigEVision", "serial", "imufusion")
        if importlib.util.find_spec(m) is None
    ]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: pip install 'sensebind[camera,realsense,flir,imu]'")
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"no {PROGRAM}: apt install aravis-tools")
    from tests.soak.five_devices import run

    return run(SECONDS, PERIOD_S, SETTLE_S)


def test_each_device_that_was_killed_came_back(figures: dict[str, Any]) -> None:
    for name, driver in figures["drivers"].items():
        assert driver["killed"] == driver["came_back"] == 1, name


def test_devices_lose_nothing_by_the_death_of_others(figures: dict[str, Any]) -> None:
    streams = figures["streams"]
    # GigE datagrams that a busy machine drops cost their frames, and a camera's pictures that queue
    # up are dropped: both are counted, and neither is anybody's death.
    for name in ("microphone", "imu", "realsense_depth", "realsense_colour", "realsense_imu"):
        # None with the machine to itself (docs/devices.md). What its process tells the agent goes
        # through a socket that is full after some 2 s, which a machine with five times the work
        # that it can do kept the agent from its turn: 0.6 % were lost, and counted.
        assert streams[name]["lost"] < 0.02 * streams[name]["ticks"], name
    for name, stream in streams.items():
        assert stream["hz"] == pytest.approx(stream["nominal_hz"], rel=0.15), name


def test_stamps_are_those_of_the_devices(figures: dict[str, Any]) -> None:
    for name, stream in figures["streams"].items():
        # Milliseconds on a machine with nothing else to do: docs/devices.md.
        assert abs(stream["error_ms_p50"]) < 100, name


def test_nothing_is_left_open(figures: dict[str, Any]) -> None:
    before, after = figures["before"], figures["after"]
    assert after["threads"] <= before["threads"]
    assert after["descriptors"] <= before["descriptors"]
    assert after["processes"] == before["processes"] == 2  # the isolated ones
    assert after["private_mb"] < before["private_mb"] + 30
    assert figures["bus_gaps"] == {}
