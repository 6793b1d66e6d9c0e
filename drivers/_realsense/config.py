"""Config of the driver `realsense`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from agent.types import Settings

__all__ = ["HOLES", "KINDS", "RealSenseConfig", "VideoMode"]

# rs2_hole_filling_mode of rs_processing.h, in its order.
HOLES = ("left", "farthest", "nearest")

Positive = Annotated[float, Meta(gt=0)]
Pixels = Annotated[int, Meta(ge=1)]
Rate = Annotated[int, Meta(ge=1, le=1000)]
Sense = Literal["depth", "colour", "imu"]
# Streams to kinds of frames, by their names in rs.stream.
KINDS: dict[str, tuple[str, ...]] = {
    "depth": ("depth",),
    "colour": ("color",),
    "imu": ("accel", "gyro"),
}


class VideoMode(Settings, frozen=True, kw_only=True):
    """width, height in pixels and rate_hz as asked of the device; None for its own default."""

    width: Pixels | None = None
    height: Pixels | None = None
    rate_hz: Rate | None = None


class RealSenseConfig(Settings, frozen=True, kw_only=True):
    """serial: of the device; None for the only one. playback: a recording (.db3, .bag) instead.

    streams: None for all of depth, colour and imu that there are. align: the camera to whose view
    the other's pictures are moved. hole_filling: what a hole in the depth takes: its neighbour to
    the left, or of its neighbours the farthest or the nearest. emitter, laser_power_mw: of the
    infrared projector; None leaves it as it is. A mode or option that the device does not have is
    a warning in the log, and the nearest is taken; where strict, connect fails.

    speed: of a recording: 1 true speed, 2 double, 0 as fast as it is read. queue_s: frames that
    may wait to be read; beyond it they are lost, and counted. open_timeout_s: how long connect
    waits for the first of every stream. silent_s: how long one may be silent while others are
    not, before the device counts as lost.
    """

    serial: Annotated[str, Meta(min_length=1)] | None = None
    playback: Path | None = None
    streams: Annotated[tuple[Sense, ...], Meta(min_length=1)] | None = None
    depth: VideoMode = VideoMode()
    colour: VideoMode = VideoMode()
    gyro_rate_hz: Rate | None = None
    accel_rate_hz: Rate | None = None
    raw_imu: bool = False
    align: Literal["none", "colour", "depth"] = "none"
    hole_filling: Literal["none", "left", "farthest", "nearest"] = "none"
    emitter: bool | None = None
    laser_power_mw: Annotated[float, Meta(ge=0)] | None = None
    strict: bool = False
    speed: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    queue_s: Positive = 0.5
    open_timeout_s: Positive = 5.0
    silent_s: Positive = 5.0

    def __post_init__(self) -> None:
        if self.playback is not None and (self.emitter, self.laser_power_mw) != (None, None):
            raise ValueError("emitter, laser_power_mw: are of a device, not of a playback")
        if self.streams is None:
            return
        if self.align != "none" and not {"depth", "colour"} <= set(self.streams):
            raise ValueError(
                f"align: {self.align} needs both depth and colour, streams are "
                f"{', '.join(self.streams)}"
            )
        if self.raw_imu and "imu" not in self.streams:
            raise ValueError(f"raw_imu: needs imu among streams, got {', '.join(self.streams)}")

    def asked(self, kind: str) -> Mapping[str, float | None]:
        """What is asked of a kind of stream, by the fields of drivers._realsense.device.Mode."""
        if kind in ("depth", "color"):
            mode = self.depth if kind == "depth" else self.colour
            return {"width": mode.width, "height": mode.height, "rate_hz": mode.rate_hz}
        return {"rate_hz": self.gyro_rate_hz if kind == "gyro" else self.accel_rate_hz}
