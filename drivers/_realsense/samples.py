"""RealSense frames to samples: stream descriptions, sequence numbers, stamps and blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.types import Array, Sample, StreamInfo
from drivers._realsense.config import HOLES, RealSenseConfig
from drivers._realsense.device import Mode, extrinsics_of, intrinsics_of
from drivers._realsense.frames import Aligner, Frame, Millimetres
from drivers._realsense.imu import ImuMerger, Reading

__all__ = ["Samples"]

# A frame number that jumps further has started again, and nothing is known lost.
MAX_GAP_S = 10

NAMES = {"depth": "depth", "color": "colour", "accel": "accel", "gyro": "gyro"}
ACCELERATION = ("ax", "ay", "az")
ROTATION = ("gx", "gy", "gz")
MOTION = {
    "imu": ("m/s^2,rad/s", (*ACCELERATION, *ROTATION)),
    "accel": ("m/s^2", ACCELERATION),
    "gyro": ("rad/s", ROTATION),
}


@dataclass
class _Source:
    """One kind of frame. number: of its last one. lost: unusable ones since."""

    domain: str
    max_gap: int
    number: int | None = None
    lost: int = 0

    def missing(self, frame: Frame) -> int:
        """Frames between the last one and this, and those since that were of no use."""
        last, self.number = self.number, frame.raw.frame_number
        gap = 0 if last is None else self.number - last - 1
        lost = max(gap if 0 < gap <= self.max_gap else 0, frame.dropped) + self.lost
        self.lost = 0
        return lost


@dataclass(frozen=True)
class _Tick:
    t_ns: int
    device_ns: int
    arrival_ns: int
    data: Array
    lost: int


class Samples:
    """Of one connection. place: (device stamp, arrival) -> capture time on the agent's clock.

    first: the first frame of each kind, as far as there is one; it is looked at, not used up.
    """

    def __init__(
        self,
        rs: Any,
        name: str,
        config: RealSenseConfig,
        modes: Mapping[str, Mode],
        first: Mapping[str, Frame],
        place: Callable[[int, int], int],
    ) -> None:
        self._name, self._modes, self._place = name, modes, place
        domains = {kind: frame.raw.frame_timestamp_domain.name for kind, frame in first.items()}
        any_domain = next(iter(domains.values()))
        self._sources = {
            kind: _Source(domains.get(kind, any_domain), MAX_GAP_S * mode.rate_hz)
            for kind, mode in modes.items()
        }
        self._clock_name = "device" if config.playback is None else "host"
        self._millimetres = Millimetres()
        self._fill = None
        if config.hole_filling != "none":
            self._fill = rs.hole_filling_filter(HOLES.index(config.hole_filling))
        self._view = {kind: kind for kind in ("depth", "color")}  # whose camera's view it shows
        self._aligner = None
        if config.align != "none":
            to, moved = ("color", "depth") if config.align == "colour" else ("depth", "color")
            self._view[moved] = to
            self._aligner = Aligner(rs, to, 500_000_000 // modes[to].rate_hz)
        self._merger = ImuMerger() if {"accel", "gyro"} <= modes.keys() else None
        self._raw_imu = config.raw_imu
        self._infos = self._describe()
        self._next_seq = dict.fromkeys(self._infos, 0)
        self._newest_ns = dict.fromkeys(self._infos, 0)
        self._arrival_ns = 0  # of what was told last

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        return tuple(self._infos.values())

    def convert(self, frames: Iterable[Frame]) -> list[Sample]:
        """What the frames complete, perhaps nothing; `arrival_ns` never goes back."""
        ticks: list[tuple[str, _Tick]] = []
        for frame in frames:
            ticks += self._ticks(frame)
        return self._blocks(ticks)

    def flush(self) -> list[Sample]:
        """What still waits for its partner, of a recording that is through."""
        ticks: list[tuple[str, _Tick]] = []
        if self._aligner is not None:
            ticks += [self._picture(*ready) for ready in self._aligner.flush()]
        if self._merger is not None:
            ticks += self._motion("imu", self._merger.flush())
        return self._blocks(ticks)

    def _ticks(self, frame: Frame) -> list[tuple[str, _Tick]]:
        source = self._sources[frame.kind]
        same_clock = frame.raw.frame_timestamp_domain.name == source.domain
        if frame.kind in ("depth", "color"):
            if not same_clock:
                source.lost = 1 + source.missing(frame)
                return []
            ready = [(frame, frame.raw)] if self._aligner is None else self._aligner.add(frame)
            return [self._picture(*each) for each in ready]
        lost = source.missing(frame)
        motion = frame.raw.as_motion_frame().get_motion_data()
        values = np.array([motion.x, motion.y, motion.z], np.float32)
        usable = bool(np.isfinite(values).all())
        if not (usable and same_clock):
            source.lost = 1 + lost
            return []
        reading = Reading(frame.device_ns, frame.arrival_ns, values, lost)
        ticks = self._motion(frame.kind, [reading]) if self._raw_imu else []
        if self._merger is not None:
            accel = frame.kind == "accel"
            add = self._merger.add_accel if accel else self._merger.add_gyro
            ticks += self._motion("imu", add(reading))
        return ticks

    def _picture(self, frame: Frame, shown: Any) -> tuple[str, _Tick]:
        """frame: as it came, with its stamp and number; shown: it, or what it was moved to."""
        lost = self._sources[frame.kind].missing(frame)
        if frame.kind == "depth":
            if self._fill is not None:
                shown = self._fill.process(shown)
            units_m = frame.raw.as_depth_frame().get_units()
            data = self._millimetres(np.asarray(shown.get_data()), units_m)
        else:
            picture = np.asarray(shown.get_data())
            bgr = self._modes["color"].format == "bgr8"
            data = np.array(picture[..., ::-1] if bgr else picture, order="C")
        return NAMES[frame.kind], self._tick(frame.device_ns, frame.arrival_ns, data, lost)

    def _motion(self, what: str, readings: Sequence[Reading]) -> list[tuple[str, _Tick]]:
        return [(what, self._tick(r.device_ns, r.arrival_ns, r.values, r.lost)) for r in readings]

    def _tick(self, device_ns: int, arrival_ns: int, data: Array, lost: int) -> _Tick:
        """arrival_ns: of its own frame, from which the agent learns the device's clock, and not
        of the one that it had to wait for."""
        return _Tick(self._place(device_ns, arrival_ns), device_ns, arrival_ns, data, lost)

    def _blocks(self, ticks: Sequence[tuple[str, _Tick]]) -> list[Sample]:
        """One sample of each run of motion readings without a gap, and of each picture."""
        runs: list[tuple[str, list[_Tick]]] = []
        open_runs: dict[str, list[_Tick]] = {}
        for what, tick in ticks:
            if what in open_runs and not tick.lost:
                open_runs[what].append(tick)
                continue
            runs.append((what, [tick]))
            if what in MOTION:
                open_runs[what] = runs[-1][1]
        runs.sort(key=lambda run: run[1][-1].arrival_ns)
        return [self._sample(what, run) for what, run in runs]

    def _sample(self, what: str, run: Sequence[_Tick]) -> Sample:
        lost = run[0].lost
        seq = self._next_seq[what] + lost
        self._next_seq[what] = seq + len(run)
        t_ns = np.array([tick.t_ns for tick in run], np.int64)
        t_ns = np.maximum.accumulate(np.maximum(t_ns, self._newest_ns[what]))
        self._newest_ns[what] = int(t_ns[-1])
        device_t_ns = np.array([tick.device_ns for tick in run], np.int64)
        data = run[0].data[np.newaxis] if len(run) == 1 else np.stack([t.data for t in run])
        # Another stream's may have been told while this one waited, or was faster in its thread.
        self._arrival_ns = max(self._arrival_ns, run[-1].arrival_ns)
        return Sample(self._infos[what], seq, t_ns, self._arrival_ns, data, device_t_ns, lost)

    def _describe(self) -> dict[str, StreamInfo]:
        infos = {}
        for kind in ("depth", "color"):
            if kind in self._modes:
                view = self._modes[self._view[kind]]
                picture = (view.height, view.width)
                infos[NAMES[kind]] = self._info(
                    kind,
                    modality="depth" if kind == "depth" else "image",
                    dtype="uint16" if kind == "depth" else "uint8",
                    shape=picture if kind == "depth" else (*picture, 3),
                    unit="mm" if kind == "depth" else "rgb8",
                    intrinsics=intrinsics_of(view.profile),
                )
        motion = ["imu"] if self._merger is not None else []
        if self._raw_imu:
            motion += [kind for kind in ("accel", "gyro") if kind in self._modes]
        for what in motion:
            unit, channels = MOTION[what]
            infos[what] = self._info(
                "gyro" if what == "imu" else what,
                modality=what,
                dtype="float32",
                shape=(len(channels),),
                unit=unit,
                channels=channels,
            )
        return infos

    def _info(self, kind: str, **fields: Any) -> StreamInfo:
        """A stream of a kind of frame; its place is told in the frame of the first camera."""
        mode, what = self._modes[kind], fields["modality"]
        view = self._view.get(kind, kind)
        root = next(k for k in ("depth", "color", kind) if self._view.get(k, k) in self._modes)
        root = self._view.get(root, root)
        name = f"{self._name}_{NAMES[kind] if kind in self._view else what}"
        frame_id = f"{self._name}_{NAMES[view] if kind in self._view else 'imu'}"
        parent = f"{self._name}_{NAMES[root] if root in self._view else 'imu'}"
        place = None
        if parent != frame_id:
            place = extrinsics_of(self._modes[view].profile, self._modes[root].profile, parent)
        return StreamInfo(
            name=name,
            rate_hz=float(mode.rate_hz),
            frame_id=frame_id,
            clock=self._clock_name,
            topic=f"realsense:{kind}",
            extrinsics=place,
            clock_domain=self._sources[kind].domain,
            **fields,
        )
