"""Driver `media`: any video or audio file, image, image sequence or URL that FFmpeg can open.

Each track is a stream: `<name>` where there is one, else `<name>_video` and `<name>_audio`, with
a number from the second of a kind on (`<name>_audio_2`). Video is uint8 RGB (height, width, 3),
upright; audio is int16 (channels,) at its native rate.

A file is played on the agent's clock: t_ns = start + (presentation time - first presentation
time) / speed, to 1 ns and from exact fractions, the same line for all tracks, so that tracks
cannot drift apart. A radiometric JPEG of FLIR's has a stream `<name>_thermal` too, float32
Celsius. A live source (a URL without a known length) is not paced: it is stamped as
its packets arrive, and where it has a clock of its own that goes into `device_t_ns`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from agent.clock import NS_PER_S, Clock
from agent.errors import BadData, DeviceLost, DeviceNotFound, EndOfStream
from agent.flir_jpeg import thermal_picture
from agent.redact import redact
from agent.types import Array, Int64Array, Sample, Settings, StreamInfo
from drivers._av.reader import MediaReader
from drivers._av.tracks import Block
from drivers._pacing import ns_per_s, ticks_ns, wait_until_due

__all__ = ["PLUGIN", "MediaConfig", "MediaDriver"]

logger = logging.getLogger(__name__)


class MediaConfig(Settings, frozen=True, kw_only=True):
    """path or url: one of them; a path may be an image pattern ("frame_%04d.png"). speed: 1 true
    speed, 2 double, 0 as fast as it can be read. loop: start again at the end; stamps go on.
    width, height: scale pictures down, aspect kept, to fit. network_timeout_s: a URL silent for
    longer is lost; one read() of a URL can block for as long.
    """

    path: Path | None = None
    url: Annotated[str, Meta(pattern="^[a-z0-9+.:]+://")] | None = None
    speed: Annotated[float, Meta(ge=0, le=1000)] = 1.0
    loop: bool = False
    width: Annotated[int, Meta(ge=1)] | None = None
    height: Annotated[int, Meta(ge=1)] | None = None
    network_timeout_s: Annotated[float, Meta(gt=0)] = 5.0

    def __post_init__(self) -> None:
        if (self.path is None) == (self.url is None):
            raise ValueError("exactly one of path, url is needed")

    @property
    def source(self) -> str:
        """What FFmpeg opens; it may hold a password."""
        return self.url if self.url is not None else str(self.path)


@dataclass
class _Run:
    """What lasts from connect to disconnect. shift_s: media time at which this pass of a loop
    began; end_s: to which all passes have come. next_seq, last_t_ns: by stream.
    """

    reader: MediaReader
    start_ns: int
    next_seq: list[int]
    last_t_ns: list[int]
    shift_s: Fraction = Fraction(0)
    end_s: Fraction = Fraction(0)
    pending: tuple[int, Block, Int64Array] | None = None


class MediaDriver:
    """See the module docstring. With speed 0 `arrival_ns` is the capture time of the last tick."""

    Config = MediaConfig

    def __init__(self, name: str, config: MediaConfig, clock: Clock) -> None:
        self._config, self._clock, self._name = config, clock, name
        self._label = f"media {name}: {redact(config.source)}"
        self._ns_per_s = ns_per_s(config.speed)
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None
        self._latest_ns = 0
        self._thermal: tuple[StreamInfo, Array] | None = None

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect."""
        return self._streams

    def connect(self) -> None:
        """Open the source and find its tracks.

        Raises DeviceNotFound (no such file, not a media file, refused), ConfigError without PyAV.
        """
        self.disconnect()
        reader = self._open()
        self._streams = self._describe(reader)
        count = len(self._streams)
        self._thermal = self._find_thermal()
        if self._thermal is not None:
            self._streams += (self._thermal[0],)
        # An unpaced source runs ahead of the clock; a second connect must not go back.
        start_ns = max(self._clock.now_ns(), self._latest_ns)
        self._run = _Run(
            reader, start_ns, next_seq=[0] * count, last_t_ns=[self._latest_ns] * count
        )

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next block of one track, in the order in which blocks are complete.

        Raises ReadTimeout where it is due later, BadData once a packet that cannot be decoded,
        EndOfStream after the last block, DeviceLost for a URL that fails or is not connected.
        """
        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        if run.pending is None:
            run.pending = self._next(run)
        index, block, t_ns = run.pending
        due_ns = int(t_ns[-1])
        if run.reader.live:
            arrival_ns = max(block.arrival_ns, self._latest_ns)
        elif self._config.speed:
            wait_until_due(self._clock, due_ns, timeout_s, self._label)
            arrival_ns = self._clock.now_ns()
        else:
            arrival_ns = max(due_ns, self._latest_ns)
        run.pending = None
        self._latest_ns = max(arrival_ns, due_ns)
        info = self._streams[index]
        device_t_ns = None
        if info.clock == "device":
            device_t_ns = ticks_ns(block.time_s * NS_PER_S, block.step_s * NS_PER_S, len(t_ns))
        seq = run.next_seq[index] + block.lost
        run.next_seq[index] = seq + len(t_ns)
        samples = [Sample(info, seq, t_ns, arrival_ns, block.data, device_t_ns, block.lost)]
        if self._thermal is not None:
            thermal, celsius = self._thermal
            samples.append(Sample(thermal, seq, t_ns, arrival_ns, celsius[None], lost=block.lost))
        return samples

    def disconnect(self) -> None:
        """Close the source. Idempotent."""
        if self._run is not None:
            self._run.reader.close()
        self._run = None

    def _open(self) -> MediaReader:
        c, now_ns = self._config, self._clock.now_ns
        return MediaReader(self._name, c.source, c.width, c.height, c.network_timeout_s, now_ns)

    def _find_thermal(self) -> tuple[StreamInfo, Array] | None:
        """The thermal picture that comes with a JPEG's own, of which there is one."""
        path = self._config.path
        if path is None or path.suffix.lower() not in (".jpg", ".jpeg") or not path.is_file():
            return None
        try:
            celsius = thermal_picture(path.read_bytes(), self._label)
        except (BadData, OSError) as exc:
            logger.warning("%s; only the visible one is played", exc)
            return None
        if celsius is None:
            return None
        height, width = celsius.shape
        name = f"{self._name}_thermal"
        rate_hz = self._streams[0].rate_hz
        shape, topic = (height, width), f"{path}#thermal"
        return StreamInfo(name, "thermal", "float32", shape, rate_hz, "c", topic=topic), celsius

    def _describe(self, reader: MediaReader) -> tuple[StreamInfo, ...]:
        timed = reader.has_stamps or not reader.live
        return tuple(
            StreamInfo(
                name=track.name,
                modality="audio" if track.kind == "audio" else "image",
                dtype="int16" if track.kind == "audio" else "uint8",
                shape=track.shape,
                # Where a live source has no stamps, FFmpeg makes a rate up.
                rate_hz=float(track.rate) if track.rate and timed else None,
                unit="full_scale" if track.kind == "audio" else "rgb8",
                clock="device" if reader.live and timed else "host",
                topic=f"{redact(self._config.source)}#{track.stream.index}",
            )
            for track in reader.tracks
        )

    def _next(self, run: _Run) -> tuple[int, Block, Int64Array]:
        """The next block with its stamps; starts again at the end of a loop."""
        item = run.reader.next()
        if item is None and self._config.loop:
            self._rewind(run)
            item = run.reader.next()
        if item is None:
            raise EndOfStream(f"{self._label}: played to its end")
        index, block = item
        offset_s = block.time_s - run.reader.origin_s + run.shift_s
        run.end_s = max(run.end_s, block.end_s - block.time_s + offset_s)
        if run.reader.live:
            first_ns = block.arrival_ns - (block.last_s - block.time_s) * NS_PER_S
            t_ns = ticks_ns(first_ns, block.step_s * NS_PER_S, len(block.data))
        else:
            first_ns = run.start_ns + offset_s * self._ns_per_s
            t_ns = ticks_ns(first_ns, block.step_s * self._ns_per_s, len(block.data))
        np.maximum(t_ns, run.last_t_ns[index], out=t_ns)
        run.last_t_ns[index] = int(t_ns[-1])
        return index, block, t_ns

    def _rewind(self, run: _Run) -> None:
        """Open the source again: not every container can seek back to its first packet."""
        run.reader.close()
        try:
            run.reader = self._open()
        except DeviceNotFound as exc:
            raise DeviceLost(f"{exc} (while looping)") from exc
        if self._describe(run.reader) != self._streams[: len(run.next_seq)]:
            raise DeviceLost(f"{self._label}: its tracks have changed while looping")
        run.shift_s = run.end_s


PLUGIN = MediaDriver
