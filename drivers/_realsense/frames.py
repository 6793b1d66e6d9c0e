"""RealSense frames: the bounded queue they arrive in, their alignment, and depth in millimetres."""

from __future__ import annotations

import queue
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.clock import Clock
from agent.errors import ReadTimeout
from agent.types import Array

__all__ = ["Aligner", "Frame", "Millimetres", "Receiver"]

POLL_S = 0.05
KINDS = ("depth", "color", "accel", "gyro")


@dataclass(frozen=True)
class Frame:
    """One frame of the SDK: kind is a name of rs.stream; dropped: of its kind, just before it."""

    kind: str
    raw: Any
    arrival_ns: int
    dropped: int = 0

    @property
    def device_ns(self) -> int:
        """The SDK tells it in float64 milliseconds: exact to 0.25 us for a time of today."""
        return round(float(self.raw.timestamp) * 1_000_000)


class Receiver:
    """The end of the queue that the SDK's threads have; the driver has the other.

    Live, a frame for which there is no room is dropped and counted. In playback the SDK is made
    to wait, until `close`. After a recording's last frame the queue holds a None. heard_ns: when
    each kind last came, dropped or not.
    """

    def __init__(self, rs: Any, label: str, clock: Clock, max_frames: int, live: bool) -> None:
        self._frames: queue.Queue[Frame | None] = queue.Queue(max_frames)
        self._kinds = {getattr(rs.stream, kind): kind for kind in KINDS}
        self._stopped = rs.playback_status.stopped
        self._label, self._clock, self._live, self._closed = label, clock, live, False
        self._dropped: Counter[str] = Counter()
        self.heard_ns: dict[str, int] = {}

    def __call__(self, raw: Any) -> None:
        """The SDK's callback, in a thread of its own for each sensor."""
        arrival_ns = self._clock.now_ns()
        kind = self._kinds.get(raw.profile.stream_type())
        if kind is None or self._closed:
            return
        self.heard_ns[kind] = arrival_ns
        raw.keep()  # else it stays one of the few that the SDK has for new frames
        if not self._live:
            self._put(Frame(kind, raw, arrival_ns))
            return
        try:
            self._frames.put_nowait(Frame(kind, raw, arrival_ns, self._dropped[kind]))
        except queue.Full:
            self._dropped[kind] += 1
        else:
            self._dropped[kind] = 0

    def on_status(self, status: Any) -> None:
        """The SDK's callback for the state of a playback; it comes after the last frame."""
        if status == self._stopped:
            self._put(None)

    def get(self, timeout_s: float) -> Frame | None:
        """The next frame, None after the last. Raises ReadTimeout where none has come."""
        try:
            return self._frames.get(timeout=max(0.0, timeout_s))
        except queue.Empty as exc:
            raise ReadTimeout(f"{self._label}: no frame for {timeout_s:g} s") from exc

    def take(self, timeout_s: float, count: int) -> list[Frame]:
        """Frames of a live device that wait, at least one, `count` at most. Raises ReadTimeout."""
        frames = [self.get(timeout_s)]
        while len(frames) < count and not self._frames.empty():
            frames.append(self._frames.get_nowait())
        return [frame for frame in frames if frame is not None]

    def close(self) -> None:
        """Let go of the SDK's threads and of all frames: what comes now is dropped."""
        self._closed = True
        while not self._frames.empty():
            self._frames.get_nowait()

    def _put(self, item: Frame | None) -> None:
        while not self._closed:
            try:
                self._frames.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return


class Millimetres:
    """Depth in an SDK's units to uint16 millimetres: exact where a unit is 1 mm.

    A distance is rounded to the nearest; one beyond 65 535 mm becomes 0, no measurement.
    """

    def __init__(self) -> None:
        self._units_m = 0.0
        self._table: Array | None = None

    def __call__(self, depth: Array, units_m: float) -> Array:
        """A new uint16 array of the same shape. units_m: metres a step, a float32's value."""
        if units_m != self._units_m:
            # The shortest decimal of that float32 is what was meant: 0.001, not 0.00100000005.
            mm = float(str(np.float32(units_m))) * 1000
            exact = np.rint(np.arange(65536) * mm)
            self._table = None
            if mm != 1:
                self._table = np.where(exact <= 65535, exact, 0).astype(np.uint16)
            self._units_m = units_m
        return depth.copy() if self._table is None else self._table[depth]


class Aligner:
    """Moves depth to the colour camera's view, or colour to the depth camera's (rs.align).

    Depth is moved by geometry alone, and goes with any colour picture; colour needs the depth of
    its moment, and waits for one stamped no more than `tolerance_ns` before it. A picture that
    the next of its kind overtakes goes with the newest there is, or is lost where there is none.
    """

    def __init__(self, rs: Any, to: str, tolerance_ns: int) -> None:
        self._moved = "depth" if to == "color" else "color"
        self._align = rs.align(getattr(rs.stream, to))
        self._tolerance_ns = tolerance_ns
        self._partner: Frame | None = None
        self._held: deque[Frame] = deque()
        # The SDK makes a frameset of two frames only inside a processing block.
        # It must not hold `self`: a loop through C++ is never collected.
        self._pair = pair = list[Any]()
        self._sets = rs.frame_queue(1)
        self._block = rs.processing_block(
            lambda _, source: source.frame_ready(source.allocate_composite_frame(pair))
        )
        self._block.start(self._sets)

    def add(self, frame: Frame) -> list[tuple[Frame, Any]]:
        """(frame as it came, frame to show) of all that is ready."""
        if frame.kind != self._moved:
            self._partner = frame
            return [(frame, frame.raw), *self._ready(waiting=len(self._held))]
        self._held.append(frame)
        return self._ready(waiting=1)

    def flush(self) -> list[tuple[Frame, Any]]:
        """All that still waits: there is no more to come."""
        return self._ready(waiting=0)

    def _ready(self, waiting: int) -> list[tuple[Frame, Any]]:
        """waiting: how many may go on waiting for their partner."""
        told = []
        while self._held:
            frame, partner = self._held[0], self._partner
            fits = partner is not None and (
                frame.kind == "depth" or partner.device_ns >= frame.device_ns - self._tolerance_ns
            )
            if not fits and len(self._held) <= waiting:
                break
            self._held.popleft()
            if partner is not None:
                told.append((frame, self._moved_to(frame.raw, partner.raw)))
        return told

    def _moved_to(self, raw: Any, partner: Any) -> Any:
        self._pair[:] = raw, partner
        self._block.invoke(raw)
        frames = self._align.process(self._sets.wait_for_frame().as_frameset())
        self._pair.clear()
        return frames.get_depth_frame() if self._moved == "depth" else frames.get_color_frame()
