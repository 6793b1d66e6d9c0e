"""Driver `realsense`: depth, colour and motion of a RealSense camera or of its recording.

Streams of a driver NAME, as far as the device has them:

    NAME_depth   modality depth, uint16 (height, width) mm
    NAME_colour  modality image, uint8 RGB (height, width, 3)
    NAME_imu     modality imu, float32 (6,): each gyroscope reading with the acceleration of its
                 moment, interpolated (drivers/_realsense/imu.py)
    NAME_accel, NAME_gyro   with raw_imu: float32 (3,), each reading as it came

Sensors are read one by one, each at its full rate: librealsense's pipeline would give one reading
of motion a picture. A live device's stamps are `device_t_ns`, and the agent maps them to its
clock. A recording is put on the agent's clock as it plays, its first frame at connect; its stamps
are kept beside. What the stamps count is `clock_domain`, in librealsense's words.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.clock import NS_PER_S, Clock, from_s, to_s
from agent.contracts import Device
from agent.errors import DeviceLost, DeviceNotFound, EndOfStream, ReadTimeout
from agent.extras import needs_extra
from agent.types import Sample, StreamInfo
from drivers._pacing import ns_per_s, wait_until_due
from drivers._realsense.choice import choose_device, choose_modes
from drivers._realsense.config import RealSenseConfig, VideoMode
from drivers._realsense.device import (
    Mode,
    check_file,
    differences,
    discovered,
    info_of,
    modes_of,
    one_line,
    open_error,
    set_options,
)
from drivers._realsense.frames import Frame, Receiver
from drivers._realsense.samples import Samples

__all__ = ["PLUGIN", "RealSenseConfig", "RealSenseDriver", "VideoMode"]

logger = logging.getLogger(__name__)

MAX_FRAMES = 64  # taken at once, where so many wait
# Of a recording, so many frames are looked at in connect for the first of each stream.
FIRST_FRAMES = 256
MIN_QUEUE = 16


@dataclass
class _Run:
    """What lasts from connect to disconnect. sensors: those opened. pending: frames taken in
    connect. start_ns, first_ns: where a recording's first stamp is put. due: its next frame.
    """

    rs: Any
    context: Any
    device: Any
    serial: str
    receiver: Receiver
    sensors: list[Any] = field(default_factory=list)
    pending: deque[Frame | None] = field(default_factory=deque)
    samples: Samples | None = None
    start_ns: int = 0
    first_ns: int = 0
    due: Frame | None = None
    ended: bool = False


class RealSenseDriver:
    """See the module docstring. `seq` counts frames since connect, by the device's numbers."""

    Config = RealSenseConfig

    def __init__(self, name: str, config: RealSenseConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._live = config.playback is None
        what = config.playback or f"serial {config.serial or 'any'}"
        self._label = f"realsense {name}: {what}"
        self._ns_per_device_ns = ns_per_s(config.speed) / NS_PER_S
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None
        self._latest_ns = 0  # stays over a reconnect: stamps never go back

    @staticmethod
    def discover() -> Sequence[Device]:
        """Every RealSense that is connected. Raises ConfigError without pyrealsense2."""
        with needs_extra("realsense"):
            import pyrealsense2 as rs
        return discovered(rs)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the device decides what it has."""
        return self._streams

    def connect(self) -> None:
        """Open the sensors and wait for a frame of each.

        Raises DeviceNotFound (none, several, no such serial or file, not a recording, not allowed,
        a stream that it lacks or that stays silent, where `strict` not as asked for), DeviceBusy,
        ConfigError without pyrealsense2.
        """
        self.disconnect()
        with needs_extra("realsense"):
            import pyrealsense2 as rs
        try:
            self._open(rs)
        except RuntimeError as exc:
            self.disconnect()
            raise open_error(self._label, exc) from exc
        except DeviceNotFound:
            self.disconnect()
            raise

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """What has come, at least one sample; of a recording, what one more frame completes.

        Raises ReadTimeout, EndOfStream after a recording's last frame, DeviceLost once the device
        is gone or one of its streams silent, and when not connected.
        """
        run = self._run
        if run is None or run.samples is None:
            raise DeviceLost(f"{self._label}: not connected")
        until_ns = self._clock.now_ns() + from_s(timeout_s)
        while True:
            if run.ended:
                raise EndOfStream(f"{self._label}: has played to its end")
            left_s = max(0.0, to_s(until_ns - self._clock.now_ns()))
            give = self._live_samples if self._live else self._played
            try:
                samples = give(run, run.samples, left_s)
            except RuntimeError as exc:
                raise DeviceLost(f"{self._label}: fails: {one_line(exc)}") from exc
            if samples:
                self._latest_ns = samples[-1].arrival_ns
                return samples

    def disconnect(self) -> None:
        """Stop and close every sensor. Idempotent."""
        run, self._run = self._run, None
        if run is None:
            return
        run.receiver.close()  # first: the SDK waits for its callbacks to come back
        for sensor in run.sensors:
            for release in (sensor.stop, sensor.close):
                try:
                    release()
                except RuntimeError as exc:  # never started, or gone
                    logger.debug("%s: %s", self._label, exc)
        run.receiver.close()

    def _open(self, rs: Any) -> None:
        c = self._config
        context = rs.context()
        if c.playback is not None:
            check_file(self._label, c.playback)
            device = context.load_device(str(c.playback))
            device.set_real_time(False)  # the driver paces it, on the agent's clock
            devices = [device]
        else:
            devices = list(context.query_devices())
        device = choose_device(rs, self._label, devices, c)
        sensors = device.query_sensors()
        modes = choose_modes(self._label, modes_of(sensors), c, self._differs)
        rate_hz = sum(mode.rate_hz for mode in modes.values())
        receiver = Receiver(
            rs,
            self._label,
            self._clock,
            max_frames=max(MIN_QUEUE, math.ceil(c.queue_s * rate_hz)),
            live=self._live,
        )
        run = _Run(rs, context, device, info_of(rs, device, "serial_number"), receiver)
        self._run = run
        if self._live:
            for option in set_options(rs, sensors, c.emitter, c.laser_power_mw):
                self._differs(option)
        else:
            device.set_status_changed_callback(receiver.on_status)
        for index, sensor in enumerate(sensors):
            profiles = [mode.profile for mode in modes.values() if mode.sensor == index]
            if profiles:
                run.sensors.append(sensor)
                sensor.open(profiles)
        if not self._live:
            device.pause()  # else it plays from the first start on, and the others miss frames
        for sensor in run.sensors:
            sensor.start(receiver)
        if not self._live:
            device.resume()
        first = self._first_frames(run, modes)
        for kind, frame in first.items():
            told = differences(modes[kind], frame.raw.profile)
            if told:
                self._differs(f"{kind}: {'; '.join(told)}")
        run.start_ns = max(self._clock.now_ns(), self._latest_ns)
        run.first_ns = min(frame.device_ns for frame in first.values())
        place = (lambda _, arrival_ns: arrival_ns) if self._live else self._place
        run.samples = Samples(rs, self._name, c, modes, first, place)
        self._streams = run.samples.streams

    def _differs(self, what: str) -> None:
        """Something is not as asked for."""
        if self._config.strict:
            raise DeviceNotFound(f"{self._label}: {what}")
        logger.warning("%s: %s", self._label, what)

    def _first_frames(self, run: _Run, modes: Mapping[str, Mode]) -> dict[str, Frame]:
        """The first frame of each kind; a recording may lack some. What is live is not kept."""
        first: dict[str, Frame] = {}
        until_ns = self._clock.now_ns() + from_s(self._config.open_timeout_s)
        while first.keys() < modes.keys() and len(run.pending) < FIRST_FRAMES:
            left_s = self._config.open_timeout_s
            if self._live:
                left_s = to_s(until_ns - self._clock.now_ns())
            try:
                frame = run.receiver.get(left_s)
            except ReadTimeout as exc:
                silent = ", ".join(kind for kind in modes if kind not in first)
                raise DeviceNotFound(
                    f"{self._label}: opened, but gives nothing of {silent}"
                ) from exc
            if not self._live:
                run.pending.append(frame)
            if frame is None:
                break
            first.setdefault(frame.kind, frame)
        if not first:
            raise DeviceNotFound(f"{self._label}: opened, but holds no frame")
        return first

    def _live_samples(self, run: _Run, samples: Samples, timeout_s: float) -> list[Sample]:
        try:
            frames = run.receiver.take(timeout_s, MAX_FRAMES)
        except ReadTimeout:
            self._check_present(run)
            raise
        for kind, heard_ns in run.receiver.heard_ns.items():
            silent_s = to_s(self._clock.now_ns() - heard_ns)
            if silent_s > self._config.silent_s:
                raise DeviceLost(f"{self._label}: {kind} is silent for {silent_s:.1f} s")
        return samples.convert(frames)

    def _check_present(self, run: _Run) -> None:
        """Raises DeviceLost where the SDK no longer lists the device."""
        try:
            serials = [info_of(run.rs, d, "serial_number") for d in run.context.query_devices()]
        except RuntimeError as exc:
            raise DeviceLost(f"{self._label}: is gone ({one_line(exc)})") from exc
        if run.serial not in serials:
            raise DeviceLost(f"{self._label}: is gone: serial:{run.serial} is no longer connected")

    def _played(self, run: _Run, samples: Samples, timeout_s: float) -> list[Sample]:
        if run.due is None:
            frame = run.pending.popleft() if run.pending else run.receiver.get(timeout_s)
            if frame is None:
                run.ended = True
                return samples.flush()
            run.due = frame
        due_ns = self._place(run.due.device_ns, 0)
        arrival_ns = max(due_ns, self._latest_ns)
        if self._config.speed:
            wait_until_due(self._clock, due_ns, timeout_s, self._label)
            arrival_ns = self._clock.now_ns()
        frame, run.due = replace(run.due, arrival_ns=arrival_ns), None
        return samples.convert([frame])

    def _place(self, device_ns: int, _arrival_ns: int) -> int:
        """A recording's stamp on the agent's clock."""
        assert self._run is not None
        return self._run.start_ns + int((device_ns - self._run.first_ns) * self._ns_per_device_ns)


PLUGIN = RealSenseDriver
