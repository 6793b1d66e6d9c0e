"""A graph in 8 bits: near to the one in 32, whatever it is built of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="needs the extra 'bind'")
pytest.importorskip("onnx", reason="needs the extra 'bind'")

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from agent.contracts import RuntimeOptions
from encoders.bind import quantise as module
from encoders.bind.onnx_graph import free_rows, traced
from encoders.bind.quantise import quantise
from encoders.providers import make_session

SHAPE = (3, 16, 16)


def views(count: int = 48, shape: tuple[int, ...] = SHAPE) -> list[NDArray[np.float32]]:
    """Not around zero, as what comes from a clip is not."""
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 1, shape).astype(np.float32) for _ in range(count)]


def run(path: Path, rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    session = make_session(path, RuntimeOptions(providers=("cpu",)))
    name = session.get_inputs()[0].name
    made = [session.run(None, {name: row[np.newaxis]})[0] for row in rows]
    return np.concatenate(made)


def narrow(path: Path) -> None:
    """Of few weights a channel, as phones' networks have them, written to `path`."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU6()]
    for _ in range(4):
        layers += [nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.ReLU6()]
        layers += [nn.Conv2d(32, 32, 1), nn.ReLU6()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                layer.weight *= torch.rand(len(layer.weight), 1, 1, 1) * 4 + 1
    program = traced(network, torch.zeros(2, *SHAPE), {0: free_rows()}, ("input", "output"))
    program.save(path)


def weights(path: Path) -> list[NDArray[Any]]:
    tensors = onnx.load(path).graph.initializer
    return [numpy_helper.to_array(tensor) for tensor in tensors if len(tensor.dims) == 4]


def test_means_are_as_in_32_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, small, plain = (tmp_path / name for name in ("whole.onnx", "8.onnx", "plain.onnx"))
    narrow(whole)
    seen, unseen = views()[::2], views()[1::2]
    quantise(whole, small, seen)
    monkeypatch.setattr(module, "_shifts", lambda *_: {})
    quantise(whole, plain, seen)
    expected = run(whole, unseen)
    shift = np.abs((run(small, unseen) - expected).mean(axis=0)).mean()
    assert shift < 0.5 * np.abs((run(plain, unseen) - expected).mean(axis=0)).mean()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "8.onnx",
        "plain.onnx",
        "whole.onnx",
    ]


def test_weights_have_as_many_bits_as_any_processor_can_add(tmp_path: Path) -> None:
    narrow(tmp_path / "whole.onnx")
    quantise(tmp_path / "whole.onnx", tmp_path / "8.onnx", views())
    found = weights(tmp_path / "8.onnx")
    assert [t.shape for t in found if t.dtype == np.float32] == [(32, 3, 3, 3)]  # the first
    most = [
        (tensor.shape, np.abs(tensor.astype(int)).max())
        for tensor in found
        if tensor.dtype == np.int8
    ]
    assert sorted(most) == [((32, 1, 3, 3), 127)] * 4 + [((32, 32, 1, 1), 64)] * 4


def graph(path: Path, nodes: list[Any], tensors: dict[str, NDArray[np.float32]], out: int) -> None:
    """Of nameless operators, from "x" to "y"."""
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", out])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    # As onnx_graph marks its own, or the quantiser warns.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    onnx.save(model, path)


def test_convolutions_may_share_a_bias_or_have_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in {
            "a": (8, 3, 1, 1), "b": (8, 8, 1, 1), "c": (8, 8, 1, 1), "d": (8, 8, 1, 1), "both": (8,)
        }.items()
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["0"]),
        helper.make_node("Relu", ["0"], ["1"]),
        helper.make_node("Conv", ["1", "b", "both"], ["2"]),
        helper.make_node("Relu", ["2"], ["3"]),
        helper.make_node("Conv", ["3", "c", "both"], ["4"]),
        helper.make_node("Conv", ["4", "d"], ["5"]),
        helper.make_node("GlobalAveragePool", ["5"], ["6"]),
        helper.make_node("Flatten", ["6"], ["y"]),
    ]
    graph(tmp_path / "whole.onnx", nodes, tensors, 8)
    quantise(tmp_path / "whole.onnx", tmp_path / "8.onnx", views())
    expected = run(tmp_path / "whole.onnx", views())
    error = np.linalg.norm(run(tmp_path / "8.onnx", views()) - expected, axis=1)
    assert (error < 0.05 * np.linalg.norm(expected, axis=1)).all()


def test_a_graph_without_convolutions_is_quantised(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(768, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph(tmp_path / "whole.onnx", nodes, {"w": weight}, 4)
    quantise(tmp_path / "whole.onnx", tmp_path / "8.onnx", views())
    expected = run(tmp_path / "whole.onnx", views())
    error = np.linalg.norm(run(tmp_path / "8.onnx", views()) - expected, axis=1)
    assert (error < 0.05 * np.linalg.norm(expected, axis=1)).all()
    assert (tmp_path / "8.onnx").stat().st_size < (tmp_path / "whole.onnx").stat().st_size / 2
