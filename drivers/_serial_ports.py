"""USB serial ports: what is plugged in, which one a config means, and opening it, by pyserial.

A UART on the board has no identity of its own and is never looked for: a config names its path.
"""

from __future__ import annotations

import errno
import os
import termios
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import DeviceBusy, DeviceNotFound

if TYPE_CHECKING:
    import serial

__all__ = ["SerialPort", "find_ports", "one_line", "open_port", "resolve"]

SERIAL_LINKS = Path("/dev/serial")  # by-id and by-path, which udev keeps
NOT_ALLOWED = "not allowed; join its group: sudo usermod -aG dialout $USER"
TRIES = 3


@dataclass(frozen=True)
class SerialPort:
    """A USB serial port as it is now.

    setting: what a config's `port` says to mean this one. path: of its device file. identity,
    by_port, problem: as in agent.contracts.Device. vid, pid: the USB vendor and product.
    """

    setting: str
    path: str
    name: str
    identity: str
    by_port: bool
    vid: int
    pid: int
    serial_number: str | None
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.identity}, {self.name})"


def find_ports(links: Path | None = None) -> list[SerialPort]:
    """The USB serial ports, in the order of their names; none is opened.

    links: the folder of udev's by-id and by-path. A serial number that one USB device alone has is
    its identity; the ports of a device with several are told by their by-id names. Without a
    serial number, or with one that others have too, only the socket it is plugged into tells.
    ImportError without pyserial.
    """
    listed = _listed()
    folder = SERIAL_LINKS if links is None else links
    by_id, by_path = _targets(folder / "by-id"), _targets(folder / "by-path")
    numbers = Counter(p.serial_number for p in listed)
    sockets = Counter({(p.serial_number, _socket(p)) for p in listed})
    devices = Counter(number for number, _ in sockets)
    found = []
    for port in listed:
        number, real = port.serial_number, os.path.realpath(port.device)
        by_port, problem = False, ""
        if number and numbers[number] == 1:
            identity, setting = f"serial:{number}", f"usb:{number}"
        elif number and devices[number] == 1 and real in by_id:
            identity, setting = f"by-id:{by_id[real].name}", str(by_id[real])
        elif real in by_path:
            identity, setting, by_port = f"by-path:{by_path[real].name}", str(by_path[real]), True
        else:
            identity, setting, by_port = f"by-path:usb-{port.location}", port.device, True
            problem = f"no link in {folder / 'by-path'}: {port.device} may be another one tomorrow"
        if not os.access(port.device, os.R_OK | os.W_OK):
            problem = f"{port.device}: {NOT_ALLOWED}"
        name = str(port.description)
        found.append(
            SerialPort(
                setting, port.device, name, identity, by_port, port.vid, port.pid, number, problem
            )
        )
    return found


def resolve(
    setting: str, label: str, accept: Callable[[SerialPort], bool] = lambda port: True
) -> str:
    """The path of the port that `setting` means, and no guess where it means several.

    setting: a path, "usb:" and a USB serial number, or "auto" for the only USB serial port that
    `accept` says yes to. label: begins each message. Raises DeviceNotFound, naming each that is
    meant where there are several.
    """
    if setting != "auto" and not setting.startswith("usb:"):
        return setting
    ports: Sequence[SerialPort] = find_ports()
    if setting == "auto":
        ports = [port for port in ports if accept(port)]
    else:
        ports = [port for port in ports if port.serial_number == setting.removeprefix("usb:")]
    if len(ports) == 1:
        return ports[0].path
    if not ports:
        raise DeviceNotFound(
            f"{label}: there is no such USB serial port; plug it in, or name one by its path"
        )
    raise DeviceNotFound(
        f"{label}: means no one port of: {', '.join(map(str, ports))}; name one by its path under "
        "/dev/serial/by-id or by-path"
    )


def open_port(path: str, baud: int, label: str) -> serial.Serial:
    """The port at `path`, for this program alone, 8 bits without parity.

    Raises DeviceBusy, DeviceNotFound (no such port, not allowed, not a serial port).
    """
    import serial

    try:
        return serial.Serial(path, baud, exclusive=True)
    except (serial.SerialException, ValueError, termios.error) as exc:
        code = getattr(exc, "errno", None)
        if code in (errno.EBUSY, errno.EWOULDBLOCK):
            raise DeviceBusy(f"{label}: {path} is in use by another program") from exc
        reason = one_line(exc)
        if code in (errno.EACCES, errno.EPERM):
            reason = NOT_ALLOWED
        elif code == errno.ENOENT:
            reason = "there is no such port"
        raise DeviceNotFound(f"{label}: {path} cannot be opened ({reason})") from exc


def one_line(exc: Exception) -> str:
    """What `exc` says, without line breaks."""
    return " ".join(str(exc).split())


def _listed() -> list[Any]:
    from serial.tools import list_ports

    for _ in range(TRIES):
        # pyserial parses what is no more there when one is unplugged while it looks.
        with suppress(TypeError):
            return sorted(port for port in list_ports.comports() if port.vid is not None)
    return []


def _socket(port: Any) -> str:
    """Where the USB device is plugged in, without the interface: "1-1.2:1.0" -> "1-1.2"."""
    return str(port.location).partition(":")[0]


def _targets(folder: Path) -> dict[str, Path]:
    """Real path -> link. udev also makes by-path links of an older form: the first name wins."""
    if not folder.is_dir():
        return {}
    links = sorted(folder.iterdir(), reverse=True)
    return {os.path.realpath(link): link for link in links}
