"""What a preprocessing is, and what several of them share.

A preprocessing is a Settings struct (its parameters, from `space.yaml`) that is called with a
Window. Constants in its module are part of what its name means: a changed constant is a new name,
or a space's hash would no longer tell two sets of vectors apart.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from agent.clock import NS_PER_S, to_s
from agent.errors import EncodeFailed
from agent.types import Window

__all__ = [
    "Box",
    "Boxes",
    "Float32Array",
    "PerStream",
    "Preparing",
    "Preprocess",
    "Square",
    "Squares",
    "Streaming",
    "bad_ticks",
    "span_s",
    "tick_rate_hz",
    "window_starts",
]

Float32Array = NDArray[np.float32]

# A stretch longer than this is a broken stamp, and a regular grid over it would fill memory.
MAX_SPAN_S = 86_400.0
MAX_STREAMS = 64  # of which something is kept; the one unused for longest makes room


class Preprocess(Protocol):
    """Window to views: the tensors that a tower's network takes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one view."""

    def __call__(self, window: Window) -> Float32Array:
        """(k, *shape), k >= 1, finite, newly made. Raises EncodeFailed for data it cannot use."""


@runtime_checkable
class Preparing(Preprocess, Protocol):
    """One that needs a package of an extra."""

    def prepare(self) -> None:
        """Import it: a missing one is said before any device opens, and the first window does not
        wait for it. Raises ConfigError.
        """


@runtime_checkable
class Streaming(Preprocess, Protocol):
    """One whose successive windows of one stream share work: live windows overlap."""

    def stream(self) -> Preprocess:
        """A new one for a single stream. It gives what the stateless one gives, within the
        rounding that its docstring names, and depends on nothing but the windows it is called
        with. One call at a time.
        """


class Square(NamedTuple):
    """A part of a frame, in pixels from its upper left corner."""

    left: int
    top: int
    side: int


class Box(NamedTuple):
    """A part of a frame, in pixels from its upper left corner, of which some may be cut through."""

    left: float
    top: float
    width: float
    height: float


@runtime_checkable
class Boxes(Preprocess, Protocol):
    """One of pictures (n, height, width, ...) that makes a view each of some parts of a frame."""

    def boxes(self, height: int, width: int) -> list[Box]:
        """What of a frame each of its views shows, in turn."""


@runtime_checkable
class Squares(Preprocess, Protocol):
    """One of pictures (n, height, width, ...) that looks at each frame in squares, in turn."""

    def squares(self, height: int, width: int) -> list[Square]:
        """Which it cuts from a frame, a view each. Of a square frame it is that frame alone."""


class PerStream:
    """A preprocessing, with one of its own for each live stream where it is a `Streaming`.

    Any thread; the calls for live windows take turns. A file (arrival_ns 0) takes the stateless
    one, so that a query by a file's content never disturbs a stream.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        self._stateless = preprocess
        self._new_stream = preprocess.stream if isinstance(preprocess, Streaming) else None
        self._streams: OrderedDict[str, Preprocess] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, window: Window) -> Float32Array:
        """As `Preprocess`."""
        if self._new_stream is None or not window.arrival_ns:
            return self._stateless(window)
        with self._lock:
            own = self._streams.pop(window.stream.name, None) or self._new_stream()
            self._streams[window.stream.name] = own
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
            return own(window)

    def clear(self) -> None:
        """Forget every stream."""
        with self._lock:
            self._streams.clear()


def bad_ticks(window: Window, expected: str) -> EncodeFailed:
    """The error for a window of the wrong dtype or shape: what it is, and what was expected."""
    data = window.data
    return EncodeFailed(
        f"stream {window.stream.name}: {window.stream.modality} window is "
        f"{data.dtype}{list(data.shape)}, expected {expected}"
    )


def tick_rate_hz(window: Window) -> float:
    """The stream's nominal rate, or where it has none that of the median step of its stamps.

    Raises EncodeFailed where neither says anything.
    """
    if window.stream.rate_hz is not None:
        return window.stream.rate_hz
    step_ns = float(np.median(np.diff(window.t_ns))) if len(window.t_ns) > 1 else 0.0
    if step_ns <= 0:
        raise EncodeFailed(
            f"stream {window.stream.name}: no rate_hz and {len(window.t_ns)} stamps, "
            "expected a rate or stamps that tell it"
        )
    return NS_PER_S / step_ns


def span_s(window: Window, rate_hz: float) -> float:
    """Seconds from the first tick to the end of the last. Raises EncodeFailed over a day."""
    span = to_s(int(window.t_ns[-1] - window.t_ns[0])) + 1 / rate_hz
    if span > MAX_SPAN_S:
        raise EncodeFailed(
            f"stream {window.stream.name}: stamps span {span:.0f} s, expected at most a day"
        )
    return span


def window_starts(ticks: int, length: int, hop: int) -> range:
    """First ticks of the whole windows of `length` in `ticks` >= `length`; a tail is left out."""
    return range(0, ticks - length + 1, hop)
