"""A frozen ONNX network that gives feature vectors, and the linear head that is trained on them.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, ModelMismatch
from agent.extras import needs_extra
from agent.types import Array
from encoders.bind.examples import Examples
from encoders.bind.export import INPUT, OUTPUT
from encoders.bind.recall import embed
from encoders.preprocess.base import Float32Array
from encoders.providers import make_session, runtime_errors

with needs_extra("bind"):
    import onnx
    import torch
    from onnx import compose, helper, numpy_helper, shape_inference
    from onnx.utils import Extractor
    from torch import Tensor, nn

__all__ = ["Features", "Head", "HeadedGraph"]

BATCH = 32
LEAST_OPSET = 13  # the first with a scale a channel, which int8 weights have
LEAST_IR = 4  # the first whose weights are no inputs
MAX_FILE_BYTES = 2_000_000_000  # of a protobuf message
LEAST_DEVIATION = 1e-6  # a feature that never changes tells nothing, and is not blown up


class Features:
    """A user's network, run as it is. width: of the feature vector."""

    def __init__(self, path: Path, view_shape: tuple[int, ...], threads: int) -> None:
        """Opens `path` and runs it once on zeros.

        It has one input, float32 (n, *view_shape), and one output of two axes, float32 (n, width);
        n is free or 1. Raises ConfigError for a file that is missing or anything else.
        """
        if not path.is_file():
            raise ConfigError(f"{path}: no such file, expected an ONNX network")
        try:
            self._session = make_session(path, RuntimeOptions(providers=("cpu",), threads=threads))
        except ModelMismatch as exc:
            raise ConfigError(str(exc)) from exc
        self.path, self.view_shape = path, view_shape
        self.model = onnx.load(path)
        opset = next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if opset < LEAST_OPSET:
            raise ConfigError(
                f"{path}: opset {opset}, expected at least {LEAST_OPSET}: convert it with "
                "onnx.version_converter"
            )
        if self.model.ByteSize() > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: {self.model.ByteSize()} bytes, expected at most 2 GB")
        inputs = self._session.get_inputs()
        self.input: str = inputs[0].name
        rows = inputs[0].shape[:1]
        self.max_batch = rows[0] if rows and isinstance(rows[0], int) else None
        takes = {value.name: f"{value.type} {value.shape}" for value in inputs}
        wanted = f"one input, float32 [n, {', '.join(map(str, view_shape))}]"
        if len(inputs) != 1 or self.max_batch not in (None, 1):
            raise ConfigError(f"{path}: takes {takes}, expected {wanted}")
        names = [value.name for value in self._session.get_outputs()]
        try:
            zeros = np.zeros((1, *view_shape), np.float32)
            made = dict(zip(names, self._session.run(names, {self.input: zeros}), strict=True))
        except runtime_errors() as exc:
            raise ConfigError(f"{path}: takes {takes}, expected {wanted}, the views'") from exc
        flat = [n for n, value in made.items() if value.dtype == np.float32 and value.ndim == 2]
        if len(flat) != 1:
            told = {name: f"{value.dtype} {list(value.shape)}" for name, value in made.items()}
            raise ConfigError(
                f"{path}: gives {told}, expected one output that is float32 [n, width]: "
                "onnx.utils.extract_model cuts a network"
            )
        (self.output,) = flat
        self.width: int = made[self.output].shape[1]

    def vectors(self, views: Sequence[Float32Array]) -> Float32Array:
        """float32 (n, width). Raises ConfigError where the network fails or gives no numbers."""
        step = self.max_batch or BATCH
        parts = []
        try:
            for i in range(0, len(views), step):
                rows = np.stack(views[i : i + step])
                parts.append(self._session.run([self.output], {self.input: rows})[0])
        except runtime_errors() as exc:
            reason = " ".join(str(exc).split())
            raise ConfigError(f"{self.path}: cannot be run ({reason})") from exc
        features: Float32Array = np.concatenate(parts)
        if features.shape != (len(views), self.width) or not np.isfinite(features).all():
            raise ConfigError(
                f"{self.path}: gives {list(features.shape)} or what is not finite, expected "
                f"numbers [{len(views)}, {self.width}]"
            )
        return features

    def examples(self, examples: Examples) -> Examples:
        """The same examples, with features (width,) in place of their views."""
        return replace(examples, views=list(self.vectors(examples.views)))


class Head(nn.Module):
    """Features (n, width), standardised, through one linear layer: unit vectors (n, dim)."""

    def __init__(self, features: Float32Array, dim: int, seed: int) -> None:
        """features: (n, width), those of training: what is standardised by."""
        super().__init__()
        deviation = np.maximum(features.std(axis=0), LEAST_DEVIATION)
        self.register_buffer("mean", torch.from_numpy(features.mean(axis=0)))
        self.register_buffer("deviation", torch.from_numpy(deviation))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(features.shape[1], dim)

    def forward(self, features: Tensor) -> Tensor:
        standardised = (features - self.get_buffer("mean")) / self.get_buffer("deviation")
        return nn.functional.normalize(self.linear(standardised), dim=1)


class HeadedGraph:
    """An export.Graph: the network and its head as one."""

    def __init__(self, features: Features, head: Head) -> None:
        self._features, self._head = features, head
        self.view_shape, self.max_batch = features.view_shape, features.max_batch

    def vectors(self, views: Sequence[Float32Array]) -> Float32Array:
        return embed(self._head, list(self._features.vectors(views)))

    def write(self, path: Path) -> None:
        whole, ends = self._features.model, ([self._features.input], [self._features.output])
        network = Extractor(whole).extract_model(*ends)  # without what else it gives
        network.ir_version = max(whole.ir_version, LEAST_IR)
        merged = compose.merge_models(
            network,
            self._model(network),
            [(self._features.output, "features")],
            prefix1="network/",  # it may have our names inside
            prefix2="head/",
            producer_name="sensebind",
        )
        own = f"network/{self._features.input}"
        merged.graph.node.insert(0, helper.make_node("Identity", [INPUT], [own]))
        merged.graph.node.append(helper.make_node("Identity", [f"head/{OUTPUT}"], [OUTPUT]))
        rows = self.max_batch or "n"
        dim = self._head.linear.out_features
        _set(merged.graph.input, _value(INPUT, (rows, *self.view_shape)))
        _set(merged.graph.output, _value(OUTPUT, (rows, dim)))
        _fold(merged, path)

    def _model(self, network: Any) -> Any:
        """The head as ONNX, of the opset and the format that the network has."""
        head = self._head
        weights = {
            "mean": head.get_buffer("mean"),
            "deviation": head.get_buffer("deviation"),
            "weight": head.linear.weight,
            "bias": head.linear.bias,
        }
        dim, width = head.linear.weight.shape
        graph = helper.make_graph(
            [
                helper.make_node("Sub", ["features", "mean"], ["centred"]),
                helper.make_node("Div", ["centred", "deviation"], ["standardised"]),
                helper.make_node("Gemm", ["standardised", "weight", "bias"], ["raw"], transB=1),
                helper.make_node("LpNormalization", ["raw"], [OUTPUT], axis=1, p=2),
            ],
            "head",
            [_value("features", ("n", width))],
            [_value(OUTPUT, ("n", dim))],
            [numpy_helper.from_array(_numbers(value), name) for name, value in weights.items()],
        )
        return helper.make_model(
            graph, opset_imports=network.opset_import, ir_version=network.ir_version
        )


def _numbers(tensor: Tensor) -> Array:
    numbers: Array = tensor.detach().cpu().numpy()
    return numbers


def _value(name: str, shape: tuple[int | str, ...]) -> Any:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def _set(values: Any, only: Any) -> None:
    del values[:]
    values.append(only)


def _fold(model: Any, path: Path) -> None:
    """Write `model` as onnxruntime simplifies it for any machine, norms folded into convolutions,
    with the shapes between operators: the quantiser wants both.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    folded = shape_inference.infer_shapes(onnx.load(path))
    # It adds every operator set that it knows, some of them twice: the quantiser stops at that.
    used = {node.domain for node in folded.graph.node} | {""}
    versions = {opset.domain: opset.version for opset in folded.opset_import}
    del folded.opset_import[:]
    for domain in sorted(versions.keys() & used - {"ai.onnx"}):
        folded.opset_import.append(helper.make_opsetid(domain, versions[domain]))
    # The quantiser looks for this mark, or warns.
    folded.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    onnx.save(folded, path)
