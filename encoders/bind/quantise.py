"""A float32 ONNX graph in 8 bits, and most of what they cost taken back.

Needs the extra `bind`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np

from agent.contracts import RuntimeOptions
from agent.extras import needs_extra
from agent.types import Array
from encoders.preprocess.base import Float32Array
from encoders.providers import make_session

with needs_extra("bind"):
    import onnx
    from onnx import helper, numpy_helper

__all__ = ["quantise"]

# The norm at the end would lose most in 8 bits; a pool that is quantised costs 0.001 of cosine and
# saves nothing that could be measured.
QUANTISED = ["Conv", "Add", "Clip", "Gemm", "MatMul"]

_Row: TypeAlias = dict[str, Float32Array]  # of a session's inputs
_Rounded: TypeAlias = Mapping[str, Mapping[str, Array]]  # weights: "float" and "dequantized"


def quantise(source: Path, path: Path, views: Sequence[Float32Array]) -> None:
    """Write the graph of `source`, float32 of one input, to `path`: weights in int8, a scale a
    channel, and activations in uint8 by their range over `views`, each a row of the input.

    Weights have 7 bits: where the processor has no VNNI, onnxruntime adds pairs of products in 16
    bits, which 8-bit weights overflow (its quantisation guide, "reduce_range"). Those of depthwise
    convolutions have 8: their products are added in 32 everywhere (its mlas/lib, qdwconv.cpp and
    ConvSymKernelAvx2.asm), and emulated without VNNI vectors were the same to the last bit.

    What rounding weights adds to a channel's mean goes through all that follows, and costs most:
    the biases of convolutions take it back ("bias correction" of Nagel et al. 2019,
    arXiv:1906.04721, section 4.2, its means over `views`). The first convolution stays in float32:
    its weights are few, of the widest spread, and it is as fast.
    """
    from onnxruntime.quantization.qdq_loss_debug import create_weight_matching

    model = onnx.load(source)
    for number, node in enumerate(model.graph.node):
        node.name = str(number)  # what is left out is told by name, and networks may have none
    kept, wide = _first(model.graph.node), _depthwise(model)
    rows = [{model.graph.input[0].name: view[np.newaxis]} for view in views]
    with TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.onnx"
        onnx.save(model, whole)
        _to_8_bits(whole, path, rows, kept, wide)
        rounded = create_weight_matching(str(whole), str(path))
        shifts = _shifts(model, rounded, rows, Path(folder) / "lost.onnx")
        if shifts:
            _put_right(model, rounded, shifts)
            onnx.save(model, whole)
            # Ranges are measured again, of what will run.
            _to_8_bits(whole, path, rows, kept, wide)


def _to_8_bits(
    source: Path, path: Path, rows: Sequence[_Row], kept: Sequence[str], wide: Mapping[str, int]
) -> None:
    """kept: names of the operators that are left in float32. wide: names of the weights that have
    all 8 bits, and how many channels.
    """
    from onnxruntime.quantization import QuantType, quantize_static

    whole = {"quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": False}
    quantize_static(
        source,
        path,
        _Rows(rows),
        op_types_to_quantize=QUANTISED,
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
        extra_options={
            # What a last product gives keeps its bits. A sum of two, with which the picture towers
            # end, has 8 (0.9997 of cosine).
            "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
            # One a channel; the first of them says along which axis they are.
            "TensorQuantOverrides": {
                name: [{"axis": 0, **whole}, *[whole] * (channels - 1)]
                for name, channels in wide.items()
            },
        },
    )


def _first(nodes: Iterable[Any]) -> list[str]:
    """Names of the first convolution and of what clips it, which it was one step with."""
    first = next((node for node in nodes if node.op_type == "Conv"), None)
    if first is None:
        return []
    clips = [n for n in nodes if n.op_type == "Clip" and n.input[0] == first.output[0]]
    return [node.name for node in (first, *clips)]


def _depthwise(model: Any) -> dict[str, int]:
    """Names of the weights of convolutions that have a channel for each group."""
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        groups = next((own.i for own in node.attribute if own.name == "group"), 1)
        if node.op_type == "Conv" and node.input[1] in sizes and groups > 1:
            channels, a_group, *_ = sizes[node.input[1]]
            if channels == groups and a_group == 1:
                found[node.input[1]] = groups
    return found


def _shifts(
    model: Any, rounded: _Rounded, rows: Sequence[_Row], path: Path
) -> dict[str, Float32Array]:
    """By its output, of each rounded convolution with a bias, float32 (channels,): the mean over
    `rows` of what its weights lost. path: for a graph that gives it.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.output[:]
    nodes = [
        node
        for node in model.graph.node
        if node.op_type == "Conv" and len(node.input) == 3 and {*node.input[1:]} <= {*rounded}
    ]
    if not nodes:
        return {}
    for node in nodes:
        weights = rounded[node.input[1]]
        lost, seen = f"{node.output[0]}.lost", f"{node.output[0]}.seen"
        _put(graph.graph.initializer.add(name=lost), weights["float"] - weights["dequantized"])
        twin = graph.graph.node.add()
        twin.CopyFrom(node)
        twin.name = lost
        twin.input[:], twin.output[:] = [node.input[0], lost], [seen]
        mean = f"{node.output[0]}.mean"
        graph.graph.node.append(helper.make_node("GlobalAveragePool", [seen], [mean]))
        graph.graph.output.append(helper.make_tensor_value_info(mean, onnx.TensorProto.FLOAT, None))
    onnx.save(graph, path)
    session = make_session(path, RuntimeOptions(providers=("cpu",)))
    made = [session.run(None, row) for row in rows]
    means = [np.mean(own, axis=0).reshape(-1) for own in zip(*made, strict=True)]
    return {node.output[0]: mean for node, mean in zip(nodes, means, strict=True)}


def _put_right(model: Any, rounded: _Rounded, shifts: Mapping[str, Float32Array]) -> None:
    """In place: weights as they were rounded, and biases that take the shifts back."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, values in rounded.items():
        _put(weights[name], values["dequantized"])
    before = set()
    for node in model.graph.node:
        if node.output[0] in shifts:
            bias = model.graph.initializer.add(name=f"{node.output[0]}.bias")  # others may share it
            before.add(node.input[2])
            _put(bias, numpy_helper.to_array(weights[node.input[2]]) + shifts[node.output[0]])
            node.input[2] = bias.name
    for name in before.difference(*(node.input for node in model.graph.node)):
        model.graph.initializer.remove(weights[name])


def _put(tensor: Any, values: Array) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


class _Rows:
    """As onnxruntime's CalibrationDataReader, which has no types to subclass."""

    def __init__(self, rows: Iterable[_Row]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> _Row | None:
        """The next input, None after the last."""
        return next(self._rows, None)
