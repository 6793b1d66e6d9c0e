"""A RealSense camera that is librealsense's own software_device, live or recorded to a file.

Only the hardware is made up: sensors, frames, recorder and playback are those of the SDK.
`software_device.add_to` does nothing in Python, so that `DeviceList` stands in for a context.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyrealsense2 as rs

__all__ = ["BASELINE_M", "DeviceList", "Event", "RealSense", "events"]

BASELINE_M = 0.015
GYRO_HZ, ACCEL_HZ, VIDEO_HZ = 200, 100, 30
KINDS = ("depth", "colour", "accel", "gyro")


@dataclass(frozen=True)
class Event:
    """What one sensor gives: when, by its own clock, with which frame number."""

    t_ms: float
    kind: str
    number: int
    data: np.ndarray


def events(
    seconds: float,
    size: tuple[int, int] = (64, 48),
    *,
    kinds: Iterable[str] = KINDS,
    start_ms: float = 5000.0,
    flat: bool = False,
    seed: int = 0,
) -> Iterator[Event]:
    """Frames of the kinds at true rates, in the order of their stamps, numbered from 1.

    Depth and colour are noise, depth with about a tenth of holes, or where `flat` one value.
    Accelerometer: x counts the seconds since `start_ms`, so that its interpolation is known.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    rates = {"depth": VIDEO_HZ, "colour": VIDEO_HZ, "accel": ACCEL_HZ, "gyro": GYRO_HZ}
    due = sorted(
        (k / rates[kind], kind, k) for kind in kinds for k in range(round(seconds * rates[kind]))
    )
    for t_s, kind, k in due:
        if kind == "depth":
            data = np.full((height, width), 1000 + k, np.uint16)
            if not flat:
                data = rng.integers(300, 65535, (height, width), np.uint16)
                data[rng.random((height, width)) < 0.1] = 0
        elif kind == "colour":
            data = np.full((height, width, 3), k % 256, np.uint8)
            if not flat:
                data = rng.integers(0, 256, (height, width, 3), np.uint8)
        elif kind == "accel":
            data = np.array([t_s, 9.81, -1.0], np.float32)
        else:
            data = np.array([k, 0.5 * k, -k], np.float32)
        yield Event(start_ms + t_s * 1000, kind, k + 1, data)


@dataclass
class RealSense:
    """One camera. units: metres a step of depth. domain: what its stamps are said to count."""

    serial: str = "f000001"
    size: tuple[int, int] = (64, 48)
    units: float = 0.001
    kinds: tuple[str, ...] = KINDS
    domain: Any = field(default_factory=lambda: rs.timestamp_domain.hardware_clock)

    def __post_init__(self) -> None:
        width, height = self.size
        self.device = device = rs.software_device()
        for what, value in (
            ("name", "Intel RealSense D435I"),
            ("serial_number", self.serial),
            ("usb_type_descriptor", "3.2"),
        ):
            device.register_info(getattr(rs.camera_info, what), value)
        self._sensors: dict[str, Any] = {}
        self._profiles: dict[str, Any] = {}
        for uid, kind in enumerate(("depth", "colour"), 1):
            if kind not in self.kinds:
                continue
            sensor = device.add_sensor("Stereo Module" if kind == "depth" else "RGB Camera")
            stream = rs.video_stream()
            stream.type = rs.stream.depth if kind == "depth" else rs.stream.color
            stream.fmt = rs.format.z16 if kind == "depth" else rs.format.rgb8
            stream.uid, stream.width, stream.height, stream.fps = uid, width, height, VIDEO_HZ
            stream.bpp = 2 if kind == "depth" else 3
            lens = rs.intrinsics()
            lens.width, lens.height, lens.fx, lens.fy = width, height, width * 0.9, width * 0.9
            lens.ppx, lens.ppy = width / 2 + uid, height / 2
            lens.model = rs.distortion.inverse_brown_conrady
            lens.coeffs = [0.0, 0.0, 0.0, 0.0, 0.0] if kind == "depth" else [0.1, -0.2, 0, 0, 0.05]
            stream.intrinsics = lens
            self._sensors[kind] = sensor
            self._profiles[kind] = sensor.add_video_stream(stream, True).as_video_stream_profile()
            if kind == "depth":
                sensor.add_read_only_option(rs.option.depth_units, self.units)
        if {"accel", "gyro"} & set(self.kinds):
            sensor = device.add_sensor("Motion Module")
            for uid, kind in enumerate(("accel", "gyro"), 3):
                if kind not in self.kinds:
                    continue
                stream = rs.motion_stream()
                stream.type, stream.uid = getattr(rs.stream, kind), uid
                stream.fmt = rs.format.motion_xyz32f
                stream.fps = ACCEL_HZ if kind == "accel" else GYRO_HZ
                self._sensors[kind] = sensor
                added = sensor.add_motion_stream(stream, kind == "accel")
                self._profiles[kind] = added.as_motion_stream_profile()
        root = self._profiles.get("depth")
        for kind, profile in self._profiles.items():
            if root is not None and kind != "depth":
                place = rs.extrinsics()
                place.rotation = (
                    [0, 1, 0, -1, 0, 0, 0, 0, 1] if kind != "colour" else np.eye(3).ravel()
                )
                place.translation = [BASELINE_M, 0.0, 0.0]
                profile.register_extrinsics_to(root, place)
        device.create_matcher(rs.matchers.default)

    def add_option(self, kind: str, option: Any, span: Any) -> None:
        """One that may be set, on the sensor of that kind."""
        self._sensors[kind].add_option(option, span, True)

    def give(self, event: Event) -> None:
        """The hardware has a frame: the sensor passes it on if it was started."""
        sensor, profile = self._sensors[event.kind], self._profiles[event.kind]
        if event.kind in ("accel", "gyro"):
            frame = rs.software_motion_frame()
            vector = rs.vector()
            vector.x, vector.y, vector.z = map(float, event.data)
            frame.data = vector  # a copy is kept
        else:
            frame = rs.software_video_frame()
            frame.pixels = event.data
            frame.bpp = 2 if event.kind == "depth" else 3
            frame.stride = event.data.shape[1] * frame.bpp
            frame.depth_units = self.units
        frame.timestamp, frame.domain = event.t_ms, self.domain
        frame.frame_number, frame.profile = event.number, profile
        if event.kind in ("accel", "gyro"):
            sensor.on_motion_frame(frame)
        else:
            sensor.on_video_frame(frame)

    def record(self, path: Path, given: Iterable[Event]) -> None:
        """Write the events to a file of the SDK's format (.db3 since 2.58)."""
        recorder = rs.recorder(str(path), self.device)
        sensors = recorder.query_sensors()
        for sensor in sensors:
            sensor.open(sensor.get_stream_profiles())
            sensor.start(lambda frame: None)
        for event in given:
            self.give(event)
        for sensor in sensors:
            sensor.stop()
            sensor.close()
        # The file is whole only once the recorder and all that refers to it are gone.
        del sensor, sensors, recorder
        gc.collect()


@dataclass
class DeviceList:
    """What of rs.context the driver uses, over cameras that can be pulled out."""

    cameras: list[RealSense]
    on_query: Callable[[], None] = lambda: None

    def query_devices(self) -> list[Any]:
        self.on_query()
        return [camera.device for camera in self.cameras]
