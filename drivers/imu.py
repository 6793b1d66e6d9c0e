"""Driver `imu`: an inertial sensor on a serial line, through pyserial.

One stream, named as the driver. For most protocols it is modality `imu`: float32 (6,), ax ay az in
m/s^2, gx gy gz in rad/s. BNO08x UART-RVC sends angles and no angular rate: modality `motion`,
float32 (6,), yaw pitch roll in rad, ax ay az in m/s^2; no tower for `imu` will take it by mistake.
With `orientation` there is a second, `<name>_orientation`: see drivers/_imu/orientation.py.

Where the device sends its clock the stream's clock is "device". Else ticks are stamped on arrival:
the newest of a read at that moment, those before it earlier by the nominal rate.

What is lost is counted where messages are numbered. Bytes that are no part of a sound message are
told as BadData, once after the read that had them: health shows how often as `bad`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from agent.clock import Clock, from_s
from agent.contracts import Device
from agent.errors import BadData, DeviceLost, DeviceNotFound, ReadTimeout
from agent.extras import needs_extra
from agent.types import Sample, Settings, StreamInfo
from drivers._imu.blocks import ReadingBlocks
from drivers._imu.orientation import Orientation
from drivers._serial_ports import SerialPort, find_ports, one_line, open_port, resolve
from drivers.imu_protocols import (
    Bno08xRvc,
    CsvLines,
    Decoder,
    JsonLines,
    Reading,
    TextFormat,
    VectorNav,
    WitMotion,
    Xsens,
)

if TYPE_CHECKING:
    import serial

__all__ = ["PLUGIN", "ImuConfig", "ImuDriver"]

BINARY: dict[str, Callable[[], Decoder]] = {
    "bno08x_rvc": Bno08xRvc,
    "xsens": Xsens,
    "vectornav": VectorNav,
}
TEXT: dict[str, Callable[[TextFormat], Decoder]] = {"csv": CsvLines, "json": JsonLines}

# USB ids that are an MTi's and nothing else's: Linux, drivers/usb/serial/xsens_mt.c and
# ftdi_sio_ids.h (development board, USB converter). The other makers use anybody's converters.
XSENS_VID = 0x2639
XSENS_PIDS = {0x0001, 0x0002, 0x0003, 0x0011, 0x0012, 0x0013, 0x0017, 0x0300, 0x0301}
FLIR_VID = 0x09CB  # a Boson's control line (usb.ids: FLIR Systems), which is no IMU

MAX_BYTES = 65_536  # taken at once: a line that never pauses is no reason never to return

Positive = Annotated[float, Meta(gt=0)]


class ImuConfig(Settings, frozen=True, kw_only=True):
    """port: a path (best one under /dev/serial/by-id, which stays the same), "usb:" and the USB
    serial number, or "auto" for the only USB serial port there is.

    protocol: see drivers/imu_protocols. text: the format of csv and json. accel_range_g (g),
    gyro_range_dps (degree/s): full scale of a witmotion sensor that is set to another than it is
    delivered with. baud: bits a second; None for what the protocol's devices are delivered with.
    rate_hz: readings a second as the device is set. orientation: give that stream too.
    open_timeout_s: how long connect waits for the first reading.
    """

    port: Annotated[str, Meta(min_length=1)]
    protocol: Literal["bno08x_rvc", "witmotion", "xsens", "vectornav", "csv", "json"]
    text: TextFormat | None = None
    accel_range_g: Positive | None = None
    gyro_range_dps: Positive | None = None
    baud: Annotated[int, Meta(ge=1)] | None = None
    rate_hz: Annotated[float, Meta(gt=0, le=10_000)] = 100.0
    orientation: bool = False
    open_timeout_s: Positive = 2.0

    def __post_init__(self) -> None:
        if self.text is not None and self.protocol not in TEXT:
            raise ValueError(f"text: is of protocol csv and json, not of {self.protocol}")
        if self._ranges() and self.protocol != "witmotion":
            (name, value), *_ = self._ranges().items()
            raise ValueError(f"{name}: {value:g} is of protocol witmotion, not of {self.protocol}")
        if self.orientation and self.protocol == "bno08x_rvc":
            raise ValueError(
                "orientation: true needs angular rates; bno08x_rvc sends angles itself"
            )

    def decoder(self) -> Decoder:
        """A new decoder of the protocol."""
        if self.protocol in TEXT:
            return TEXT[self.protocol](self.text or TextFormat())
        if self.protocol == "witmotion":
            return WitMotion(**self._ranges())
        return BINARY[self.protocol]()

    def _ranges(self) -> dict[str, float]:
        given = {"accel_range_g": self.accel_range_g, "gyro_range_dps": self.gyro_range_dps}
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class _Run:
    """What lasts from connect to disconnect. bad_bytes: seen; untold: of these, not yet told."""

    port: serial.Serial
    decoder: Decoder
    blocks: ReadingBlocks
    bad_bytes: int
    first: list[Sample] = field(default_factory=list)
    untold: int = 0


class ImuDriver:
    """See the module docstring. `seq` counts readings since connect."""

    Config = ImuConfig

    def __init__(self, name: str, config: ImuConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"imu {name}: {config.port}"
        self._newest_ns = 0  # stays over a reconnect: stamps never go back
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None

    @staticmethod
    def discover() -> Sequence[Device]:
        """The USB serial ports that may be an IMU's. What a port's protocol is its USB id seldom
        tells, and it is not opened: that would reset some microcontrollers.
        """
        with needs_extra("imu"):
            ports = find_ports()
        return [_device(port) for port in ports if _may_be_imu(port)]

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the first reading shows whether it has a clock."""
        return self._streams

    def connect(self) -> None:
        """Open the port and take the first readings, which the first read() gives.

        Raises DeviceNotFound (no such port, not allowed, more than one, nothing of the protocol),
        DeviceBusy, ConfigError without pyserial or, where it is asked for, imufusion.
        """
        self.disconnect()
        with needs_extra("imu"):
            import serial

            if self._config.orientation:
                import imufusion  # noqa: F401 - so that it is missed before the port is open

        decoder = self._config.decoder()
        path = resolve(self._config.port, self._label, _may_be_imu)
        port = open_port(path, self._config.baud or decoder.baud, self._label)
        try:
            readings, arrival_ns = self._receive(port, decoder, self._config.open_timeout_s)
        except (ReadTimeout, serial.SerialException, OSError) as exc:
            port.close()
            asked = f"protocol {self._config.protocol} at {port.baudrate} baud"
            raise DeviceNotFound(f"{self._label}: opened, but gives nothing of {asked}") from exc
        info = StreamInfo(
            name=self._name,
            modality=decoder.modality,
            dtype="float32",
            shape=(len(decoder.channels),),
            rate_hz=self._config.rate_hz,
            unit=decoder.unit,
            clock="host" if readings[0].device_ns is None else "device",
            topic=f"serial:{self._config.port}",
            channels=decoder.channels,
        )
        orientation = Orientation(info) if self._config.orientation else None
        self._streams = (info,) if orientation is None else (info, orientation.info)
        blocks = ReadingBlocks(info, self._config.rate_hz, decoder, self._newest_ns, orientation)
        # The line was cut into somewhere: what came before the first message is no fault.
        self._run = run = _Run(port, decoder, blocks, decoder.bad_bytes)
        run.first = self._samples(run, readings, arrival_ns)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """What has arrived, at least one reading; a block ends where readings are missing.

        Raises ReadTimeout where none is whole yet, BadData after a read that also had bytes of no
        use, DeviceLost once the port is gone and when not connected.
        """
        import serial

        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        if run.first:
            first, run.first = run.first, []
            return first
        if run.untold:
            untold, run.untold = run.untold, 0
            raise BadData(f"{self._label}: {untold} bytes that are no part of a sound message")
        try:
            readings, arrival_ns = self._receive(run.port, run.decoder, timeout_s)
        except (serial.SerialException, OSError) as exc:
            raise DeviceLost(f"{self._label}: is gone: {one_line(exc)}") from exc
        samples = self._samples(run, readings, arrival_ns)
        if not samples:
            raise ReadTimeout(f"{self._label}: {len(readings)} readings, none of use")
        # Not before something good has come: noise alone is silence, and counts as lost.
        run.untold = run.decoder.bad_bytes - run.bad_bytes
        run.bad_bytes = run.decoder.bad_bytes
        return samples

    def disconnect(self) -> None:
        """Close the port. Idempotent."""
        run, self._run = self._run, None
        if run is not None:
            run.port.close()

    def _receive(
        self, port: serial.Serial, decoder: Decoder, timeout_s: float
    ) -> tuple[list[Reading], int]:
        """At least one reading, and when the last came. Raises ReadTimeout and what pyserial does.

        In between what has come so far is kept by the decoder.
        """
        until_ns = self._clock.now_ns() + from_s(timeout_s)
        bad = decoder.bad_bytes
        port.timeout = timeout_s
        while True:
            data = port.read(max(1, port.in_waiting))
            arrival_ns = self._clock.now_ns()
            # More has come only where this thread was kept waiting: it is what is stamped now.
            while len(data) < MAX_BYTES and (waiting := port.in_waiting):
                data += port.read(waiting)
                arrival_ns = self._clock.now_ns()
            readings = decoder.feed(data)
            if readings:
                return readings, arrival_ns
            if arrival_ns >= until_ns or not data:
                bad = decoder.bad_bytes - bad
                raise ReadTimeout(
                    f"{self._label}: no reading in {timeout_s:g} s, {bad} bytes of no use"
                )

    def _samples(self, run: _Run, readings: list[Reading], arrival_ns: int) -> list[Sample]:
        samples = run.blocks.samples(readings, arrival_ns)
        self._newest_ns = run.blocks.newest_ns
        return samples


def _may_be_imu(port: SerialPort) -> bool:
    return port.vid != FLIR_VID


def _device(port: SerialPort) -> Device:
    settings, problems = {"port": port.setting}, [port.problem] if port.problem else []
    if port.vid == XSENS_VID and port.pid in XSENS_PIDS:
        settings["protocol"] = "xsens"
    else:
        known = ", ".join((*BINARY, "witmotion", *TEXT))
        problems.append(f"its USB id does not tell its protocol: set protocol to one of {known}")
    return Device(
        kind="imu",
        name=port.name,
        identity=port.identity,
        settings=settings,
        by_port=port.by_port,
        problem="; ".join(problems),
    )


PLUGIN = ImuDriver
