"""Driver `microphone`: a sound input by name or index, through PortAudio.

One stream, named as the driver: int16 (channels,). PortAudio's own thread puts each block into a
bounded queue, where a block for which there is no room is dropped and counted. A block's capture
time is PortAudio's time of its first tick, on a clock whose epoch differs between host APIs; its
offset to the agent's is learnt from the callbacks.

A sound server that hangs sets no flag, and to close its stream would not return: a stream that
does not call back for `watchdog_s` is lost and put aside, and opened anew once it goes on. To
open one on a server that hangs does block, and one whose server dies may never end: by default a
microphone has a process of its own, which can be killed.
"""

from __future__ import annotations

import math
import queue
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta

from agent.clock import Clock, from_s, to_s
from agent.contracts import Device
from agent.errors import DeviceBusy, DeviceLost, DeviceNotFound, ReadTimeout
from agent.types import Array, Int64Array, Sample, Settings, StreamInfo
from drivers._microphone.devices import SoundInput, find_input, import_sounddevice, list_devices
from drivers._microphone.portaudio import PORTAUDIO, Block, OpenStream, Receiver, threads_now
from drivers._microphone.resample import Resampler
from drivers._microphone.timeline import AudioTimeline

__all__ = ["PLUGIN", "MicrophoneConfig", "MicrophoneDriver"]

# Of portaudio.h: paDeviceUnavailable, paInvalidSampleRate, paInvalidChannelCount.
UNAVAILABLE, BAD_RATE, BAD_CHANNELS = -9985, -9997, -9998

Positive = Annotated[float, Meta(gt=0)]
RateHz = Annotated[int, Meta(ge=1000, le=768_000)]
Count = Annotated[int, Meta(ge=1, le=64)]
Channel = Annotated[int, Meta(ge=0, le=63)]
Channels = Annotated[tuple[Channel, ...], Meta(min_length=1, max_length=64)]


class MicrophoneConfig(Settings, frozen=True, kw_only=True):
    """device: "default", an index, a name or a part of one that no other input has, or a link of
    udev (/dev/snd/by-id/..., /dev/snd/by-path/...). rate_hz: None for the device's own.
    channels: how many, or which ones, counted from 0: 1 is the first, [1] the second, both mono.
    block_s: sound in one block. queue_s: sound that may wait to be read. watchdog_s: silence of
    PortAudio, not of the room, that means that it hangs.

    device_rate_hz, device_channels: what the device is opened with. By default the rate asked for,
    and the device's own where it refuses, resampled here; and as many channels as are needed. A
    sound server refuses nothing, and has its own way of both. To choose among the channels of a
    device behind one, say how many it has; and its rate keeps what the server's resampling cuts
    off (PulseAudio from 48 to 16 kHz by default: 1 dB at 6 kHz, 8 dB at 7 kHz).
    """

    device: Annotated[str, Meta(min_length=1)] | Annotated[int, Meta(ge=0)] = "default"
    rate_hz: RateHz | None = None
    channels: Count | Channels = 1
    block_s: Annotated[float, Meta(ge=0.001, le=1)] = 0.02
    queue_s: Positive = 2.0
    watchdog_s: Annotated[float, Meta(ge=0.1, le=8)] = 1.0
    device_rate_hz: RateHz | None = None
    device_channels: Count | None = None

    def __post_init__(self) -> None:
        needed = max(self.picked) + 1
        if self.device_channels is not None and self.device_channels < needed:
            raise ValueError(
                f"device_channels: got {self.device_channels}, expected at least {needed} "
                f"for channels {self.channels}"
            )
        if self.watchdog_s < 2 * self.block_s:
            raise ValueError(
                f"watchdog_s: got {self.watchdog_s:g}, expected at least two blocks "
                f"of {self.block_s:g} s"
            )

    @property
    def picked(self) -> tuple[int, ...]:
        """The device's channels that are given, in order."""
        return tuple(range(self.channels)) if isinstance(self.channels, int) else self.channels


@dataclass
class _Run:
    """What lasts from connect to disconnect. channels: of the device as it is open."""

    info: StreamInfo
    source: OpenStream
    channels: int
    picked: tuple[int, ...]
    timeline: AudioTimeline
    resampler: Resampler | None
    next_seq: int = 0
    lost: int = 0
    last_ns: int = 0

    def take(self, block: Block) -> list[Sample]:
        """A block as samples: none while the resampler holds it back, two after a gap."""
        data = np.frombuffer(block.data, np.int16).reshape(-1, self.channels)
        if self.picked != tuple(range(self.channels)):
            data = data[:, self.picked]
        t_ns, lost = self.timeline.stamp(
            len(data), block.capture_ns, block.arrival_ns, block.dropped, block.overflow
        )
        if self.resampler is None:
            self.lost += lost
            return self._sample(data, t_ns, block.arrival_ns)
        samples = []
        if lost:
            samples = self._sample(*self.resampler.flush(), block.arrival_ns)
            self.lost += self.resampler.lost(lost)
        ready = self.resampler.push(data, int(t_ns[0]))
        return samples + self._sample(*ready, block.arrival_ns)

    def _sample(self, data: Array, t_ns: Int64Array, arrival_ns: int) -> list[Sample]:
        if not len(data):
            return []
        lost, self.lost = self.lost, 0
        seq = self.next_seq + lost
        self.next_seq = seq + len(data)
        # The time line steps by parts of a millisecond; what was resampled may lie on either side.
        t_ns = np.clip(t_ns, self.last_ns, arrival_ns)
        self.last_ns = int(t_ns[-1])
        return [Sample(self.info, seq, t_ns, arrival_ns, data, lost=lost)]


class MicrophoneDriver:
    """See the module docstring. `seq` counts ticks since connect, with the lost ones."""

    Config = MicrophoneConfig
    # Only the end of a process ends what PortAudio may begin: see drivers/_microphone/portaudio.py.
    defaults: ClassVar[Mapping[str, Any]] = {"isolate": sys.platform == "linux"}

    def __init__(self, name: str, config: MicrophoneConfig, clock: Clock) -> None:
        self._name, self._config, self._clock = name, config, clock
        self._label = f"microphone {name}: device {config.device!r}"
        self._streams: tuple[StreamInfo, ...] = ()
        self._run: _Run | None = None

    @staticmethod
    def discover() -> Sequence[Device]:
        """The inputs that PortAudio knows, and those of sound cards that may not be opened."""
        sd = import_sounddevice()
        with PORTAUDIO.held(sd, "microphone"):
            return list_devices(sd)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Empty before the first connect: the device decides the rate."""
        return self._streams

    def connect(self) -> None:
        """Start to record.

        Raises DeviceNotFound (no such input, rate or channels not possible, a server that hangs),
        DeviceBusy, ConfigError without sounddevice or the PortAudio library.
        """
        self.disconnect()
        sd = import_sounddevice()
        with PORTAUDIO.held(sd, self._label):
            device = find_input(sd, self._config.device, self._label)
            if PORTAUDIO.hangs(device.name):
                raise DeviceNotFound(f"{self._label}: its sound server still hangs")
            self._run = self._open(sd, device)
            PORTAUDIO.add(self._run.source)
        self._streams = (self._run.info,)

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """The next block, in order; two after a gap, where it is resampled.

        Raises ReadTimeout where none has come; DeviceLost once the device has stopped and all
        that it gave has been read, when it does not call back, and when not connected.
        """
        run = self._run
        if run is None:
            raise DeviceLost(f"{self._label}: not connected")
        until_ns = self._clock.now_ns() + from_s(timeout_s)
        while True:
            block = self._next(run.source, max(0.0, to_s(until_ns - self._clock.now_ns())))
            samples = run.take(block)
            if samples:
                return samples

    def disconnect(self) -> None:
        """Stop recording, or put a stream that hangs aside. Idempotent."""
        run, self._run = self._run, None
        if run is not None:
            PORTAUDIO.remove(run.source)

    def _next(self, source: OpenStream, wait_s: float) -> Block:
        try:
            return source.receiver.blocks.get(timeout=min(wait_s, max(0.0, source.patience_s)))
        except queue.Empty as exc:
            if source.stopped or source.circles:
                raise DeviceLost(f"{self._label}: has stopped") from exc
            if source.patience_s <= 0:
                raise DeviceLost(
                    f"{self._label}: no block for {source.silent_s:.1f} s: "
                    "the sound server or the device hangs"
                ) from exc
            raise ReadTimeout(f"{self._label}: no block in time") from exc

    def _open(self, sd: Any, device: SoundInput) -> _Run:
        c = self._config
        rate_hz = c.device_rate_hz or c.rate_hz or device.rate_hz
        channels = c.device_channels or max(c.picked) + 1
        while True:
            try:
                source = self._start(sd, device, rate_hz, channels)
                break
            except sd.PortAudioError as exc:
                reason, code = (*exc.args, 0)[:2]
                if code == BAD_RATE and not c.device_rate_hz and rate_hz != device.rate_hz:
                    rate_hz = device.rate_hz
                elif code == BAD_CHANNELS and not c.device_channels and channels < device.channels:
                    channels = device.channels
                else:
                    error = DeviceBusy if code == UNAVAILABLE else DeviceNotFound
                    asked = f"rate_hz {rate_hz}, channels {channels}"
                    raise error(f"{self._label}: cannot be opened with {asked}: {reason}") from exc
        given_hz = c.rate_hz or rate_hz
        info = StreamInfo(
            name=self._name,
            modality="audio",
            dtype="int16",
            shape=(len(c.picked),),
            rate_hz=given_hz,
            unit="full_scale",
            topic=f"portaudio:{device.name}",
            clock_domain=f"portaudio {device.host_api}",
        )
        resampler = None if given_hz == rate_hz else Resampler(rate_hz, given_hz, len(c.picked))
        return _Run(info, source, channels, c.picked, AudioTimeline(rate_hz), resampler)

    def _start(self, sd: Any, device: SoundInput, rate_hz: int, channels: int) -> OpenStream:
        c = self._config
        blocks = math.ceil(c.queue_s / c.block_s)
        receiver = Receiver(self._clock, rate_hz, blocks, sd.CallbackStop)
        stream = sd.RawInputStream(
            samplerate=rate_hz,
            blocksize=max(1, round(c.block_s * rate_hz)),
            device=device.index,
            channels=channels,
            dtype="int16",
            callback=receiver,
            finished_callback=receiver.ended.set,
        )
        before = threads_now()
        try:
            stream.start()
        except sd.PortAudioError:
            stream.close()
            raise
        threads = threads_now() - before
        return OpenStream(
            stream, receiver, threads, device.name, c.block_s, c.watchdog_s, self._clock
        )


PLUGIN = MicrophoneDriver
