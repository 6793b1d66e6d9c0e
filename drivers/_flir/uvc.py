"""Boson, and Lepton on a PureThermal board: 16-bit pictures over UVC, through OpenCV's V4L2.

Neither stamps what it sends over UVC, but Lepton's telemetry does, in rows below the picture that
a PureThermal board sends on with it: FLIR's "Lepton Engineering Datasheet" (500-0659-00-09),
section 3.4; its frame counter counts new frames only (4.2.3.3). Boson's shutter is asked for over
its control port.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from msgspec import Meta

from agent.clock import Clock, from_s
from agent.errors import BadData, ConfigError, DeviceBusy, DeviceLost, DeviceNotFound, ReadTimeout
from agent.extras import needs_extra
from agent.radiometry import Linear, ToCelsius
from agent.types import Array, Settings
from drivers._flir.frames import Frame
from drivers._flir.fslp import BosonControl
from drivers._flir.usb import find_video, is_boson, why_not
from drivers._serial_ports import resolve

if TYPE_CHECKING:
    import cv2

__all__ = ["BosonConfig", "LeptonConfig", "Telemetry", "UvcSource", "telemetry"]

logger = logging.getLogger(__name__)


ROW_WORDS = 80  # of a telemetry row, whatever the width of the picture
LEPTON_ROWS = {(63, 80): 60, (122, 160): 120}  # with telemetry: rows of the picture in it
LEPTON_FFC_IN_PROGRESS = 2
NS_PER_MS = 1_000_000
LEPTON_HZ = 26 / 3  # two repeats follow each new frame
TLINEAR_K = {0: 0.1, 1: 0.01}

PerCount = Annotated[float, Meta(gt=0, le=1)]
Name = Annotated[str, Meta(min_length=1)]


class BosonConfig(Settings, frozen=True, kw_only=True):
    """device: an index ("0" is /dev/video0), a path, "usb:" and the USB serial number, or "auto"
    for the only one. port: its control port, likewise; None for none, and then frames of a
    flat-field correction cannot be told from others. ffc, gain: set at connect; None leaves them.
    size: (width, height) asked of it. kelvin_per_count: 0.01 for a radiometric Boson that is set
    to TLinear output, None for one that gives counts.
    """

    device: Name = "auto"
    port: Name | None = "auto"
    ffc: Literal["manual", "auto", "external"] | None = None
    gain: Literal["high", "low", "auto"] | None = None
    size: tuple[int, int] | None = None
    kelvin_per_count: PerCount | None = None


class LeptonConfig(Settings, frozen=True, kw_only=True):
    """device: as BosonConfig. size: (width, height) asked of it; 80 x 63 (Lepton 2) and 160 x 122
    (Lepton 3) hold telemetry. kelvin_per_count: where there is none; None is what telemetry says.
    """

    device: Name = "auto"
    size: tuple[int, int] | None = (160, 122)
    kelvin_per_count: PerCount | None = None


@dataclass(frozen=True)
class Telemetry:
    """What Lepton says of a frame. up_ms: since it was started. correcting: the shutter is shut.
    kelvin_per_count: None where its counts are no temperature.
    """

    up_ms: int
    frame: int
    correcting: bool
    kelvin_per_count: float | None


def telemetry(rows: Array) -> Telemetry:
    """Of the uint16 rows below a picture. Words of 32 bits have their lower half first."""
    words = rows.reshape(-1)
    row_a, row_c = words[:ROW_WORDS].astype(np.int64), words[2 * ROW_WORDS : 3 * ROW_WORDS]
    status = int(row_a[3]) | int(row_a[4]) << 16
    return Telemetry(
        up_ms=int(row_a[1]) | int(row_a[2]) << 16,
        frame=int(row_a[20]) | int(row_a[21]) << 16,
        correcting=status >> 4 & 3 == LEPTON_FFC_IN_PROGRESS,
        kelvin_per_count=TLINEAR_K.get(int(row_c[49])) if row_c[48] else None,
    )


class UvcSource:
    """See the module docstring, and FrameSource."""

    rate_hz: float | None = None

    def __init__(self, label: str, config: BosonConfig | LeptonConfig, clock: Clock) -> None:
        self._label, self._config, self._clock = label, config, clock
        self._kind = "boson" if isinstance(config, BosonConfig) else "lepton"
        self._capture: cv2.VideoCapture | None = None
        self._control: BosonControl | None = None
        self._was_correcting = False
        self._last: Telemetry | None = None
        self._lost = 0  # since the last frame that was data

    @property
    def topic(self) -> str:
        return f"uvc:{self._config.device}"

    @property
    def clock_domain(self) -> str:
        return "Lepton time counter" if self._last is not None else ""

    @property
    def celsius(self) -> ToCelsius | None:
        told = self._last.kelvin_per_count if self._last is not None else None
        per_count = self._config.kelvin_per_count or told
        return None if per_count is None else Linear(per_count)

    def open(self) -> None:
        """Raises as FrameSource.open does."""
        with needs_extra("flir"):
            import cv2
        # Its warnings say no more than our errors do, and tear the demo's live table.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        self.close()
        c = self._config
        path = find_video(c.device, self._kind, self._label)
        capture = self._capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
        try:
            if not capture.isOpened():
                raise DeviceNotFound(f"{self._label}: {path} cannot be opened ({why_not(path)})")
            if c.size is not None:
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, c.size[0])
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, c.size[1])
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"Y16 "))
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            rate_hz = capture.get(cv2.CAP_PROP_FPS)
            self.rate_hz = LEPTON_HZ if self._kind == "lepton" else rate_hz or None
            if isinstance(c, BosonConfig) and c.port is not None:
                self._open_control(c, c.port)
        except (BadData, DeviceLost, ReadTimeout) as exc:
            self.close()
            raise DeviceNotFound(str(exc)) from exc
        except (ConfigError, DeviceBusy, DeviceNotFound):
            self.close()
            raise

    def grab(self, timeout_s: float) -> Frame:
        """The next new frame that is data; those of a flat-field correction are in its `lost`.

        Raises ReadTimeout while there are only such, DeviceLost when there are none, BadData.
        """
        until_ns = self._clock.now_ns() + from_s(timeout_s)
        take = self._boson if self._kind == "boson" else self._lepton
        while True:
            if self._capture is None:
                raise DeviceLost(f"{self._label}: not connected")
            if not self._capture.grab():
                raise DeviceLost(f"{self._label}: {self.topic} gives no more frames")
            t_ns = self._clock.now_ns()
            frame = take(self._pixels(self._capture), t_ns)
            if frame is not None:
                return frame
            if self._clock.now_ns() >= until_ns:
                raise ReadTimeout(f"{self._label}: no new frame in {timeout_s:g} s")

    def close(self) -> None:
        capture, self._capture = self._capture, None
        control, self._control = self._control, None
        if capture is not None:
            capture.release()
        if control is not None:
            control.close()
        self._last, self._lost = None, 0
        self._was_correcting = False

    def _open_control(self, config: BosonConfig, port: str) -> None:
        with needs_extra("flir"):
            path = resolve(port, self._label, is_boson)
            control = self._control = BosonControl(path, self._label, self._clock)
        logger.info(
            "%s: Boson %s, serial number %d, sensor at %.1f C",
            self._label,
            control.part_number(),
            control.serial_number(),
            control.fpa_c(),
        )
        if config.ffc is not None:
            control.set_ffc_mode(config.ffc)
        if config.gain is not None:
            control.set_gain(config.gain)

    def _pixels(self, capture: cv2.VideoCapture) -> Array:
        """The frame that was grabbed, uint16: OpenCV gives it so, or as a row of bytes."""
        import cv2

        decoded, raw = capture.retrieve()
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        if not decoded or raw.nbytes != width * height * 2:
            self._lost += 1
            got = f"{raw.dtype}{list(raw.shape)}" if decoded else "nothing"
            raise BadData(f"{self._label}: {got}, expected {width} x {height} pixels of 16 bits")
        return np.frombuffer(raw.tobytes(), np.uint16).reshape(height, width)

    def _boson(self, pixels: Array, t_ns: int) -> Frame | None:
        before = self._was_correcting
        if self._control is not None:
            # The shutter may have shut or opened in between: both ends have to be clear of it.
            try:
                self._was_correcting = self._control.correcting()
            except (BadData, ReadTimeout):
                self._lost += 1  # it may have been the shutter
                raise
        if before or self._was_correcting:
            self._lost += 1
            return None
        lost, self._lost = self._lost, 0
        return Frame(pixels, t_ns, self._clock.now_ns(), lost=lost)

    def _lepton(self, pixels: Array, t_ns: int) -> Frame | None:
        rows = LEPTON_ROWS.get(pixels.shape)
        lost, self._lost = self._lost, 0
        if rows is None:
            return Frame(pixels, t_ns, self._clock.now_ns(), lost=lost)
        told, last = telemetry(pixels[rows:]), self._last
        if last is not None and told.frame == last.frame:
            self._lost = lost
            return None  # sent again, as each frame is
        if last is not None and told.frame > last.frame:
            lost += told.frame - last.frame - 1
        self._last = told
        if told.correcting:
            self._lost = lost + 1
            return None
        picture = pixels[:rows]
        return Frame(picture, t_ns, self._clock.now_ns(), told.up_ms * NS_PER_MS, lost)
