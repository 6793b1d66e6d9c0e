"""The contracts between the agent and what plugs into it: drivers, encoders, spaces.

Each has a conformance suite in tests/contracts that a plug-in's own tests subclass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.types import Array, Embedding, Sample, StreamInfo, Window, WindowSpec

__all__ = [
    "MAX_FILE_BYTES",
    "Device",
    "Driver",
    "Encoder",
    "RuntimeOptions",
    "Space",
    "TextEncoder",
]

# Of what Space.embed_file takes, which holds all of it in memory; a log is cut instead.
MAX_FILE_BYTES = 1 << 28


@dataclass(frozen=True)
class Device:
    """One device that a kind of driver could open, as it is connected now.

    kind: of the driver. name: model, for people. identity: what tells it from every other, as
    "serial:1234", "by-id:usb-...", "by-path:pci-...", "address:10.0.0.7" or "name:...". by_port:
    the identity is only that of the port it is plugged into, as it has no serial number. settings:
    the fields of the driver's Config that open this one. modes: what it can give, for people.
    problem: "", or one line: why it cannot be used, and what to install, join or change.
    """

    kind: str
    name: str
    identity: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_port: bool = False
    modes: tuple[str, ...] = ()
    problem: str = ""


class Driver(Protocol):
    """A blocking source of samples. It owns no thread, no ring and no retry: pump.py does.

    A driver module sets `PLUGIN` to its class. The class has `Config`, a Settings subclass with
    the driver's own fields, and is built as `PLUGIN(name, config, clock)`, which opens nothing.
    SDKs are imported in `connect`, inside `needs_extra`, so that a config is checked without them.

    It may have two more: `defaults`, the values of agent.config.DriverConfig that suit its kind
    where a config is silent; and `discover() -> Sequence[Device]`, a static method that looks for
    what is connected, within about two seconds and without disturbing a device in use. It raises
    ConfigError where its package is missing, and tells of a device's own trouble in `problem`.
    """

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """What it gives; complete and fixed from a successful connect to disconnect."""

    def connect(self) -> None:
        """Open the source: all or nothing. Raises DeviceNotFound, DeviceBusy or ConfigError."""

    def read(self, timeout_s: float) -> Sequence[Sample]:
        """Block for the next samples, at most about `timeout_s`.

        Raises ReadTimeout, DeviceLost, BadData, or EndOfStream once a finite source is through.
        """

    def disconnect(self) -> None:
        """Release everything. Idempotent; never raises for a device that is already gone."""


class Encoder(Protocol):
    """One tower: windows of one modality in, unit vectors of one space out."""

    @property
    def modality(self) -> str: ...

    @property
    def space(self) -> str:
        """The space's identity, "name@hash"."""

    @property
    def window(self) -> WindowSpec:
        """What it wants of a stream."""

    def load(self) -> None:
        """Read, check and warm up the model. Raises ModelMissing or ModelMismatch."""

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        """One embedding a window, in order. A window may be of any length, a whole file too.
        Its `vector` is that of all of it; `views`, where there are any, are of parts of a frame.

        Raises EncodeFailed; the encoder stays usable.
        """

    def close(self) -> None:
        """Release the model. Idempotent."""


class TextEncoder(Protocol):
    """The text tower: strings in, unit vectors of the same space out."""

    @property
    def space(self) -> str: ...

    def load(self) -> None: ...

    def encode(self, texts: Sequence[str]) -> list[Embedding]:
        """One embedding a string, in order. Raises EncodeFailed for a string with no known word."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class RuntimeOptions:
    """How towers are run.

    providers: ONNX Runtime provider names in order of preference, or ("auto",) for the best of
    what is present. threads: intra-op threads of a session; 1 makes results independent of the
    number of cores. precision: "fp32", "fp16" or "int8", of those the model folder has; None
    takes each tower's own default. max_batch: most rows given to a session at once. cache: a
    folder, made where it is not there, that keeps what a provider compiles (TensorRT: minutes)
    from one start to the next; None keeps nothing.
    """

    providers: tuple[str, ...] = ("auto",)
    threads: int = 1
    precision: str | None = None
    max_batch: int = 16
    cache: Path | None = None


class Space(Protocol):
    """A model folder: towers of several modalities that share one space of unit vectors."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """ "name@hash": the hash covers every tower and preprocessing setting."""

    @property
    def dim(self) -> int: ...

    @property
    def licence(self) -> str: ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Senses with a tower, without text."""

    @property
    def precision(self) -> str: ...

    @property
    def provider(self) -> str:
        """The ONNX Runtime provider in use, once a tower is loaded."""

    def encoder(self, modality: str) -> Encoder:
        """The tower of `modality`, not loaded; one a modality. ConfigError where there is none."""

    def text_encoder(self) -> TextEncoder: ...

    def embed_file(self, path: str, modality: str) -> Embedding:
        """One unit vector for a whole file. Raises ConfigError for a file it cannot read."""

    def prior(self, vector: Array, modality: str) -> tuple[float, float]:
        """Mean and deviation of the nearness of `vector` to ordinary input of `modality`."""

    def background(self, modality: str) -> Array:
        """float32 (n, k, dim): unit vectors of ordinary input, not to be written to; n may be 0.
        Of each first the whole, then its k - 1 views where the tower gives some.
        """

    def close(self) -> None: ...
