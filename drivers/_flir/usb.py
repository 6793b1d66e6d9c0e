"""Bosons and PureThermal boards on USB: which are there, and which one a config means."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.contracts import Device
from agent.errors import DeviceNotFound
from agent.extras import needs_extra
from drivers._serial_ports import SerialPort, find_ports

__all__ = ["discover_uvc", "find_video", "is_boson", "why_not"]

SYS_VIDEO = Path("/sys/class/video4linux")
SYS_TTY = Path("/sys/class/tty")
V4L_LINKS = Path("/dev/v4l/by-path")
DEV = Path("/dev")
USB_IDS = {"boson": ("09cb", "4007"), "lepton": ("1e4e", "0100")}
NAMES = {"boson": "FLIR Boson", "lepton": "FLIR Lepton (PureThermal)"}
NOT_ALLOWED = "not allowed; join its group: sudo usermod -aG video $USER"


def find_video(wanted: str, kind: str, label: str) -> str:
    """The path of the video device that a config's `device` means, of one kind of USB_IDS.

    Raises DeviceNotFound, naming each where it means several.
    """
    if wanted.isdecimal():
        return str(DEV / f"video{wanted}")
    if wanted != "auto" and not wanted.startswith("usb:"):
        return wanted
    found = [
        node
        for node in _nodes()
        if node.kind == kind and wanted in ("auto", f"usb:{node.serial_number}")
    ]
    if len(found) == 1:
        return str(found[0].path)
    if not found:
        raise DeviceNotFound(f"{label}: no {NAMES[kind]} answers to {wanted!r}")
    several = ", ".join(f"{node.path} ({node.identity})" for node in found)
    raise DeviceNotFound(
        f"{label}: {wanted!r} means no one camera of: {several}; name one by its path under "
        f"{V4L_LINKS}"
    )


@dataclass(frozen=True)
class _Node:
    """A capture device of the kernel. link: udev's name for the socket it is plugged into."""

    kind: str
    path: Path
    serial_number: str
    socket: str
    link: Path | None

    @property
    def identity(self) -> str:
        return f"serial:{self.serial_number}" if self.serial_number else f"by-path:{self.socket}"


def discover_uvc() -> Sequence[Device]:
    """Bosons and PureThermal boards by their USB ids, none of them opened; a Boson's control port
    with it. ConfigError without pyserial where there is one.
    """
    nodes = _nodes()
    numbers = Counter(node.serial_number for node in nodes)
    if any(node.kind == "boson" for node in nodes):
        with needs_extra("flir"):
            ports = [port for port in find_ports() if is_boson(port)]
    devices = []
    for node in nodes:
        by_port = not node.serial_number or numbers[node.serial_number] > 1
        link = node.link or node.path
        settings: dict[str, object] = {
            "device": str(link) if by_port else f"usb:{node.serial_number}"
        }
        problem = "" if os.access(node.path, os.R_OK | os.W_OK) else f"{node.path}: {NOT_ALLOWED}"
        if node.kind == "boson":
            mine = [port for port in ports if port.serial_number == node.serial_number]
            if by_port or len(mine) != 1:
                mine = [port for port in ports if _socket_of(port) == node.socket]
            settings["port"] = mine[0].setting if len(mine) == 1 else None
            problem = problem or "".join(port.problem for port in mine[:1])
        identity = f"by-path:{link.name}" if by_port else node.identity
        devices.append(
            Device(
                kind="flir",
                name=NAMES[node.kind],
                identity=identity,
                settings={"source": node.kind, node.kind: settings},
                by_port=by_port,
                modes=("Y16 over UVC",),
                problem=problem,
            )
        )
    return devices


def _nodes() -> list[_Node]:
    """The video devices of known USB ids: the first node of each, the others are metadata."""
    links = {os.path.realpath(link): link for link in _entries(V4L_LINKS)}
    found = []
    for entry in _entries(SYS_VIDEO):
        usb = (entry / "device").resolve().parent
        ids = (_line(usb / "idVendor"), _line(usb / "idProduct"))
        kind = next((kind for kind, known in USB_IDS.items() if known == ids), None)
        if kind is None or _line(entry / "index") not in ("", "0"):
            continue
        path = DEV / entry.name
        link = links.get(os.path.realpath(path))
        found.append(_Node(kind, path, _line(usb / "serial"), usb.name, link))
    return found


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def is_boson(port: SerialPort) -> bool:
    """Whether it is a Boson's control port, by its USB ids."""
    return (f"{port.vid:04x}", f"{port.pid:04x}") == USB_IDS["boson"]


def _socket_of(port: SerialPort) -> str:
    """The USB device's name in sysfs, as "1-1.2", of a port that has no number of its own."""
    tty = SYS_TTY / Path(os.path.realpath(port.path)).name / "device"
    return tty.resolve().parent.name


def why_not(path: str) -> str:
    """What may keep a video device from being opened."""
    if not Path(path).exists():
        return f"there is no {path}"
    if not os.access(path, os.R_OK | os.W_OK):
        return NOT_ALLOWED
    return "in use by another program, or not a camera"
