"""A model folder with ImageBind's inputs and made networks, small enough to write in a test."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from encoders.imagebind.dims import GEOMETRY, VOCABULARY

__all__ = ["DIM", "write_space"]

DIM = 32


def write_space(folder: Path, text: dict[str, Any] | None = None) -> Path:
    """`space.yaml`, three networks and the tokenizer. text: fields of the text tower's entry."""
    (folder / "tokenizer.json").write_bytes(
        files("encoders.imagebind").joinpath("tokenizer.json").read_bytes()
    )
    _save(folder / "text.onnx", _text_graph())
    towers: dict[str, Any] = {
        "text": {
            "kind": "clip_text",
            "precision": "fp32",
            "files": {"fp32": _entry(folder / "text.onnx")},
            "input": "ids",
            "output": "embedding",
            "tokenizer": _entry(folder / "tokenizer.json"),
            **(text or {}),
        }
    }
    for modality, length_s in (("audio", 2.0), ("imu", 10.0)):
        path = folder / f"{modality}.onnx"
        _save(path, _flat_graph(GEOMETRY[modality].input))
        towers[modality] = {
            "kind": "tower",
            "precision": "fp32",
            "files": {"fp32": _entry(path)},
            "input": "input",
            "output": "embedding",
            "window": {"length_s": length_s, "hop_s": 0.5},
            "preprocess": {"name": f"imagebind_{modality}", "parameters": {}},
        }
    manifest = {"version": 1, "name": "made", "dim": DIM, "licence": "none", "towers": towers}
    (folder / "space.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"path": path.name, "bytes": len(content), "sha256": sha256(content).hexdigest()}


def _constant(name: str, value: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def _save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _text_graph() -> onnx.GraphProto:
    """Causal, not linear, and read off at the largest id, as a text tower is."""
    table = np.random.default_rng(1).normal(size=(VOCABULARY, DIM))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"]),
        helper.make_node("CumSum", ["tokens", "one"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["bent"]),
        helper.make_node("CumSum", ["bent", "one"], ["states"]),
        helper.make_node("ArgMax", ["ids"], ["end"], axis=1, keepdims=1),
        helper.make_node("GatherND", ["states", "end"], ["embedding"], batch_dims=1),
    ]
    constants = [_constant("table", table), _constant("one", 1, np.int64)]
    return helper.make_graph(nodes, "text", [ids], [embedding], constants)


def _flat_graph(shape: tuple[int, ...]) -> onnx.GraphProto:
    weights = np.random.default_rng(2).normal(size=(int(np.prod(shape)), DIM))
    view = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", *shape])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["embedding"]),
    ]
    return helper.make_graph(nodes, "flat", [view], [embedding], [_constant("weights", weights)])
