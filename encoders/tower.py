"""The kind "tower": a preprocessing and one ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.types import Array, Embedding, Settings, Window, WindowSpec
from encoders.manifest import TowerContext, convert
from encoders.preprocess.base import Float32Array, PerStream, Preparing, Preprocess
from encoders.registry import find_plugin
from encoders.session import GraphSettings, GraphTower, unit

__all__ = ["PLUGIN", "OnnxTower", "PreprocessSettings", "WindowSettings"]


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


class OnnxTower(GraphTower):
    """Windows of one modality to unit vectors of one space. Implements agent.contracts.Encoder.

    The graph takes float32 (n, *view).
    """

    class Config(GraphSettings, frozen=True, kw_only=True):
        """preprocess: makes the views. window: what the agent hands over live."""

        window: WindowSettings
        preprocess: PreprocessSettings

    def __init__(self, config: Config, context: TowerContext) -> None:
        """Checks the preprocessing's parameters and opens nothing. Raises ConfigError."""
        super().__init__(config, context)
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
        self._views = PerStream(self._preprocess)

    @property
    def modality(self) -> str:
        return self._context.modality

    def load(self) -> None:
        """As GraphTower.load. Raises also ConfigError for a package that the views need."""
        if isinstance(self._preprocess, Preparing):
            self._preprocess.prepare()
        super().load()

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        """One embedding a window, in order: the unit mean of the unit vectors of its views.

        Raises EncodeFailed for a window the preprocessing cannot use, or where nothing is loaded.
        """
        views = [self._views(window) for window in windows]
        if not views:
            return []
        vectors = self._vectors(self._batches(np.concatenate(views)))
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
        return self._vectors(self._batches(self._preprocess(window)))

    def close(self) -> None:
        super().close()
        self._views.clear()

    def _example(self) -> Array:
        return np.zeros((1, *self._preprocess.shape), np.float32)


PLUGIN = OnnxTower
