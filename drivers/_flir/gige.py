"""A GigE Vision camera: FLIR's A series, and any other that gives Mono8 to Mono16.

Control is pyGigEVision's; frames are put together in _flir/gvsp.py, and nodes found in
_flir/genicam.py. docs/adr/0010-gige-vision.md says why.
"""

from __future__ import annotations

import io
import socket
import zipfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from agent.clock import NS_PER_S, Clock, from_s, to_s
from agent.contracts import Device
from agent.errors import DeviceBusy, DeviceLost, DeviceNotFound, ReadTimeout
from agent.extras import needs_extra
from agent.radiometry import Linear, Planck, Scene, ToCelsius
from agent.types import Settings
from drivers._flir.frames import Frame
from drivers._flir.genicam import NodeMap
from drivers._flir.gvsp import Assembler

if TYPE_CHECKING:
    from pyGigEVision import GVCPClient

__all__ = ["GigeConfig", "GigeSource", "discover_gige"]

# GigE Vision's bootstrap registers that pyGigEVision has no names for.
REG_TICK_HZ_HIGH, REG_TICK_HZ_LOW = 0x093C, 0x0940
# Bit 1 counted from the highest, as the standard counts; the library's constant counts otherwise.
DO_NOT_FRAGMENT = 1 << 30
URL_BYTES = 512
GVCP_PORT = 3956
HEARTBEAT_MS = 3000  # the library asks every 2 s
IN_CONTROL = 0x02
ACCESS_DENIED = 0x8006
# One command is answered within a millisecond or lost. The library's own 3 x 0.5 s, also for each
# step of hanging up, makes a camera that is gone take longer to notice than one may be away.
TRY_S, TRIES = 0.2, 2
SOCKET_BYTES = 1 << 23  # of the kernel's queue, as far as net.core.rmem_max allows: some frames
DISCOVERY_S = 0.5
MAX_DATAGRAM = 1 << 16


class GigeConfig(Settings, frozen=True, kw_only=True):
    """address: the camera's IPv4 address, "serial:" and its serial number, or "auto" for the only
    one that answers. interface: the IPv4 address of the host's network card to look for it on;
    None for all of them, which leaves out the loopback. packet_bytes: of a datagram; 8000 to 9000
    costs far less CPU and needs an MTU as large on the whole way. pixel_format: asked of the
    camera, which may not have it.
    """

    address: Annotated[str, Meta(min_length=1)] = "auto"
    interface: str | None = None
    packet_bytes: Annotated[int, Meta(ge=576, le=16_384)] = 1400
    pixel_format: str = "Mono16"

    def __post_init__(self) -> None:
        if self.packet_bytes % 4:
            raise ValueError(f"packet_bytes: got {self.packet_bytes}, expected a multiple of 4")


def discover_gige(interface: str | None = None) -> Sequence[Device]:
    """Cameras that answer a broadcast, in the order of their addresses; ConfigError without SDK."""
    cameras = _answers(interface)
    numbers = Counter(camera["serial"] for camera in cameras)
    devices = []
    for camera in cameras:
        alone = camera["serial"] and numbers[camera["serial"]] == 1
        identity = f"serial:{camera['serial']}" if alone else f"address:{camera['ip']}"
        gige = {"address": identity.removeprefix("address:")}
        if interface is not None:
            gige["interface"] = interface
        devices.append(
            Device(
                kind="flir",
                name=f"{camera['manufacturer']} {camera['model']}",
                identity=identity,
                settings={"source": "gige", "gige": gige},
                modes=(f"GigE Vision at {camera['ip']}",),
            )
        )
    return devices


class GigeSource:
    """See the module docstring, and FrameSource. scene: None for counts, whatever it can."""

    def __init__(self, label: str, config: GigeConfig, scene: Scene | None, clock: Clock) -> None:
        self._label, self._config, self._scene, self._clock = label, config, scene, clock
        self._client: GVCPClient | None = None
        self._socket: socket.socket | None = None
        self._nodes: NodeMap | None = None
        self._assembler = Assembler(config.packet_bytes)
        self._buffer = memoryview(bytearray(MAX_DATAGRAM))
        self._tick_hz = 0
        self._celsius: ToCelsius | None = None
        self._gone = False
        self.rate_hz: float | None = None

    @property
    def topic(self) -> str:
        return f"gige:{self._config.address}"

    @property
    def clock_domain(self) -> str:
        return "GigE Vision timestamp" if self._tick_hz else ""

    @property
    def celsius(self) -> ToCelsius | None:
        return self._celsius

    def open(self) -> None:
        """Take control of the camera and start it. Raises as FrameSource.open does."""
        with needs_extra("flir"):
            import pyGigEVision
        self.close()
        address = self._find()
        client = self._client = pyGigEVision.GVCPClient(address, self._config.interface)
        client._n_retries, client._cmd_timeout = TRIES, TRY_S
        self._gone = False
        try:
            client.connect(force=False)
            self._start(client, address)
        except (pyGigEVision.GVCPError, OSError, ValueError) as exc:
            self.close()
            if getattr(exc, "status", 0) == ACCESS_DENIED:
                raise DeviceBusy(f"{self._label}: {address} is controlled by another") from exc
            raise DeviceNotFound(
                f"{self._label}: {address} cannot be started ({_said(exc)})"
            ) from exc

    def grab(self, timeout_s: float) -> Frame:
        """The next whole frame; what came before it in parts is in `lost`.

        Raises ReadTimeout, and DeviceLost once the camera no longer knows us; BadData for what is
        no grey picture.
        """
        if self._socket is None:
            raise DeviceLost(f"{self._label}: not connected")
        until_ns = self._clock.now_ns() + from_s(timeout_s)
        while True:
            left_ns = until_ns - self._clock.now_ns()
            size = self._receive(to_s(left_ns)) if left_ns > 0 else 0
            if not size:
                self._check_control()
                raise ReadTimeout(f"{self._label}: no whole frame in {timeout_s:g} s")
            now_ns = self._clock.now_ns()
            got = self._assembler.feed(self._buffer[:size], now_ns)
            if got is not None:
                stamp = got.ticks * NS_PER_S // self._tick_hz if self._tick_hz else None
                return Frame(got.pixels, got.first_ns, now_ns, stamp, got.lost)

    def close(self) -> None:
        """Stop the camera and let go of it."""
        client, self._client = self._client, None
        stream, self._socket = self._socket, None
        if stream is not None:
            stream.close()
        if client is not None:
            from pyGigEVision import GVCPError

            if self._nodes is not None and not self._gone:
                with suppress(GVCPError, OSError):
                    self._nodes.execute("AcquisitionStop")
            client.disconnect()
        self._nodes = None

    def _find(self) -> str:
        """The address of the camera that the config means."""
        wanted = self._config.address
        if wanted != "auto" and not wanted.startswith("serial:"):
            return wanted
        found = [
            camera
            for camera in _answers(self._config.interface)
            if wanted in ("auto", f"serial:{camera['serial']}")
        ]
        if len(found) == 1:
            return str(found[0]["ip"])
        if not found:
            raise DeviceNotFound(f"{self._label}: no GigE Vision camera answers to {wanted!r}")
        several = ", ".join(
            f"{c['ip']} (serial {c['serial'] or 'none'}, {c['model']})" for c in found
        )
        raise DeviceNotFound(f"{self._label}: {wanted!r} means no one camera of: {several}")

    def _start(self, client: GVCPClient, address: str) -> None:
        from pyGigEVision import standard

        client.write_reg(standard.REG_HEARTBEAT_TIMEOUT, HEARTBEAT_MS)
        nodes = self._nodes = NodeMap(_description(client), client.read_mem, client.write_reg)
        nodes.choose("PixelFormat", self._config.pixel_format)
        self._celsius = self._calibration(nodes)
        self.rate_hz = nodes.value("AcquisitionFrameRate")
        self._tick_hz = client.read_reg(REG_TICK_HZ_HIGH) << 32 | client.read_reg(REG_TICK_HZ_LOW)
        self._assembler = Assembler(self._config.packet_bytes)
        stream = self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        stream.bind((_own_address(address), 0))
        own, port = stream.getsockname()
        client.write_reg(standard.REG_SC_DEST_ADDR, int.from_bytes(socket.inet_aton(own), "big"))
        client.write_reg(standard.REG_SC_HOST_PORT, port)
        client.write_reg(
            standard.REG_SC_PACKET_SIZE,
            self._config.packet_bytes | DO_NOT_FRAGMENT,
        )
        if not nodes.execute("AcquisitionStart"):
            raise ValueError("its description has no AcquisitionStart that is a register")

    def _calibration(self, nodes: NodeMap) -> ToCelsius | None:
        """From FLIR's own nodes: temperatures where the camera can give them, else its constants.

        Names and units: FLIR's GenICam features of the A series (IRFormat, R, B, F, J0, J1).
        """
        if self._scene is not None and nodes.choose("IRFormat", "TemperatureLinear10mK"):
            return Linear(0.01)
        nodes.choose("IRFormat", "Radiometric")
        r, b, f, j0, j1 = (nodes.value(name) for name in ("R", "B", "F", "J0", "J1"))
        if self._scene is None or r is None or b is None or f is None or j0 is None or not j1:
            return None
        return Planck(r, b, f, j0, j1, self._scene)

    def _receive(self, timeout_s: float) -> int:
        """Bytes of the next datagram, 0 where none came."""
        assert self._socket is not None
        self._socket.settimeout(timeout_s)
        try:
            return self._socket.recv_into(self._buffer)
        except TimeoutError:
            return 0
        except OSError as exc:
            raise DeviceLost(f"{self._label}: the network is gone ({exc})") from exc

    def _check_control(self) -> None:
        """Silence may be an untriggered camera, or one that is gone or has been started anew."""
        from pyGigEVision import GVCPError, standard

        assert self._client is not None
        try:
            if self._client.read_reg(standard.REG_CCP) & IN_CONTROL:
                return
        except (GVCPError, OSError) as exc:
            self._gone = True
            raise DeviceLost(f"{self._label}: no longer answers") from exc
        raise DeviceLost(f"{self._label}: no longer under our control")


def _answers(interface: str | None) -> list[dict[str, Any]]:
    """What answers to a broadcast, as pyGigEVision tells it."""
    with needs_extra("flir"):
        import pyGigEVision
    found = pyGigEVision.discover(interface or "", DISCOVERY_S)
    return sorted(found, key=lambda camera: socket.inet_aton(camera["ip"]))


def _said(exc: Exception) -> str:
    """Why a command failed; the library calls a timeout one with status SUCCESS."""
    return "no answer" if getattr(exc, "status", None) == 0 else str(exc)


def _description(client: GVCPClient) -> bytes:
    """The camera's GenICam XML. Raises ValueError where it has none in its own memory.

    The library's reader takes numbers without "0x" for decimal ones; in this URL all are
    hexadecimal (GigE Vision, "Local:name;address;length").
    """
    from pyGigEVision import standard

    url = client.read_mem(standard.REG_FIRST_URL, URL_BYTES).partition(b"\0")[0].decode("latin-1")
    scheme, _, rest = url.partition("?")[0].partition(":")
    parts = rest.split(";")
    if scheme.lower() != "local" or len(parts) != 3:
        raise ValueError(f"its description is at {url!r}, expected Local:name;address;length")
    data = client.read_mem(int(parts[1], 16), int(parts[2], 16))
    if not parts[0].lower().endswith(".zip"):
        return data.rstrip(b"\0")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            return packed.read(packed.namelist()[0])
    except (zipfile.BadZipFile, IndexError) as exc:
        raise ValueError(f"its description {parts[0]!r} is no ZIP file with one") from exc


def _own_address(camera: str) -> str:
    """The host's IPv4 address on the way to the camera."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((camera, GVCP_PORT))
        return str(probe.getsockname()[0])
