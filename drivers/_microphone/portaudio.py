"""PortAudio as the process has it: one lock, one list of devices, and streams that hang.

PortAudio is not safe for threads, looks for devices only when it starts, and ends every stream
when it is ended. And it waits without an end: where a sound server hangs (measured with a stopped
PulseAudio), to open, abort, close or end anything returns only when the server goes on. A stream
that no longer calls back is therefore put aside, not closed; its callback tells when it is alive.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agent.clock import Clock, from_s, to_s
from agent.errors import DeviceBusy, DeviceNotFound
from drivers._microphone.timeline import DeviceClock

__all__ = ["PORTAUDIO", "Block", "OpenStream", "PortAudio", "Receiver"]

logger = logging.getLogger(__name__)

LOCK_S = 2.0  # a driver that waits longer for PortAudio waits for one that hangs in it
# Some host APIs leave the capture time at 0; no sound waits this long in one that does not.
MAX_LATENCY_S = 10.0
RECENT_S = 0.2  # a stream that called back within this, or five of its blocks, is alive
FIRST_S = 3.0  # PulseAudio may start a source, or wake a device, before it gives the first block


@dataclass(frozen=True)
class Block:
    """What the callback keeps: bytes of int16, and what `AudioTimeline.stamp` needs to know."""

    data: bytes
    capture_ns: int
    arrival_ns: int
    dropped: int
    overflow: bool


class Receiver:
    """The end of the queue that PortAudio's thread has; the driver has the other.

    heard_ns: when it was last called. first: whether it is yet to be called.
    """

    def __init__(self, clock: Clock, rate_hz: int, max_blocks: int) -> None:
        self.blocks: queue.Queue[Block] = queue.Queue(max_blocks)
        self.heard_ns, self.first = clock.now_ns(), True
        self._clock, self._rate_hz, self._device_clock = clock, rate_hz, DeviceClock()
        self._dropped, self._overflow = 0, False

    def __call__(self, data: Any, count: int, time: Any, status: Any) -> None:
        """PortAudio's callback: keep `count` ticks, or count them where there is no room."""
        arrival_ns = self._clock.now_ns()
        if 0 <= time.currentTime - time.inputBufferAdcTime <= MAX_LATENCY_S:
            offset_ns = self._device_clock.observe(time.currentTime, arrival_ns)
            capture_ns = from_s(time.inputBufferAdcTime) + offset_ns
        else:
            capture_ns = arrival_ns - from_s(count / self._rate_hz)
        self._overflow |= bool(status.input_overflow)
        block = Block(bytes(data), capture_ns, arrival_ns, self._dropped, self._overflow)
        try:
            self.blocks.put_nowait(block)
        except queue.Full:
            self._dropped += count
        else:
            self._dropped, self._overflow = 0, False
        self.heard_ns, self.first = arrival_ns, False


@dataclass
class OpenStream:
    """One stream of PortAudio and what came of it. watchdog_s: see MicrophoneConfig."""

    stream: Any
    receiver: Receiver
    device: str
    block_s: float
    watchdog_s: float
    clock: Clock

    @property
    def silent_s(self) -> float:
        """How long it has not called back."""
        return to_s(self.clock.now_ns() - self.receiver.heard_ns)

    @property
    def patience_s(self) -> float:
        """How long it may still be silent before it hangs; not above 0 where it does."""
        limit_s = max(self.watchdog_s, FIRST_S) if self.receiver.first else self.watchdog_s
        return limit_s - self.silent_s

    @property
    def alive(self) -> bool:
        """Whether to close it will return: it has ended by itself, or called back just now."""
        return not self.stream.active or self.silent_s <= max(RECENT_S, 5 * self.block_s)

    def wait_alive(self) -> bool:
        """`alive`, after a wait for its next block where that may still come."""
        blocks = self.receiver.blocks
        if not self.alive and self.patience_s > 0:
            while not blocks.empty():
                blocks.get_nowait()
            try:
                blocks.get(timeout=self.patience_s)
            except queue.Empty:
                return self.alive
        return self.alive


class PortAudio:
    """What belongs to the process. Its lock is held for each call that PortAudio may wait in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[OpenStream] = []
        self._hung: list[OpenStream] = []

    @contextmanager
    def held(self, sd: Any, label: str) -> Iterator[None]:
        """Alone with PortAudio, with devices looked for anew where no stream would end by it.

        Raises DeviceBusy where another thread hangs in it, DeviceNotFound where it cannot start.
        """
        if not self._lock.acquire(timeout=LOCK_S):
            raise DeviceBusy(f"{label}: PortAudio is held by an input that hangs: isolate that one")
        try:
            for one in [one for one in self._hung if one.alive]:
                self._hung.remove(one)
                _close(one)
            if not self._open and not self._hung:
                while sd._initialized:
                    sd._terminate()
                sd._initialize()
            yield
        except sd.PortAudioError as exc:
            raise DeviceNotFound(f"{label}: {exc}") from exc
        finally:
            self._lock.release()

    def hangs(self, device: str) -> bool:
        """Whether a stream of `device` was put aside: to open another would wait for it."""
        return any(one.device == device for one in self._hung)

    def add(self, one: OpenStream) -> None:
        """`one` is open and started. To be called while PortAudio is held."""
        self._open.append(one)

    def remove(self, one: OpenStream) -> None:
        """Close `one`, or put it aside where that would not return."""
        if one.wait_alive() and self._lock.acquire(timeout=LOCK_S):
            try:
                _close(one)
            finally:
                self._lock.release()
        else:
            logger.warning("microphone: %r hangs: it is closed when it goes on", one.device)
            self._hung.append(one)
        self._open.remove(one)


def _close(one: OpenStream) -> None:
    one.stream.abort()
    one.stream.close()


PORTAUDIO = PortAudio()
