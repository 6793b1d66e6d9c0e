"""Finding a RealSense device or recording, choosing its modes, and what its profiles tell."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.contracts import Device
from agent.errors import DeviceBusy, DeviceNotFound, DriverError
from agent.types import Extrinsics, Intrinsics

__all__ = [
    "Mode",
    "NotReadable",
    "best_mode",
    "check_file",
    "differences",
    "discovered",
    "extrinsics_of",
    "info_of",
    "intrinsics_of",
    "modes_of",
    "one_line",
    "open_error",
    "set_options",
    "unreadable",
]

FORMATS = {
    "depth": ("z16",),
    "color": ("rgb8", "bgr8"),
    "accel": ("motion_xyz32f",),
    "gyro": ("motion_xyz32f",),
}
PREFERRED = (640, 480, 30)

SYS_USB = Path("/sys/bus/usb/devices")
INTEL = "8086"
PERMISSION = (
    "not allowed: install librealsense's 99-realsense-libusb.rules into /etc/udev/rules.d, or "
    "sudo usermod -aG plugdev,video $USER, and plug it in again"
)
# What the SDK's backends (V4L2, libusb) say; it has no error codes.
DENIED = re.compile(r"permission|access|not permitted", re.IGNORECASE)
BUSY = re.compile(r"busy|in use|claimed|failed to set power state", re.IGNORECASE)


@dataclass(frozen=True)
class Mode:
    """One stream profile that can be had. sensor: its index; width, height: 0 for motion."""

    sensor: int
    profile: Any
    format: str
    width: int
    height: int
    rate_hz: int

    def __str__(self) -> str:
        size = f"{self.width}x{self.height} " if self.width else ""
        return f"{size}{self.rate_hz} Hz"


@dataclass(frozen=True)
class NotReadable:
    """A RealSense that is on the USB bus and that the SDK does not list."""

    name: str
    port: str


def one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())


def open_error(label: str, exc: Exception) -> DriverError:
    """The SDK's RuntimeError as the error of a failed connect."""
    reason = one_line(exc)
    if DENIED.search(reason):
        return DeviceNotFound(f"{label}: {PERMISSION} ({reason})")
    if BUSY.search(reason):
        return DeviceBusy(f"{label}: is in use by another program ({reason})")
    return DeviceNotFound(f"{label}: cannot be opened ({reason})")


def info_of(rs: Any, device: Any, what: str) -> str:
    """A piece of rs.camera_info, "" where the device does not tell it."""
    key = getattr(rs.camera_info, what)
    return str(device.get_info(key)) if device.supports(key) else ""


def modes_of(sensors: Sequence[Any]) -> dict[str, list[Mode]]:
    """Every usable mode by kind: depth, color, accel, gyro. Opens nothing."""
    modes: dict[str, list[Mode]] = {}
    for index, sensor in enumerate(sensors):
        for profile in sensor.get_stream_profiles():
            kind, fmt = profile.stream_type().name, profile.format().name
            if fmt not in FORMATS.get(kind, ()):
                continue
            width = height = 0
            if profile.is_video_stream_profile():
                video = profile.as_video_stream_profile()
                width, height = video.width(), video.height()
            mode = Mode(index, profile, fmt, width, height, profile.fps())
            modes.setdefault(kind, []).append(mode)
    return modes


def best_mode(modes: Sequence[Mode], asked: Mapping[str, float | None]) -> tuple[Mode, list[str]]:
    """The mode nearest to what is asked (width, height, rate_hz), and where it differs.

    Of equals the SDK's own default, then 640 x 480 at 30 Hz.
    """
    wanted = {field: value for field, value in asked.items() if value is not None}

    def rank(mode: Mode) -> tuple[float, ...]:
        off = [abs(getattr(mode, field) / value - 1) for field, value in wanted.items()]
        size = (mode.width, mode.height, mode.rate_hz)
        preferred = sum(abs(a - b) for a, b in zip(size, PREFERRED, strict=True))
        kind = mode.profile.stream_type().name
        default = not mode.profile.is_default()
        return (sum(off), default, preferred, FORMATS[kind].index(mode.format))

    best = min(modes, key=rank)
    told = [
        f"{field}: asked {value:g}, got {getattr(best, field)}"
        for field, value in wanted.items()
        if getattr(best, field) != value
    ]
    return best, told


def differences(mode: Mode, profile: Any) -> list[str]:
    """Where a frame's own profile is not the mode that its sensor was opened with."""
    got = {"rate_hz": profile.fps()}
    if mode.width:
        video = profile.as_video_stream_profile()
        got |= {"width": video.width(), "height": video.height()}
    return [
        f"{field}: opened with {getattr(mode, field)}, gives {value}"
        for field, value in got.items()
        if value != getattr(mode, field)
    ]


def set_options(
    rs: Any, sensors: Sequence[Any], emitter: bool | None, laser_power_mw: float | None
) -> list[str]:
    """Set what is not None, within its range; read it back, and tell where it differs.

    Stamps are set to the device's own clock: the agent maps it itself, and knows how well.
    """
    _set_option(sensors, rs.option.global_time_enabled, 0.0)
    told = []
    for field, option, asked in (
        ("emitter", rs.option.emitter_enabled, emitter),
        ("laser_power_mw", rs.option.laser_power, laser_power_mw),
    ):
        if asked is not None:
            got = _set_option(sensors, option, float(asked))
            if got != {float(asked)}:
                values = ", ".join(f"{value:g}" for value in sorted(got)) or "no such option"
                told.append(f"{field}: asked {float(asked):g}, got {values}")
    return told


def intrinsics_of(profile: Any) -> Intrinsics:
    """Of a video profile, with the lens model by librealsense's name of it."""
    lens = profile.as_video_stream_profile().get_intrinsics()
    model = "" if lens.model.name == "none" else lens.model.name
    return Intrinsics(
        lens.width,
        lens.height,
        lens.fx,
        lens.fy,
        lens.ppx,
        lens.ppy,
        distortion=model,
        coefficients=tuple(lens.coeffs) if model else (),
    )


def extrinsics_of(profile: Any, root: Any, parent: str) -> Extrinsics | None:
    """Where the sensor of `profile` sits, told in the frame of `root`; None where not known.

    librealsense gives metres and a rotation by columns (rs2_extrinsics in rs_sensor.h).
    """
    try:
        place = profile.get_extrinsics_to(root)
    except RuntimeError:
        return None
    r, t = place.rotation, place.translation
    rotation = (r[0], r[3], r[6], r[1], r[4], r[7], r[2], r[5], r[8])
    return Extrinsics(parent, rotation, (t[0] * 1000, t[1] * 1000, t[2] * 1000))


def unreadable(listed: set[str]) -> list[NotReadable]:
    """RealSense devices on the USB bus that none of the `listed` serial numbers is of.

    The bus tells the ASIC's serial number.
    """
    found = []
    for folder in sorted(SYS_USB.glob("*")):
        product = _text(folder / "product")
        if _text(folder / "idVendor") != INTEL or "realsense" not in product.lower():
            continue
        if _text(folder / "serial") not in listed:
            found.append(NotReadable(product, folder.name))
    return found


def check_file(label: str, path: Path) -> None:
    """Raises DeviceNotFound where `path` is no file that may be read."""
    if not path.is_file():
        raise DeviceNotFound(f"{label}: there is no such file")
    if not os.access(path, os.R_OK):
        raise DeviceNotFound(f"{label}: {os.strerror(errno.EACCES)}: check the file's owner")


def discovered(rs: Any) -> list[Device]:
    """Every RealSense that is connected; one that the SDK cannot read with what to do."""
    found: list[Device] = []
    listed: set[str] = set()
    for device in rs.context().query_devices():
        serial, usb = (
            info_of(rs, device, "serial_number"),
            info_of(rs, device, "usb_type_descriptor"),
        )
        listed |= {serial, info_of(rs, device, "asic_serial_number")}
        modes, problem = [f"USB {usb}"] if usb else [], ""
        try:
            for kind, each in modes_of(device.query_sensors()).items():
                modes += dict.fromkeys(f"{kind} {mode}" for mode in each)
        except RuntimeError as exc:
            problem = str(open_error("realsense", exc))
        found.append(
            Device(
                kind="realsense",
                name=info_of(rs, device, "name"),
                identity=f"serial:{serial}",
                settings={"serial": serial},
                modes=tuple(modes),
                problem=problem,
            )
        )
    for other in unreadable(listed):
        port = f"by-path:usb-{other.port}"
        found.append(Device("realsense", other.name, port, by_port=True, problem=PERMISSION))
    return found


def _set_option(sensors: Sequence[Any], option: Any, value: float) -> set[float]:
    """What the sensors that have the option then have it at."""
    got = set()
    for sensor in sensors:
        if sensor.supports(option) and not sensor.is_option_read_only(option):
            span = sensor.get_option_range(option)
            sensor.set_option(option, min(max(value, span.min), span.max))
            got.add(float(sensor.get_option(option)))
    return got


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
