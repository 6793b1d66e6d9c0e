"""The kind "tower": a preprocessing and one ONNX Runtime session."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.errors import EncodeFailed, ModelMismatch
from agent.types import Embedding, Settings, Window, WindowSpec
from encoders.manifest import TowerContext, TowerSettings, checked_path, convert
from encoders.preprocess.base import Float32Array, Preprocess
from encoders.providers import make_session, runtime_errors
from encoders.registry import find_plugin

__all__ = ["PLUGIN", "OnnxTower", "PreprocessSettings", "WindowSettings", "unit"]


class WindowSettings(Settings, frozen=True, kw_only=True):
    """As agent.types.WindowSpec."""

    length_s: float
    hop_s: float
    ticks: int | None = None
    spread: bool = False


class PreprocessSettings(Settings, frozen=True, kw_only=True):
    """name: of a module of encoders.preprocess, or an entry point `sensebind.preprocess`.
    parameters: checked by its class.
    """

    name: str
    parameters: dict[str, Any]


class OnnxTower:
    """Windows of one modality to unit vectors of one space. Implements agent.contracts.Encoder.

    load and close may be called from another thread than encode.
    """

    class Config(TowerSettings, frozen=True, kw_only=True):
        """input, output: the graph's, float32 (n, *view) and (n, dim), n free."""

        input: str
        output: str
        window: WindowSettings
        preprocess: PreprocessSettings

    def __init__(self, config: Config, context: TowerContext) -> None:
        """Checks the preprocessing's parameters and opens nothing. Raises ConfigError."""
        self._config = config
        self._context = context
        field = f"{context.folder}: towers.{context.modality}"
        window = config.window
        self.window = WindowSpec(window.length_s, window.hop_s, window.ticks, window.spread)
        plugin = find_plugin(
            config.preprocess.name,
            "encoders.preprocess",
            "sensebind.preprocess",
            f"{field}.preprocess.name",
        )
        self._preprocess: Preprocess = convert(
            config.preprocess.parameters, plugin, f"{field}.preprocess.parameters"
        )
        self._session: Any = None
        self._lock = threading.Lock()

    @property
    def modality(self) -> str:
        return self._context.modality

    @property
    def space(self) -> str:
        return self._context.identity

    @property
    def precision(self) -> str:
        return self._config.chosen(self._context.options.precision)

    @property
    def provider(self) -> str:
        """The provider that runs it; empty until it is loaded."""
        session = self._session
        return session.get_providers()[0] if session else ""

    def load(self) -> None:
        """Check the file's sha256, open and check the session, run it once.

        Idempotent. Raises ModelMissing, ModelMismatch, or ConfigError for the provider.
        """
        with self._lock:
            if self._session is not None:
                return
            path = checked_path(self._context.folder, self._config.files[self.precision])
            session = make_session(path, self._context.options)
            self._check_graph(session, str(path))
            # The first run allocates and, on some providers, compiles: better now than in the
            # first event's latency.
            self._run(session, np.zeros((1, *self._preprocess.shape), np.float32))
            self._session = session

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        """One embedding a window, in order: the unit mean of the unit vectors of its views.

        Raises EncodeFailed for a window the preprocessing cannot use, or where nothing is loaded.
        """
        views = [self._preprocess(window) for window in windows]
        if not views:
            return []
        vectors = self._vectors(np.concatenate(views))
        ends = np.cumsum([len(part) for part in views])
        parts = np.split(vectors, ends[:-1])
        return [
            Embedding(
                space=self.space,
                vector=unit(part.mean(axis=0)),
                modality=self.modality,
                stream=window.stream.name,
                start_ns=window.start_ns,
                end_ns=window.end_ns,
                arrival_ns=window.arrival_ns,
            )
            for window, part in zip(windows, parts, strict=True)
        ]

    def encode_views(self, window: Window) -> Float32Array:
        """float32 (k, dim): the unit vector of each view of one window, newly made.

        Raises EncodeFailed, as `encode`.
        """
        return self._vectors(self._preprocess(window))

    def close(self) -> None:
        with self._lock:
            self._session = None

    def _vectors(self, views: Float32Array) -> Float32Array:
        session = self._session
        if session is None:
            raise EncodeFailed(f"{self.modality} tower: not loaded")
        step = self._config.batch(self._context.options)
        batches = [self._run(session, views[i : i + step]) for i in range(0, len(views), step)]
        return unit(np.concatenate(batches))

    def _run(self, session: Any, batch: Float32Array) -> Float32Array:
        try:
            (output,) = session.run([self._config.output], {self._config.input: batch})
        except runtime_errors() as exc:
            reason = " ".join(str(exc).split())
            raise EncodeFailed(f"{self.modality} tower: {reason}") from exc
        vectors: Float32Array = output
        return vectors

    def _check_graph(self, session: Any, path: str) -> None:
        config, context = self._config, self._context
        inputs = {value.name: tuple(value.shape[1:]) for value in session.get_inputs()}
        outputs = {value.name: tuple(value.shape[1:]) for value in session.get_outputs()}
        expected = {config.input: self._preprocess.shape}
        if inputs != expected:
            raise ModelMismatch(f"{path}: takes {inputs}, expected {expected} by the manifest")
        if outputs.get(config.output) != (context.dim,):
            raise ModelMismatch(
                f"{path}: gives {outputs}, expected {{{config.output!r}: ({context.dim},)}}"
            )


def unit(vectors: Float32Array) -> Float32Array:
    """`vectors` (..., dim) over their length, float32. Raises EncodeFailed where that is 0 or not
    a number: there is no direction to compare.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not bool((norms > 0).all() and np.isfinite(norms).all()):
        raise EncodeFailed("a vector has length zero or values that are not finite")
    normalised: Float32Array = (vectors / norms).astype(np.float32)
    return normalised


PLUGIN = OnnxTower
