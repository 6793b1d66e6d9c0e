"""One ONNX graph in a session, rows in and unit vectors out: what the kinds that run one share."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from agent.errors import EncodeFailed, ModelMismatch
from agent.types import Array
from encoders.manifest import TowerContext, TowerSettings, checked_path
from encoders.memory import give_back
from encoders.preprocess.base import Float32Array
from encoders.providers import make_session, runtime_errors

__all__ = ["GraphSettings", "GraphTower", "unit"]


class GraphSettings(TowerSettings, frozen=True, kw_only=True):
    """input, output: the graph's, (n, *row) and float32 (n, dim), n free."""

    input: str
    output: str


class GraphTower(ABC):
    """load and close may be called from another thread than what runs the graph."""

    def __init__(self, config: GraphSettings, context: TowerContext) -> None:
        """Opens nothing."""
        self._settings = config
        self._context = context
        self._session: Any = None
        self._lock = threading.Lock()

    @property
    def space(self) -> str:
        return self._context.identity

    @property
    def precision(self) -> str:
        return self._settings.chosen(self._context.options.precision)

    @property
    def provider(self) -> str:
        """The provider that runs it; empty until it is loaded."""
        session = self._session
        return session.get_providers()[0] if session else ""

    def load(self) -> None:
        """Check the files' sha256, open and check the session, run it once.

        Idempotent. Raises ModelMissing, ModelMismatch, or ConfigError for the provider.
        """
        with self._lock:
            if self._session is not None:
                return
            path = checked_path(self._context.folder, self._settings.files[self.precision])
            session = make_session(path, self._context.options, self.precision)
            example = self._example()
            self._check_graph(session, str(path), example.shape[1:])
            # The first run allocates and, on some providers, compiles: better now than in the
            # first event's latency.
            self._run(session, example)
            give_back()
            self._session = session

    def close(self) -> None:
        with self._lock:
            self._session = None

    @abstractmethod
    def _example(self) -> Array:
        """A row as the graph takes it, (1, *row): for checking and warming it up."""

    def _batches(self, rows: Array) -> Iterator[Array]:
        """`rows` in parts of as many as may be run at once."""
        step = self._settings.batch(self._context.options)
        return (rows[i : i + step] for i in range(0, len(rows), step))

    def _outputs(self) -> dict[str, tuple[int, ...]]:
        """What the graph gives of a row, its own vector first: name and shape."""
        return {self._settings.output: (self._context.dim,)}

    def _vectors(self, batches: Iterable[Array]) -> Float32Array:
        """float32 (n, dim): the unit vectors of all rows. Raises EncodeFailed."""
        return self._given(batches)[0]

    def _given(self, batches: Iterable[Array]) -> list[Float32Array]:
        """float32 (n, *shape) of each of `_outputs`, unit vectors. Raises EncodeFailed."""
        session = self._session
        if session is None:
            raise EncodeFailed(f"{self._context.modality} tower: not loaded")
        runs = [self._run(session, batch) for batch in batches]
        return [unit(np.concatenate(parts)) for parts in zip(*runs, strict=True)]

    def _run(self, session: Any, batch: Array) -> list[Float32Array]:
        try:
            given: list[Float32Array] = session.run(
                list(self._outputs()), {self._settings.input: batch}
            )
        except runtime_errors() as exc:
            reason = " ".join(str(exc).split())
            raise EncodeFailed(f"{self._context.modality} tower: {reason}") from exc
        return given

    def _check_graph(self, session: Any, path: str, row: tuple[int, ...]) -> None:
        config = self._settings
        inputs = {value.name: tuple(value.shape[1:]) for value in session.get_inputs()}
        outputs = {value.name: tuple(value.shape[1:]) for value in session.get_outputs()}
        if len(inputs) != 1 or not _fits(inputs.get(config.input, ()), row):
            raise ModelMismatch(
                f"{path}: takes {inputs}, expected {{{config.input!r}: {row}}} by the manifest"
            )
        expected = self._outputs()
        if any(outputs.get(name) != shape for name, shape in expected.items()):
            raise ModelMismatch(f"{path}: gives {outputs}, expected {expected}")


def _fits(shape: tuple[int | str | None, ...], row: tuple[int, ...]) -> bool:
    """Whether a graph's `shape` takes `row`; a dimension that is no number is a free one."""
    return len(shape) == len(row) and all(
        own == n for own, n in zip(shape, row, strict=True) if isinstance(own, int)
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
