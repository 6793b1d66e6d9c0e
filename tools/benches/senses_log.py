"""A log of six streams, to be played at true speed: a camera that stands and one that walks, and
in each sense a happening now and then.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from agent.clock import NS_PER_S, ManualClock, SystemClock, from_s
from agent.errors import AgentError
from agent.record.writer import LogWriter
from agent.supervise import ThreadGroup
from agent.types import Array, Sample, StreamInfo

__all__ = ["write_log"]

INFOS = {
    info.name: info
    for info in (
        StreamInfo("camera", "image", "uint8", (480, 640, 3), 10.0, "rgb8"),
        StreamInfo("walker", "image", "uint8", (240, 320, 3), 10.0, "rgb8"),
        StreamInfo("microphone", "audio", "int16", (1,), 16_000.0, "full_scale"),
        StreamInfo("depth", "depth", "uint16", (240, 320), 5.0, "mm"),
        StreamInfo("thermal", "thermal", "uint16", (120, 160), 9.0, "counts"),
        StreamInfo("imu", "imu", "float32", (6,), 100.0, "m/s^2,rad/s"),
    )
}
CHANGE_S = 20  # from one happening to the next, in each sense at a time of its own
LASTS_S = 3
QUEUED_TICKS = 300_000  # that the writer may be behind, so that a log of any length fits in memory


def write_log(path: Path, duration_s: float) -> Iterator[int]:
    """Write it, the same for the same duration; gives each second as it is done.

    Raises AgentError where a tick was dropped on the way, RecordError where it cannot be written.
    """
    system = SystemClock()
    writer = LogWriter(path, clock=ManualClock(), agent="bench", boot_id="bench", max_queue_mb=4096)
    for info in INFOS.values():
        writer.add_stream(info)
    scene = _Scene(np.random.default_rng(1))
    with ThreadGroup() as group:
        group.start("writer", writer.run)
        for second in range(round(duration_s)):
            for sample in scene.second(second):
                writer.put(sample)
            while sum(c.received - c.written for c in writer.ledger.values()) > QUEUED_TICKS:
                if group.failed:
                    break
                system.wait_until_ns(system.now_ns() + from_s(0.05))
            yield second + 1
    if writer.dropped:
        raise AgentError(f"{path}: {writer.dropped} ticks dropped while it was made")


class _Scene:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._rooms = [self._texture(480, 640) for _ in range(6)]
        self._street = self._texture(240, 2400)
        self._walls = [1500 + 10.0 * self._texture(240, 320)[..., 0] for _ in range(6)]

    def second(self, number: int) -> Iterator[Sample]:
        """All blocks of one second, in the order of their stamps."""
        made = []
        for name, info in INFOS.items():
            assert info.rate_hz is not None
            count = round(info.rate_hz)
            ticks = np.arange(number * count, (number + 1) * count)
            t_ns = (ticks * NS_PER_S) // count
            data = getattr(self, f"_{name}")(number, ticks / count)
            size = 1 if data.ndim > 2 else count // 10
            for first in range(0, count, size):
                part = slice(first, first + size)
                stamps = t_ns[part]
                block = np.ascontiguousarray(data[part].astype(info.dtype))
                made.append(Sample(info, int(ticks[first]), stamps, int(stamps[-1]), block))
        return iter(sorted(made, key=lambda sample: sample.arrival_ns))

    def _happens(self, number: int, offset_s: int) -> bool:
        return (number + offset_s) % CHANGE_S < LASTS_S

    def _camera(self, number: int, t_s: Array) -> Array:
        room = self._rooms[number // CHANGE_S % len(self._rooms)].astype(np.int16)
        noise = self._rng.integers(-1, 2, (len(t_s), 480, 640, 1), np.int16)
        frames: Array = np.clip(room + noise, 0, 255)
        if self._happens(number, 5):
            frames[:, 200:320, 240:360] = 255 - frames[:, 200:320, 240:360]
        return frames

    def _walker(self, number: int, t_s: Array) -> Array:
        starts = (40 * t_s).astype(int) % (self._street.shape[1] - 320)
        return np.stack([self._street[:, start : start + 320] for start in starts])

    def _microphone(self, number: int, t_s: Array) -> Array:
        sound: Array = self._rng.normal(0, 30, (len(t_s), 1))
        if self._happens(number, 9):
            sound[:, 0] += 8000 * np.sin(2 * np.pi * (300 + 100 * (number % 7)) * t_s)
        return sound

    def _depth(self, number: int, t_s: Array) -> Array:
        wall = self._walls[number // CHANGE_S % len(self._walls)]
        frames: Array = np.repeat(wall[np.newaxis], len(t_s), axis=0)
        if self._happens(number, 13):
            frames[:, 60:200, 100:200] = 900
        return frames

    def _thermal(self, number: int, t_s: Array) -> Array:
        frames: Array = self._rng.normal(7400, 3, (len(t_s), 120, 160))
        if self._happens(number, 2):
            frames[:, 30:110, 60:100] += 900
        return frames

    def _imu(self, number: int, t_s: Array) -> Array:
        rest: Array = self._rng.normal(0, 0.02, (len(t_s), 6))
        rest[:, 2] += 9.81
        if number // (2 * CHANGE_S) % 2:  # walking, and standing
            rest += np.sin(2 * np.pi * 1.8 * t_s[:, np.newaxis] + np.arange(6)) * 2
        return rest

    def _texture(self, height: int, width: int) -> Array:
        """uint8 (height, width, 3) with detail at every scale, as nature has."""
        noise = self._rng.normal(size=(height, width, 3))
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        falling = (np.hypot(rows, columns) + 1 / width)[..., None]
        picture = np.fft.irfft2(
            np.fft.rfft2(noise, axes=(0, 1)) / falling, s=(height, width), axes=(0, 1)
        )
        pixels: Array = np.clip(128 + 45 * picture / picture.std(), 0, 255).astype(np.uint8)
        return pixels
