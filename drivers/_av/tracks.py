"""One track of an opened PyAV container: packets in, blocks of ticks out.

Media times are exact Fractions of seconds on the source's own time line; none is made by adding
up rounded durations.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from agent.types import Array

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["AudioTrack", "Block", "VideoTrack"]

# A decoder's audio frame is passed on as it is up to here (AAC 21 ms, FLAC 93 ms); a longer one
# (PCM in AVI: up to a second) is cut, as a paced block is handed over when its last tick is due.
MAX_BLOCK_S = Fraction(1, 10)


@dataclass(frozen=True)
class Block:
    """Consecutive ticks of one track.

    data: uint8 (1, height, width, 3) or int16 (n, channels); it may share the decoder's memory,
    which lives as long as the array does. time_s: media time of the first tick. step_s: from one
    tick to the next (a video frame's duration). arrival_ns: when its packet had been read.
    lost: ticks known to be missing just before it.
    """

    data: Array
    time_s: Fraction
    step_s: Fraction
    arrival_ns: int
    lost: int

    @property
    def last_s(self) -> Fraction:
        """Media time of the last tick."""
        return self.time_s + (len(self.data) - 1) * self.step_s

    @property
    def end_s(self) -> Fraction:
        """Media time at which the next tick is expected."""
        return self.time_s + len(self.data) * self.step_s


class _Track:
    """Packets of one track, decoded only when its next block is asked for."""

    kind: Literal["video", "audio"]
    name = ""

    def __init__(self, stream: VideoStream | AudioStream) -> None:
        assert stream.time_base is not None  # set by libavformat for every stream it has opened
        self.stream = stream
        self.time_base = stream.time_base
        self.packets: deque[tuple[Packet[Any], int]] = deque()
        self.blocks: deque[Block] = deque()
        self.demuxed_to_s: Fraction | None = None
        self.expected_s: Fraction | None = None

    def push(self, packet: Packet[Any], arrival_ns: int) -> None:
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is not None:
            self.demuxed_to_s = stamp * self.time_base
        self.packets.append((packet, arrival_ns))

    def _time_s(self, pts: int | None) -> Fraction:
        """A frame's media time; where the container gives none, when it was to be expected."""
        if pts is not None:
            return pts * self.time_base
        return self.expected_s or Fraction(0)


class VideoTrack(_Track):
    """A track of pictures: RGB, upright, every one of the same `shape`."""

    kind = "video"

    def __init__(self, stream: VideoStream, max_width: int | None, max_height: int | None) -> None:
        from av.video.reformatter import VideoReformatter

        super().__init__(stream)
        self.rate = stream.average_rate or stream.guessed_rate
        self._max = (max_width, max_height)
        self._reformatter = VideoReformatter()
        self._quarter_turns: int | None = None
        self._lost = 0
        self._native = (stream.width, stream.height)
        self._size = self._fit(*self._native)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 3), after scaling and turning upright."""
        width, height = self._size
        return (width, height, 3) if (self._quarter_turns or 0) % 2 else (height, width, 3)

    def _fit(self, width: int, height: int, turned: bool = False) -> tuple[int, int]:
        """Scale down, never up, until the upright picture fits the limits; aspect kept."""
        max_width, max_height = reversed(self._max) if turned else self._max
        scale = min(1.0, (max_width or width) / width, (max_height or height) / height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def skip(self) -> None:
        """Count a picture that could not be decoded."""
        self._lost += 1

    def add(self, frame: VideoFrame, arrival_ns: int) -> None:
        if self._quarter_turns is None:
            # The rotation is counter-clockwise degrees, as np.rot90 counts.
            self._quarter_turns = round(frame.rotation / 90) % 4
            turned = self._quarter_turns % 2 == 1
            self._size = self._fit(*self._native, turned)
        width, height = self._size
        rgb: Array = self._reformatter.reformat(frame, width, height, "rgb24").to_ndarray()
        if self._quarter_turns:
            rgb = np.ascontiguousarray(np.rot90(rgb, self._quarter_turns))
        time_s = self._time_s(frame.pts)
        step_s = frame.duration * self.time_base or 1 / (self.rate or Fraction(25))
        self.blocks.append(Block(rgb[np.newaxis], time_s, step_s, arrival_ns, self._lost))
        self.expected_s = time_s + step_s
        self._lost = 0


class AudioTrack(_Track):
    """A track of sound: int16, interleaved, at its native rate and channel count."""

    kind = "audio"

    def __init__(self, stream: AudioStream) -> None:
        super().__init__(stream)
        self.rate = stream.codec_context.sample_rate
        self.layout = stream.codec_context.layout
        self.shape = (self.layout.nb_channels,)
        self._resampler: AudioResampler | None = None
        self._input: tuple[str, str, int] | None = None
        # Containers round stamps to their time base (Matroska: 1 ms) and encoders jitter by less
        # than a millisecond: within that, samples are counted, which is exact.
        self._tolerance_s = max(self.time_base, Fraction(1, 1000)) + Fraction(1, self.rate)

    def skip(self) -> None:
        """A packet that could not be decoded shows as a gap before the next one."""

    def add(self, frame: AudioFrame, arrival_ns: int) -> None:
        from av.audio.resampler import AudioResampler

        key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or key != self._input:
            self._resampler, self._input = AudioResampler("s16", self.layout, self.rate), key
        time_s, lost = self._time_s(frame.pts), 0
        if self.expected_s is not None:
            gap_s = time_s - self.expected_s
            if gap_s > self._tolerance_s:
                lost = round(gap_s * self.rate)
            else:
                # An overlap is counted on, too: stamps never go back.
                time_s = self.expected_s
        for converted in self._resampler.resample(frame):
            data = converted.to_ndarray().reshape(-1, *self.shape)
            pieces = max(1, math.ceil(len(data) / (MAX_BLOCK_S * self.rate)))
            for piece in np.array_split(data, pieces):
                block = Block(piece, time_s, Fraction(1, self.rate), arrival_ns, lost)
                self.blocks.append(block)
                time_s, lost = block.end_s, 0
        self.expected_s = time_s
