"""The kernel's types: what crosses a module boundary. Frozen, and checked once, at birth.

Conventions for one tick of each sense that this project ships towers for (`unit` in brackets);
the leading axis of every `data` array is time:

    image    uint8  (height, width, 3) RGB or (height, width) grey          ["rgb8", "mono8"]
    audio    int16 or float32 in -1..1 (channels,)                          ["full_scale"]
    depth    uint16 (height, width), millimetres, 0 = no measurement        ["mm"]
    thermal  uint16 raw counts, float32 Celsius or uint8 (height, width)    ["counts", "c", "mono8"]
    imu      float32 (6,) ax ay az in m/s^2, gx gy gz in rad/s              ["m/s^2,rad/s"]

Any other modality is allowed: it is an open string, so a new sense edits nothing here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.errors import BadData, ConfigError, SpaceMismatch

__all__ = [
    "NAME_PATTERN",
    "Array",
    "Embedding",
    "Extrinsics",
    "Int64Array",
    "Intrinsics",
    "Region",
    "Sample",
    "Settings",
    "StreamInfo",
    "Views",
    "Window",
    "WindowSpec",
    "check_name",
    "read_only",
    "slug",
]

Array = NDArray[Any]
Int64Array = NDArray[np.int64]
Float32Array = NDArray[np.float32]

# A name is one level of a bus topic (docs/wire-contract.md).
NAME_PATTERN = r"[a-z0-9_]+"
_NAME = re.compile(NAME_PATTERN)


def check_name(name: str, what: str) -> str:
    """Return `name` if it may be one level of a topic; else raise ConfigError naming `what`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{what}: {name!r} must be lower-case letters, digits and underscores")
    return name


def slug(text: str) -> str:
    """A stream name for a source's own name: '/imu/Left' -> 'imu_left'; never empty."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"


def read_only(array: Array) -> Array:
    """A view of `array` that cannot be written through; the caller's own array stays as it is."""
    view: Array = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and centre in pixels of a `width` x `height` image.

    distortion: the lens model by the name its SDK gives it ("brown_conrady"), "" for none or not
    known; coefficients: its own, in the SDK's order.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: str = ""
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class Extrinsics:
    """Where a sensor sits: p_parent = rotation @ p_sensor + translation_mm, points in mm.

    parent: the `frame_id` of the frame it is told in. rotation: 3 x 3, by rows.
    """

    parent: str
    rotation: tuple[float, float, float, float, float, float, float, float, float]
    translation_mm: tuple[float, float, float]


@dataclass(frozen=True)
class StreamInfo:
    """What a stream is: fixed from connect to disconnect.

    name: `[a-z0-9_]+`, unique in the agent. dtype, shape: of ONE tick. rate_hz: nominal ticks a
    second, None where ticks are irregular. unit: see the module docstring. clock: "host" when
    the driver stamps `t_ns` itself, "device" when the agent maps `device_t_ns` to its own clock.
    clock_domain: what the device's stamps count, in its SDK's words. topic: the source's own name
    for it (a log topic, a track, a device path).
    """

    name: str
    modality: str
    dtype: str
    shape: tuple[int, ...]
    rate_hz: float | None
    unit: str
    frame_id: str = ""
    clock: str = "host"
    topic: str = ""
    channels: tuple[str, ...] = ()
    intrinsics: Intrinsics | None = None
    extrinsics: Extrinsics | None = None
    clock_domain: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "stream name")
        check_name(self.modality, f"stream {self.name}: modality")
        try:
            np.dtype(self.dtype)
        except TypeError as exc:
            raise ConfigError(f"stream {self.name}: dtype {self.dtype!r} is not one") from exc
        if self.rate_hz is not None and not 0 < self.rate_hz < 1e7:
            raise ConfigError(f"stream {self.name}: rate_hz {self.rate_hz} must be in 0..1e7")
        if self.clock not in ("host", "device"):
            raise ConfigError(f"stream {self.name}: clock {self.clock!r} must be host or device")


@dataclass(frozen=True)
class Sample:
    """A block of consecutive ticks of one stream, stamped at capture.

    seq: number of the first tick since the stream began, counting the lost ones. t_ns: int64
    (n,), capture time of each tick on the agent's clock, not decreasing. arrival_ns: when the
    host had the block. data: (n, *stream.shape) of stream.dtype, finite. device_t_ns: int64 (n,),
    the device's own stamps, never rewritten. lost: ticks known to be missing just before it.

    The arrays become read-only views; the driver gives them up and must not write them again.
    Raises BadData where shape, dtype, order or values are wrong.
    """

    stream: StreamInfo
    seq: int
    t_ns: Int64Array
    arrival_ns: int
    data: Array
    device_t_ns: Int64Array | None = None
    lost: int = 0

    def __post_init__(self) -> None:
        info, data, t_ns = self.stream, self.data, self.t_ns
        if data.dtype != info.dtype or data.shape[1:] != info.shape or not len(data):
            raise BadData(
                f"stream {info.name}: block is {data.dtype}{list(data.shape)}, "
                f"expected {info.dtype}[n >= 1, {', '.join(map(str, info.shape))}]"
            )
        if t_ns.dtype != np.int64 or t_ns.shape != (len(data),):
            raise BadData(
                f"stream {info.name}: stamps are {t_ns.dtype}{list(t_ns.shape)}, "
                f"expected int64[{len(data)}]"
            )
        if len(t_ns) > 1 and bool((np.diff(t_ns) < 0).any()):
            raise BadData(f"stream {info.name}: stamps go backwards inside a block")
        if data.dtype.kind == "f" and not bool(np.isfinite(data).all()):
            raise BadData(f"stream {info.name}: block has values that are not finite")
        object.__setattr__(self, "data", read_only(data))
        object.__setattr__(self, "t_ns", read_only(t_ns))
        if self.device_t_ns is not None:
            if self.device_t_ns.dtype != np.int64 or self.device_t_ns.shape != t_ns.shape:
                raise BadData(
                    f"stream {info.name}: device stamps are {self.device_t_ns.dtype}"
                    f"{list(self.device_t_ns.shape)}, expected int64[{len(data)}]"
                )
            object.__setattr__(self, "device_t_ns", read_only(self.device_t_ns))

    def __len__(self) -> int:
        return len(self.data)


@dataclass(frozen=True)
class WindowSpec:
    """Which stretch of a stream a tower looks at.

    length_s: span of one window; hop_s: from one window's end to the next, both > 0. ticks: None
    for every tick in the span, else how many to copy: the newest ones (1 for a still image), or
    with `spread` as many evenly over the span, its first and its last among them (2 for a clip of
    two frames); ticks is then at least 2.
    """

    length_s: float
    hop_s: float
    ticks: int | None = None
    spread: bool = False

    def __post_init__(self) -> None:
        if not (self.length_s > 0 and self.hop_s > 0 and (self.ticks is None or self.ticks > 0)):
            raise ConfigError(f"window: {self} must have length_s > 0, hop_s > 0 and ticks > 0")
        if self.spread and (self.ticks is None or self.ticks < 2):
            raise ConfigError(f"window: ticks is {self.ticks}, expected at least 2 with spread")

    @property
    def whole(self) -> bool:
        """Whether ticks of the whole span are wanted, and not its newest alone."""
        return self.ticks is None or self.spread


@dataclass(frozen=True)
class Window:
    """The one copy of a stretch of a stream: ticks with start_ns <= t_ns < end_ns.

    data: (n, *stream.shape), read-only, owned by the window. t_ns: int64 (n,). lost: ticks known
    to be missing inside it. arrival_ns: when its last tick arrived (0 where it came from a file).
    """

    stream: StreamInfo
    start_ns: int
    end_ns: int
    data: Array
    t_ns: Int64Array
    lost: int = 0
    arrival_ns: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", read_only(self.data))
        object.__setattr__(self, "t_ns", read_only(self.t_ns))


@dataclass(frozen=True)
class Region:
    """A rectangle of a frame: its upper left corner and its size as shares, 0..1, of the frame's
    width (left, width) and height (top, height).
    """

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Views:
    """Unit vectors of parts of a frame: vectors float32 (k, dim), k >= 1, each of length 1 within
    1e-3, read-only; regions: where each was looked at, k of them. Raises BadData.
    """

    vectors: Float32Array
    regions: tuple[Region, ...]

    def __post_init__(self) -> None:
        vectors = self.vectors
        right = vectors.ndim == 2 and vectors.dtype == np.float32 and len(vectors)
        if not right or len(vectors) != len(self.regions):
            raise BadData(
                f"views: {vectors.dtype}{list(vectors.shape)} with {len(self.regions)} regions, "
                "expected float32[k >= 1, dim] with k"
            )
        norms = np.linalg.norm(vectors, axis=1)
        if not bool((np.abs(norms - 1) < 1e-3).all()):
            raise BadData(f"views: lengths are {norms.min():.4f} to {norms.max():.4f}, expected 1")
        object.__setattr__(self, "vectors", read_only(vectors))


@dataclass(frozen=True)
class Embedding:
    """A unit vector of one space for one stretch of one stream.

    space: "name@hash" of the space, so that vectors of two spaces are never compared. vector:
    float32 (dim,), length 1 within 1e-3, read-only. stream: "" for a query's own vector.
    arrival_ns, encoded_ns: when the window's last tick arrived and when the vector was ready.
    reused: nothing had changed, and the vector is that of an earlier window. views: of parts of
    the frame, where the tower was asked for some; `vector` is always that of the whole.
    """

    space: str
    vector: Float32Array
    modality: str
    stream: str = ""
    start_ns: int = 0
    end_ns: int = 0
    arrival_ns: int = 0
    encoded_ns: int = 0
    reused: bool = False
    views: Views | None = None

    def __post_init__(self) -> None:
        norm = float(np.linalg.norm(self.vector))
        if self.vector.ndim != 1 or self.vector.dtype != np.float32 or not abs(norm - 1) < 1e-3:
            raise BadData(
                f"embedding of {self.stream or self.modality}: {self.vector.dtype}"
                f"{list(self.vector.shape)} of length {norm:.4f}, expected float32[dim] of length 1"
            )
        if self.views is not None and self.views.vectors.shape[1] != len(self.vector):
            raise BadData(
                f"embedding of {self.stream or self.modality}: views of "
                f"{self.views.vectors.shape[1]} dimensions, expected {len(self.vector)}"
            )
        object.__setattr__(self, "vector", read_only(self.vector))

    @property
    def rows(self) -> Float32Array:
        """float32 (1 + k, dim): `vector` and those of the k views. k is 0 without views."""
        own = self.vector[np.newaxis]
        return own if self.views is None else np.concatenate([own, self.views.vectors])

    @property
    def regions(self) -> tuple[Region | None, ...]:
        """Of each of `rows`; None, the first, is the whole."""
        return (None,) if self.views is None else (None, *self.views.regions)

    def cosine(self, other: Embedding) -> float:
        """Cosine in -1..1. Raises SpaceMismatch where the two are of different spaces."""
        if self.space != other.space:
            raise SpaceMismatch(f"cannot compare vectors of {self.space} and {other.space}")
        return float(self.vector.astype(np.float64) @ other.vector.astype(np.float64))


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every piece of configuration: frozen, named fields only, unknown fields refused."""
