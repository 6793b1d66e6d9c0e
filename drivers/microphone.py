"""Driver `microphone`: a sound input by name or index, through PortAudio.

One stream, named as the driver: int16 (channels,). PortAudio's own thread puts each block into a
bounded queue, where a block for which there is no room is dropped and counted. A block's capture
time is PortAudio's time of its first tick, moved to the agent's clock in the same callback: its
epoch differs between host APIs, so only its distance from PortAudio's own "now" is used.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta

from agent.clock import Clock, from_s
from agent.errors import ConfigError, DeviceBusy, DeviceLost, DeviceNotFound, ReadTimeout
from agent.extras import needs_extra
from agent.types import Sample, Settings, StreamInfo
from drivers._audio_time import AudioTimeline

__all__ = ["PLUGIN", "MicrophoneConfig", "MicrophoneDriver"]

PA_DEVICE_UNAVAILABLE = -9985  # paDeviceUnavailable in portaudio.h
# Some host APIs leave the capture time at 0; no sound waits this long in one that does not.
MAX_LATENCY_S = 10.0

Positive = Annotated[float, Meta(gt=0)]


class MicrophoneConfig(Settings, frozen=True, kw_only=True):
    """device: "default", an index, or a part of one device's name. rate_hz: None for the device's
    own. block_s: sound in one block. queue_s: sound that may wait to be read.
    """

    device: Annotated[str, Meta(min_length=1)] = "default"
    rate_hz: Annotated[int, Meta(ge=1000, le=768_000)] | None = None
    channels: Annotated[int, Meta(ge=1, le=64)] = 1
    block_s: Annotated[float, Meta(ge=0.001, le=1)] = 0.02
    queue_s: Positive = 2.0


@dataclass(frozen=True)
class _Block:
    """What the callback keeps: bytes of int16, and what `AudioTimeline.stamp` needs to know."""

    data: bytes
    capture_ns: int
    arrival_ns: int
    dropped: int
    overflow: bool


class _Receiver:
    """The end of the queue that PortAudio's thread has; the driver has the other."""

    def __init__(self, clock: Clock, rate_hz: int, max_blocks: int) -> None:
        self.blocks: queue.Queue[_Block] = queue.Queue(max_blocks)
        self._clock, self._rate_hz = clock, rate_hz
        self._dropped, self._overflow = 0, False

    def __call__(self, data: Any, count: int, time: Any, status: Any) -> None:
        """PortAudio's callback: keep `count` ticks, or count them where there is no room."""
        arrival_ns = self._clock.now_ns()
        latency_s = time.currentTime - time.inputBufferAdcTime
        if not 0 <= latency_s <= MAX_LATENCY_S:
            latency_s = count / self._rate_hz
        capture_ns = arrival_ns - from_s(latency_s)
        self._overflow |= status.input_overflow
        block = _Block(bytes(data), capture_ns, arrival_ns, self._dropped, self._overflow)
        try:
            self.blocks.put_nowait(block)
        except queue.Full:
            self._dropped += count
        else:
            self._dropped, self._overflow = 0, False


@dataclass
class _Run:
    """What lasts from connect to disconnect."""

    stream: Any
    info: StreamInfo
    blocks: queue.Queue[_Block]
    timeline: AudioTimeline
    next_seq: int = 0


class MicrophoneDriver:
    """See the module docstring. `seq` counts ticks since connect, with the lost ones."""

    Config = MicrophoneConfig

    # PortAudio and its list of devices belong to the process, not to a stream.
    _portaudio: ClassVar[threading.Lock] = threading.Lock()
    _streams_open: ClassVar[int] = 0

    def __init__(self, name: str, config: MicrophoneConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"microphone {name}: device {config.device!r}"
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the device decides the rate."""
        return self._streams

    def connect(self) -> None:
        """Start to record.

        Raises DeviceNotFound (no such input, rate or channels not possible), DeviceBusy,
        ConfigError without sounddevice or the PortAudio library.
        """
        self.disconnect()
        sd = _import_sounddevice()
        with self._portaudio:
            if not MicrophoneDriver._streams_open:
                # PortAudio looks for devices only when it starts: what was plugged in since, or
                # a sound server that is back, it would not know. To start again ends all streams.
                sd._terminate()
                sd._initialize()
            self._run = self._open(sd, self._find(sd))
            MicrophoneDriver._streams_open += 1
        self._streams = (self._run.info,)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next block, in order.

        Raises ReadTimeout where none has come, DeviceLost once the device has stopped and all
        that it gave has been read, and when not connected.
        """
        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        try:
            block = run.blocks.get(timeout=timeout_s)
        except queue.Empty as exc:
            if not run.stream.active:
                raise DeviceLost(f"{self._label}: has stopped") from exc
            raise ReadTimeout(f"{self._label}: no sound for {timeout_s:g} s") from exc
        data = np.frombuffer(block.data, np.int16).reshape(-1, *run.info.shape)
        t_ns, lost = run.timeline.stamp(
            len(data), block.capture_ns, block.arrival_ns, block.dropped, block.overflow
        )
        seq = run.next_seq + lost
        run.next_seq = seq + len(data)
        return [Sample(run.info, seq, t_ns, block.arrival_ns, data, lost=lost)]

    def disconnect(self) -> None:
        """Stop recording. Idempotent."""
        run, self._run = self._run, None
        if run is not None:
            with self._portaudio:
                run.stream.abort()
                run.stream.close()
                MicrophoneDriver._streams_open -= 1

    def _find(self, sd: Any) -> dict[str, Any]:
        """PortAudio's description of the input that the config names."""
        wanted = self._config.device
        device = None if wanted == "default" else int(wanted) if wanted.isdecimal() else wanted
        try:
            found: dict[str, Any] = sd.query_devices(device, "input")
        except (ValueError, sd.PortAudioError) as exc:
            inputs = [d for d in sd.query_devices() if d["max_input_channels"]]
            names = ", ".join(f"{d['index']} {d['name']!r}" for d in inputs) or "none at all"
            raise DeviceNotFound(f"{self._label}: names no one input; there are: {names}") from exc
        return found

    def _open(self, sd: Any, device: dict[str, Any]) -> _Run:
        c = self._config
        rate_hz = c.rate_hz or round(device["default_samplerate"])
        receiver = _Receiver(self._clock, rate_hz, math.ceil(c.queue_s / c.block_s))
        stream = None
        try:
            stream = sd.RawInputStream(
                samplerate=rate_hz,
                blocksize=max(1, round(c.block_s * rate_hz)),
                device=device["index"],
                channels=c.channels,
                dtype="int16",
                callback=receiver,
            )
            stream.start()
        except sd.PortAudioError as exc:
            if stream is not None:
                stream.close()
            reason, code = (*exc.args, 0)[:2]
            error = DeviceBusy if code == PA_DEVICE_UNAVAILABLE else DeviceNotFound
            asked = f"rate_hz {rate_hz}, channels {c.channels}"
            raise error(f"{self._label}: cannot be opened with {asked}: {reason}") from exc
        info = StreamInfo(
            name=self._name,
            modality="audio",
            dtype="int16",
            shape=(c.channels,),
            rate_hz=rate_hz,
            unit="full_scale",
            topic=f"portaudio:{device['name']}",
        )
        return _Run(stream, info, receiver.blocks, AudioTimeline(rate_hz))


def _import_sounddevice() -> Any:
    with needs_extra("microphone"):
        try:
            import sounddevice
        except OSError as exc:  # it is there, and does not find the library
            raise ConfigError(
                "the PortAudio library is not installed: run  apt-get install libportaudio2"
            ) from exc
    return sounddevice


PLUGIN = MicrophoneDriver
