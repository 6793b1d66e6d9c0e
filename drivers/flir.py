"""Driver `flir`: a thermal camera of FLIR's, or any other grey GigE Vision camera.

Sources: `boson` and `lepton` (a PureThermal board), over UVC as 16-bit pictures; `gige`, GigE
Vision. One stream, named as the driver, modality `thermal`, (height, width): float32 Celsius
(unit "c") where the camera gives what that takes, else what it measured, uint16 or uint8, unit
"counts", which follow temperature but are none.

While a flat-field correction runs (the shutter is shut), frames are no data: they are counted as
lost ticks. Where the camera stamps its frames, the stream's clock is "device".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from agent.clock import Clock, from_s, to_s
from agent.contracts import Device
from agent.errors import BadData, ConfigError, DeviceLost, DeviceNotFound, ReadTimeout
from agent.radiometry import Scene, ToCelsius
from agent.types import Sample, Settings, StreamInfo
from drivers._flir.frames import Frame, FrameSource
from drivers._flir.gige import GigeConfig, GigeSource, discover_gige
from drivers._flir.usb import discover_uvc
from drivers._flir.uvc import BosonConfig, LeptonConfig, UvcSource

__all__ = ["PLUGIN", "FlirConfig", "FlirDriver"]

Positive = Annotated[float, Meta(gt=0)]


class FlirConfig(Settings, frozen=True, kw_only=True):
    """source: what kind of camera; its own fields are under the same name.

    celsius: "auto" gives Celsius where the camera can, else counts; "never" counts; "require"
    fails to connect where the camera cannot. scene: what Celsius are worked out for, of cameras
    that give their constants. rate_hz: nominal; None as the camera says. open_timeout_s: how long
    connect waits for the first frame.
    """

    source: Literal["boson", "lepton", "gige"]
    boson: BosonConfig = BosonConfig()
    lepton: LeptonConfig = LeptonConfig()
    gige: GigeConfig = GigeConfig()
    celsius: Literal["auto", "never", "require"] = "auto"
    scene: Scene = Scene()
    rate_hz: Positive | None = None
    open_timeout_s: Positive = 3.0


@dataclass
class _Run:
    """What lasts from connect to disconnect. lost: frames of no use since the last good one."""

    source: FrameSource
    info: StreamInfo
    to_celsius: ToCelsius | None
    first: Sample | None = None
    next_seq: int = 0
    lost: int = 0


class FlirDriver:
    """See the module docstring. `seq` counts frames since connect."""

    Config = FlirConfig

    def __init__(self, name: str, config: FlirConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"flir {name}"
        self._newest_ns = 0  # stays over a reconnect: stamps never go back
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None

    @staticmethod
    def discover() -> Sequence[Device]:
        """Bosons and PureThermal boards on USB, and GigE Vision cameras on any network card."""
        return [*discover_uvc(), *discover_gige()]

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the camera decides its size."""
        return self._streams

    def connect(self) -> None:
        """Open the camera and take its first frame, which the first read() gives.

        Raises DeviceNotFound (not there, not allowed, more than one, no frames, no Celsius where
        required), DeviceBusy, ConfigError without a package.
        """
        self.disconnect()
        source = self._source()
        source.open()
        try:
            frame = self._first(source)
            info, to_celsius = self._describe(source, frame)
        except (BadData, DeviceLost) as exc:
            source.close()
            raise DeviceNotFound(str(exc)) from exc
        except (DeviceNotFound, ConfigError):
            source.close()
            raise
        self._streams = (info,)
        self._run = _Run(source, info, to_celsius)
        self._run.first = self._sample(self._run, frame)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next frame. Raises ReadTimeout, BadData for a frame of another size or format,
        DeviceLost when the camera is gone and when not connected.
        """
        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        if run.first is not None:
            first, run.first = run.first, None
            return [first]
        return [self._sample(run, run.source.grab(timeout_s))]

    def disconnect(self) -> None:
        """Let go of the camera. Idempotent."""
        run, self._run = self._run, None
        if run is not None:
            run.source.close()

    def _source(self) -> FrameSource:
        c = self._config
        scene = None if c.celsius == "never" else c.scene
        if c.source == "gige":
            return GigeSource(self._label, c.gige, scene, self._clock)
        return UvcSource(self._label, getattr(c, c.source), self._clock)

    def _first(self, source: FrameSource) -> Frame:
        until_ns = self._clock.now_ns() + from_s(self._config.open_timeout_s)
        while (left_ns := until_ns - self._clock.now_ns()) > 0:
            try:
                return source.grab(to_s(left_ns))
            except ReadTimeout:
                continue
        raise DeviceNotFound(
            f"{self._label}: {source.topic} gives no frame in {self._config.open_timeout_s:g} s"
        )

    def _describe(self, source: FrameSource, frame: Frame) -> tuple[StreamInfo, ToCelsius | None]:
        to_celsius = source.celsius
        if self._config.celsius == "never" or frame.pixels.dtype != np.uint16:
            to_celsius = None
        if self._config.celsius == "require" and to_celsius is None:
            raise DeviceNotFound(
                f"{self._label}: celsius: require, but {source.topic} does not give what turns "
                f"its {frame.pixels.dtype} counts into Celsius"
            )
        height, width = frame.pixels.shape
        info = StreamInfo(
            name=self._name,
            modality="thermal",
            dtype="float32" if to_celsius else str(frame.pixels.dtype),
            shape=(height, width),
            rate_hz=self._config.rate_hz or source.rate_hz,
            unit="c" if to_celsius else "counts",
            clock="host" if frame.device_t_ns is None else "device",
            topic=source.topic,
            clock_domain=source.clock_domain,
        )
        return info, to_celsius

    def _sample(self, run: _Run, frame: Frame) -> Sample:
        run.lost += frame.lost
        if frame.pixels.shape != run.info.shape:
            run.lost += 1
            raise BadData(
                f"stream {self._name}: a frame of {list(frame.pixels.shape)}, "
                f"expected {list(run.info.shape)}"
            )
        lost, run.lost = run.lost, 0
        seq = run.next_seq + lost
        run.next_seq = seq + 1
        data = frame.pixels if run.to_celsius is None else run.to_celsius(frame.pixels)
        self._newest_ns = max(self._newest_ns, frame.t_ns)
        device = None if frame.device_t_ns is None else np.array([frame.device_t_ns], np.int64)
        t_ns = np.array([self._newest_ns], np.int64)
        return Sample(run.info, seq, t_ns, frame.arrival_ns, data[None], device, lost)


PLUGIN = FlirDriver
