"""A torch module as an ONNX graph that tells nothing of the machine it was made on.

Needs the extra `export` or `bind`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agent.extras import needs_extra

with needs_extra("export"):
    import torch
    from torch import Tensor, nn

__all__ = ["free_rows", "traced"]

OPSET = 20  # the first with Gelu


def free_rows() -> Any:
    """A batch of any size, for `free` of `traced`."""
    return torch.export.Dim("n", min=1, max=1 << 16)


def traced(
    module: nn.Module, example: Tensor, free: Mapping[int, Any], names: Sequence[str]
) -> torch.onnx.ONNXProgram:
    """The graph of `module`, ready to be saved and quantised; it holds the module's own weights.

    example: an input, in its dtype and on its device; at least two long on each axis of `free`,
    which are those of any length, as torch.export.Dim. names: of the input and each output.
    """
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[names[0]],
            output_names=list(names[1:]),
            dynamic_shapes=(dict(free),),
            verbose=False,
        )
    assert program is not None
    _strip(program.model)
    return program


def _strip(model: Any) -> None:
    """Take out what the exporter notes of the source code, with this machine's paths, and of what
    is between operators: shapes, which quantising would take at their word, and names, of which
    one may be the output's.
    """
    outputs = set(model.graph.outputs)
    model.metadata_props.clear()
    # The exporter has folded constants: the quantiser looks for this mark, or warns.
    model.metadata_props["onnx.quant.pre_process"] = "onnxruntime.quant"
    model.graph.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    for number, node in enumerate(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
        for index, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if value not in outputs:
                value.name, value.shape, value.type = f"{number}.{index}", None, None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own code and on packages that are not needed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
