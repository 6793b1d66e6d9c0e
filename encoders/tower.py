"""The kind "tower": a preprocessing and one ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.errors import ConfigError
from agent.types import Array, Embedding, Settings, Views, Window, WindowSpec
from encoders.manifest import TowerContext, convert
from encoders.preprocess.base import (
    Boxes,
    Float32Array,
    PerStream,
    Preparing,
    Preprocess,
    Squares,
)
from encoders.preprocess.views import Rows, ViewSettings, rows_of
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
        """preprocess: makes the views. window: what the agent hands over live. views: parts of
        each frame that get a vector of their own, for a preprocessing of pictures; None for none.
        Those of `map` are told by the same run of the graph.
        """

        window: WindowSettings
        preprocess: PreprocessSettings
        views: ViewSettings | None = None

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
        self._rows = PerStream(self._preprocess)
        self._views = config.views
        self._map = None if config.views is None else config.views.map
        wanted = Squares if self._map is None else Boxes
        if config.views is not None and not isinstance(self._preprocess, wanted):
            raise ConfigError(
                f"{field}.views: preprocess {config.preprocess.name!r} cuts no squares from "
                "pictures, expected no views"
            )

    @property
    def modality(self) -> str:
        return self._context.modality

    def load(self) -> None:
        """As GraphTower.load. Raises also ConfigError for a package that the views need."""
        if isinstance(self._preprocess, Preparing):
            self._preprocess.prepare()
        super().load()

    @property
    def has_views(self) -> bool:
        """Whether an embedding may have vectors of parts of a frame beside that of the whole."""
        return self._views is not None

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        """One embedding a window, in order: the unit mean of the unit vectors of its views; so
        that of each part of the frame that the manifest asks for, in the same run.

        Raises EncodeFailed for a window the preprocessing cannot use, or where nothing is loaded.
        """
        made = [self._rows_of(window) for window in windows]
        if not made:
            return []
        given = self._given(self._batches(np.concatenate([each.rows for each in made])))
        ends = np.cumsum([len(each.rows) for each in made])[:-1]
        own = zip(*(np.split(vectors, ends) for vectors in given), strict=True)
        return [
            Embedding(
                space=self.space,
                vector=unit(vectors[: each.whole].mean(axis=0)),
                modality=self.modality,
                stream=window.stream.name,
                start_ns=window.start_ns,
                end_ns=window.end_ns,
                arrival_ns=window.arrival_ns,
                views=self._mapped(window, *parts) if parts else _views(vectors, each),
            )
            for window, each, (vectors, *parts) in zip(windows, made, own, strict=True)
        ]

    def encode_views(self, window: Window) -> Float32Array:
        """float32 (k, dim): the unit vector of each view of one window, newly made.

        Raises EncodeFailed, as `encode`.
        """
        return self._vectors(self._batches(self._preprocess(window)))

    def close(self) -> None:
        super().close()
        self._rows.clear()

    def _example(self) -> Array:
        return np.zeros((1, *self._preprocess.shape), np.float32)

    def _outputs(self) -> dict[str, tuple[int, ...]]:
        outputs = super()._outputs()
        if self._map is not None:
            outputs[self._map.output] = (self._map.count, self._context.dim)
        return outputs

    def _mapped(self, window: Window, parts: Float32Array) -> Views:
        """What the graph gave of the parts, (frames * boxes, k, dim), as views of the window."""
        assert self._map is not None
        assert isinstance(self._preprocess, Boxes)
        frames, height, width = window.data.shape[:3]
        boxes = self._preprocess.boxes(height, width)
        means = parts.reshape(frames, -1, parts.shape[-1]).mean(axis=0)
        regions = [region for box in boxes for region in self._map.regions(box, height, width)]
        return Views(unit(means), tuple(regions))

    def _rows_of(self, window: Window) -> Rows:
        whole = self._rows(window)
        if self._views is None or self._map is not None:
            return Rows(whole, len(whole), ())
        assert isinstance(self._preprocess, Squares)
        return rows_of(window, whole, self._preprocess, self._views)


def _views(vectors: Float32Array, made: Rows) -> Views | None:
    """The unit vectors of the parts, from those of all rows of a window."""
    if not made.parts:
        return None
    means = np.stack([vectors[list(part.rows)].mean(axis=0) for part in made.parts])
    return Views(unit(means), tuple(part.region for part in made.parts))


PLUGIN = OnnxTower
