"""Driver `imu`: an inertial sensor on a serial line, through pyserial.

One stream, named as the driver. For most protocols it is modality `imu`: float32 (6,), ax ay az in
m/s^2, gx gy gz in rad/s. BNO08x UART-RVC sends angles and no angular rate: modality `motion`,
float32 (6,), yaw pitch roll in rad, ax ay az in m/s^2; no tower for `imu` will take it by mistake.

Where the device sends its clock the stream's clock is "device". Else ticks are stamped on arrival:
the newest of a read at that moment, those before it earlier by the nominal rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta

from agent.clock import NS_PER_S, Clock, from_s
from agent.errors import DeviceLost, DeviceNotFound, ReadTimeout
from agent.extras import needs_extra
from agent.types import Int64Array, Sample, Settings, StreamInfo
from drivers._serial_ports import one_line, open_port, resolve
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
    "witmotion": WitMotion,
    "xsens": Xsens,
    "vectornav": VectorNav,
}
TEXT: dict[str, Callable[[TextFormat], Decoder]] = {"csv": CsvLines, "json": JsonLines}

# No sensor measures as much (m/s^2, rad/s), and float32 holds it.
MAX_VALUE = 1e6
# A counter that jumps further has started again: a device was reset, and nothing is known lost.
MAX_GAP_S = 10.0

Positive = Annotated[float, Meta(gt=0)]


class ImuConfig(Settings, frozen=True, kw_only=True):
    """port: a path (best one under /dev/serial/by-id, which stays the same), "usb:" and the USB
    serial number, or "auto" for the only USB serial port there is.

    protocol: see drivers/imu_protocols. text: the format of csv and json. baud: bits a second;
    None for what the protocol's devices are delivered with. rate_hz: readings a second as the
    device is set. open_timeout_s: how long connect waits for the first reading.
    """

    port: Annotated[str, Meta(min_length=1)]
    protocol: Literal["bno08x_rvc", "witmotion", "xsens", "vectornav", "csv", "json"]
    text: TextFormat | None = None
    baud: Annotated[int, Meta(ge=1)] | None = None
    rate_hz: Annotated[float, Meta(gt=0, le=10_000)] = 100.0
    open_timeout_s: Positive = 2.0

    def __post_init__(self) -> None:
        if self.text is not None and self.protocol not in TEXT:
            raise ValueError(f"text: is of protocol csv and json, not of {self.protocol}")

    def decoder(self) -> Decoder:
        """A new decoder of the protocol."""
        if self.protocol in TEXT:
            return TEXT[self.protocol](self.text or TextFormat())
        return BINARY[self.protocol]()


@dataclass
class _Run:
    """What lasts from connect to disconnect. lost: unusable readings since the last good one."""

    port: serial.Serial
    decoder: Decoder
    info: StreamInfo
    first: list[Sample] = field(default_factory=list)
    next_seq: int = 0
    lost: int = 0
    last_count: int | None = None
    device_ns: int | None = None


class ImuDriver:
    """See the module docstring. `seq` counts readings since connect."""

    Config = ImuConfig

    def __init__(self, name: str, config: ImuConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"imu {name}: {config.port}"
        self._step_ns = NS_PER_S / config.rate_hz
        self._max_gap = math.ceil(MAX_GAP_S * config.rate_hz)
        self._newest_ns = 0  # stays over a reconnect: stamps never go back
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the first reading shows whether it has a clock."""
        return self._streams

    def connect(self) -> None:
        """Open the port and take the first readings, which the first read() gives.

        Raises DeviceNotFound (no such port, not allowed, more than one, nothing of the protocol),
        DeviceBusy, ConfigError without pyserial.
        """
        self.disconnect()
        with needs_extra("imu"):
            import serial

        decoder = self._config.decoder()
        path = resolve(self._config.port, self._label)
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
        self._streams = (info,)
        self._run = run = _Run(port, decoder, info)
        run.first = self._samples(run, readings, arrival_ns)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """What has arrived, at least one reading; a block ends where readings are missing.

        Raises ReadTimeout where none is whole yet, DeviceLost once the port is gone and when not
        connected.
        """
        import serial

        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        if run.first:
            first, run.first = run.first, []
            return first
        try:
            readings, arrival_ns = self._receive(run.port, run.decoder, timeout_s)
        except (serial.SerialException, OSError) as exc:
            raise DeviceLost(f"{self._label}: is gone: {one_line(exc)}") from exc
        samples = self._samples(run, readings, arrival_ns)
        if not samples:
            raise ReadTimeout(f"{self._label}: {len(readings)} readings, none of use")
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
            readings = decoder.feed(data)
            if readings:
                return readings, arrival_ns
            if arrival_ns >= until_ns or not data:
                bad = decoder.bad_bytes - bad
                raise ReadTimeout(
                    f"{self._label}: no reading in {timeout_s:g} s, {bad} bytes of no use"
                )

    def _samples(self, run: _Run, readings: list[Reading], arrival_ns: int) -> list[Sample]:
        """Blocks without gaps; a reading that cannot be is a lost one."""
        seqs: list[int] = []
        device: list[int] = []
        rows: list[tuple[float, ...]] = []
        starts: list[tuple[int, int]] = []
        for reading in readings:
            lost = self._missing(run, reading)
            on_device = run.info.clock == "device"
            usable = all(abs(v) <= MAX_VALUE for v in reading.values)
            if not usable or (reading.device_ns is None) == on_device:
                run.lost += lost + 1
                continue
            lost, run.lost = lost + run.lost, 0
            run.next_seq += lost
            if lost or not rows:
                starts.append((len(rows), lost))
            seqs.append(run.next_seq)
            run.next_seq += 1
            rows.append(reading.values)
            if reading.device_ns is not None:
                device.append(self._unwrapped(run, reading.device_ns))
        if not rows:
            return []
        data = np.array(rows, np.float32)
        t_ns = self._stamps(np.array(seqs, np.int64), arrival_ns)
        device_t_ns = np.array(device, np.int64) if device else None
        return [
            Sample(
                run.info,
                seqs[a],
                t_ns[a:b],
                arrival_ns,
                data[a:b],
                None if device_t_ns is None else device_t_ns[a:b],
                lost,
            )
            for (a, lost), (b, _) in pairwise([*starts, (len(rows), 0)])
        ]

    def _stamps(self, seqs: Int64Array, arrival_ns: int) -> Int64Array:
        back_ns = np.rint((seqs[-1] - seqs) * self._step_ns).astype(np.int64)
        t_ns: Int64Array = np.maximum(arrival_ns - back_ns, self._newest_ns)
        self._newest_ns = int(t_ns[-1])
        return t_ns

    def _missing(self, run: _Run, reading: Reading) -> int:
        """Readings between the last one and this, as far as they are numbered."""
        last, run.last_count = run.last_count, reading.count
        modulo = run.decoder.count_modulo
        if last is None or reading.count is None or modulo is None:
            return 0
        missing = (reading.count - last - 1) % modulo
        # The same number again leaves all others missing, as does a counter begun anew.
        return missing if missing < min(modulo - 1, self._max_gap) else 0

    def _unwrapped(self, run: _Run, raw_ns: int) -> int:
        """The device's stamp without its wraps: less than half a turn from the one before."""
        modulo, last = run.decoder.time_modulo_ns, run.device_ns
        run.device_ns = raw_ns
        if last is not None and modulo is not None:
            turn = (raw_ns - last + modulo // 2) % modulo - modulo // 2
            run.device_ns = last + turn
        return run.device_ns


PLUGIN = ImuDriver
