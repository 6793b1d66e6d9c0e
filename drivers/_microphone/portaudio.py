"""PortAudio as the process has it: one lock, one list of devices, and streams that hang.

PortAudio is not safe for threads, looks for devices only when it starts, and ends every stream
when it is ended. And it waits without an end: where a sound server hangs (measured with a stopped
PulseAudio), to open, abort, close or end anything returns only when the server goes on. To abort
a stream cancels its thread, which may then keep a lock of the sound server's library for ever. A
stream is therefore ended by its own callback, and closed once its thread has ended; one that no
longer calls back is put aside until it does. And where ALSA's server dies, its thread may run in
circles for ever (PortAudio 19.6: 300,000 lines a second on stderr), whatever is asked of it: only
the end of the process ends that, which is why a microphone has a process of its own by default.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.clock import Clock, from_s, to_s
from agent.errors import DeviceBusy, DeviceNotFound
from drivers._microphone.timeline import DeviceClock

__all__ = ["PORTAUDIO", "Block", "OpenStream", "PortAudio", "Receiver", "threads_now"]

logger = logging.getLogger(__name__)

LOCK_S = 2.0  # a driver that waits longer for PortAudio waits for one that hangs in it
# Some host APIs leave the capture time at 0; no sound waits this long in one that does not.
MAX_LATENCY_S = 10.0
RECENT_S = 0.2  # a stream that called back within this, or five of its blocks, is alive
CIRCLES = 0.05  # of a core: a thread that waits for its server takes a hundredth of that
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

    stop: what the callback raises to end its stream. heard_ns: when it was last called. first:
    whether it is yet to be called. ending: whether its next call is to end the stream. ended: set
    once the stream has.
    """

    def __init__(self, clock: Clock, rate_hz: int, max_blocks: int, stop: type[Exception]) -> None:
        self.blocks: queue.Queue[Block] = queue.Queue(max_blocks)
        self.heard_ns, self.first, self.ending = clock.now_ns(), True, False
        self.ended = threading.Event()
        self._stop = stop
        self._clock, self._rate_hz, self._device_clock = clock, rate_hz, DeviceClock()
        self._dropped, self._overflow = 0, False

    def __call__(self, data: Any, count: int, time: Any, status: Any) -> None:
        """PortAudio's callback: keep `count` ticks, or count them where there is no room."""
        if self.ending:
            raise self._stop
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
    """One stream of PortAudio and what came of it.

    threads: those that it was started with, as `threads_now` has them. watchdog_s: see
    MicrophoneConfig.
    """

    stream: Any
    receiver: Receiver
    threads: frozenset[str]
    device: str
    block_s: float
    watchdog_s: float
    clock: Clock
    _ran_ns: tuple[int, int] | None = None  # when last asked, and the time its thread had run
    _circles: bool = False

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
    def stopped(self) -> bool:
        """Whether it has ended, so that to close it returns."""
        return self.receiver.ended.is_set() or not self.stream.active

    @property
    def circles(self) -> bool:
        """Whether its thread was seen to run, and not to call back, from one asking to the next."""
        if self.silent_s <= max(RECENT_S, 5 * self.block_s):
            self._ran_ns, self._circles = None, False
            return False
        now_ns, ran_ns = self.clock.now_ns(), sum(map(_ran_ns, self.threads))
        since_ns, before_ns = self._ran_ns or (now_ns, ran_ns)
        if now_ns - since_ns > from_s(RECENT_S) / 2:
            self._circles |= ran_ns - before_ns > CIRCLES * (now_ns - since_ns)
            since_ns, before_ns = now_ns, ran_ns
        self._ran_ns = since_ns, before_ns
        return self._circles

    def end(self) -> bool:
        """Ask it to end, and wait while it may. False: it hangs."""
        self.receiver.ending = True
        while not (self.stopped or self.circles) and self.patience_s > 0:
            self.receiver.ended.wait(min(RECENT_S, max(self.patience_s, 0.001)))
        return self.stopped


class PortAudio:
    """What belongs to the process. Its lock is held for each call that PortAudio may wait in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[OpenStream] = []
        self._hung: list[OpenStream] = []
        self._sd: Any = None

    @contextmanager
    def held(self, sd: Any, label: str) -> Iterator[None]:
        """Alone with PortAudio, with devices looked for anew where no stream would end by it.

        Raises DeviceBusy where another thread hangs in it, DeviceNotFound where it cannot start.
        """
        if not self._lock.acquire(timeout=LOCK_S):
            raise DeviceBusy(f"{label}: PortAudio is held by an input that hangs: isolate that one")
        self._sd = sd
        try:
            for one in [one for one in self._hung if one.stopped]:
                self._hung.remove(one)
                one.stream.close()
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
        if one.end() and self._lock.acquire(timeout=LOCK_S):
            try:
                one.stream.close()
            finally:
                self._lock.release()
        else:
            logger.warning("microphone: %r hangs: it is closed when it goes on", one.device)
            self._hung.append(one)
            # To end PortAudio with it would wait for ever; the system takes back what it has.
            atexit.unregister(self._sd._exit_handler)
        self._open.remove(one)


def threads_now() -> frozenset[str]:
    """The numbers of this process's threads; none where the system is not Linux."""
    try:
        return frozenset(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return frozenset()


def _ran_ns(thread: str) -> int:
    """How long it has been on a core; 0 once it has ended."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0])
    except OSError:
        return 0


PORTAUDIO = PortAudio()
