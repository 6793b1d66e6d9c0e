"""The contracts between the agent and what plugs into it: drivers, encoders, spaces.

Each has a conformance suite in tests/contracts that a plug-in's own tests subclass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.types import Array, Embedding, Sample, StreamInfo, Window, WindowSpec

__all__ = ["Driver", "Encoder", "RuntimeOptions", "Space", "TextEncoder"]


class Driver(Protocol):
    """A blocking source of samples. It owns no thread, no ring and no retry: pump.py does.

    A driver module sets `PLUGIN` to its class. The class has `Config`, a Settings subclass with
    the driver's own fields, and is built as `PLUGIN(name, config, clock)`, which opens nothing.
    SDKs are imported in `connect`, inside `needs_extra`, so that a config is checked without them.
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
        """Mean and deviation of the cosine of `vector` with ordinary input of `modality`."""

    def close(self) -> None: ...
