"""V4L2 cameras: what is plugged in, by sysfs and udev's links; no device is opened.

So their modes are not known here: `v4l2-ctl --list-formats-ext -d PATH` lists them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from agent.contracts import Device
from agent.errors import DeviceNotFound
from drivers._camera.source import NOT_ALLOWED

__all__ = ["find_cameras", "only_camera"]

SYSFS = Path("/sys/class/video4linux")
DEV = Path("/dev")
# What NVIDIA's driver calls a CSI sensor: it gives raw Bayer pictures, without the Jetson's ISP.
JETSON_CSI = "vi-output"


def find_cameras(sysfs: Path | None = None, dev: Path | None = None) -> list[Device]:
    """The cameras that are connected, in the order of their numbers.

    sysfs, dev: None for the machine's own /sys/class/video4linux and /dev. A USB camera with a
    serial number that no other has is told by its by-id link; any other by the port it is in.
    """
    sysfs, dev = sysfs or SYSFS, dev or DEV
    nodes = [node for node in sysfs.glob("video*") if _read(node / "index") == "0"]
    nodes.sort(key=lambda node: int(node.name.removeprefix("video")))
    usb = {node.name: _usb(node) for node in nodes}
    count = Counter(usb.values())
    by_id, by_path = _targets(dev / "v4l/by-id"), _targets(dev / "v4l/by-path")
    found = []
    for node in nodes:
        path = dev / node.name
        real = os.path.realpath(path)
        serial = usb[node.name][2]
        setting, by_port, problem = path, True, ""
        # Without a serial number, udev gives the by-id link to whichever twin came last.
        if serial and count[usb[node.name]] == 1 and real in by_id:
            setting, by_port = by_id[real], False
            identity = f"by-id:{setting.name}"
        elif real in by_path:
            setting = by_path[real]
            identity = f"by-path:{setting.name}"
        else:
            identity = f"by-path:{os.path.realpath(node / 'device').rpartition('/')[2]}"
            problem = f"no link in {dev / 'v4l/by-path'}: {path} may be another camera tomorrow"
        name = _read(node / "name") or node.name
        if name.startswith(JETSON_CSI):
            problem = "a CSI sensor, raw: as device give a pipeline that begins nvarguscamerasrc"
        elif not path.exists():
            problem = f"there is no {path}: in a container, start it with --device {path}"
        elif not os.access(path, os.R_OK | os.W_OK):
            problem = f"{path}: {NOT_ALLOWED}"
        found.append(
            Device("camera", name, identity, {"device": str(setting)}, by_port, problem=problem)
        )
    return found


def only_camera(cameras: Sequence[Device], label: str) -> str:
    """The path of the one camera there is. Raises DeviceNotFound, naming each if several."""
    if not cameras:
        raise DeviceNotFound(f"{label}: there is no camera under {DEV}")
    if len(cameras) > 1:
        names = ", ".join(f"{c.settings['device']} ({c.name}, {c.identity})" for c in cameras)
        raise DeviceNotFound(f"{label}: means no one camera of: {names}; name one by its path")
    return str(cameras[0].settings["device"])


def _usb(node: Path) -> tuple[str, str, str]:
    """Vendor, product and serial number of the USB device, "" for what it has not."""
    # `device` is the USB interface, and its parent the device.
    device = Path(os.path.realpath(node / "device")).parent
    vendor, product, serial = (_read(device / name) for name in ("idVendor", "idProduct", "serial"))
    return vendor, product, serial


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there, or unplugged this moment
        return ""


def _targets(folder: Path) -> dict[str, Path]:
    """Real path -> link. udev also makes by-path links of an older form: the first name wins."""
    if not folder.is_dir():
        return {}
    links = sorted(folder.iterdir(), reverse=True)
    return {os.path.realpath(link): link for link in links}
