"""One tower of ImageBind as ONNX files, one a precision, and how near they are to the original.

Needs the extra `export`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.clock import SystemClock, to_s
from agent.contracts import RuntimeOptions
from agent.errors import EncoderError
from agent.extras import needs_extra
from agent.types import Array
from encoders.bind.onnx_graph import free_rows, traced
from encoders.imagebind.checkpoint import Checkpoint
from encoders.imagebind.dims import CONTEXT, GEOMETRY, expected_shapes
from encoders.imagebind.entries import INPUT, OUTPUT, SENSES, TEXT, TEXT_INPUT
from encoders.imagebind.folder import Check, TowerReport
from encoders.imagebind.graphs import tower_graph
from encoders.imagebind.model import MAX_SCALE, load
from encoders.manifest import ModelFile, read_entry
from encoders.memory import give_back
from encoders.providers import make_session

with needs_extra("export"):
    import torch
    from torch import Tensor

__all__ = [
    "FLOORS",
    "Exported",
    "Tower",
    "export_tower",
    "needed_bytes",
    "tower_report",
]

SCALE_DIGITS = 5  # of a float32's logarithm, no more are true
# A protobuf message holds 2 GB at most; the graph itself is well under the rest.
MAX_FILE_BYTES = 2_000_000_000

# Least cosine of an exported vector with the original's, of any input, by precision.
FLOORS = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.99}

# Kept in float32, tried in this order until an int8 tower is as near as wanted, or there are no
# more: softmax makes an error in queries and keys larger, and these are the fewest weights.
INT8_KEPT: tuple[tuple[str, ...], ...] = ((), ("query", "key"), ("query", "key", "out"))
INT8_WANTED = 0.999

# A row changes the scale that a whole int8 activation has, and so the rows beside it.
INT8_MAX_BATCH = 1


class Exported(NamedTuple):
    """A file of one precision. cosines: with the original, one an input. kept: the products of a
    block that an int8 tower has in float32. seconds: it took.
    """

    file: ModelFile
    cosines: list[float]
    kept: tuple[str, ...]
    seconds: float


class Tower(NamedTuple):
    """scale: what the publisher multiplies its unit vectors by. files: by precision."""

    scale: float
    files: dict[str, Exported]


def export_tower(
    checkpoint: Checkpoint,
    sense: str,
    floors: Mapping[str, float],
    inputs: Sequence[Array],
    folder: Path,
    step: Callable[[str], None],
) -> Tower:
    """Write `sense`.onnx or `sense`.PRECISION.onnx into `folder`, one for each key of `floors`.

    inputs: rows as the graph takes them, without the batch; at least one. step: told what is done
    next. The original is model.py's in float32, which shares no code with the graph. Raises
    EncoderError where the least cosine with it is under the floor; what was written stays.
    """
    # Exporters tie their objects in rings, and what is freed stays with the C library: a tower of
    # 2.5 GB took 11.2 GB at the most without giving it back between steps, 8.7 with it.
    step("original")
    scale, expected = _original(checkpoint, SENSES[sense], inputs)
    exported = {}
    clock = SystemClock()
    whole = folder / f"{sense}.onnx"
    for precision in sorted(floors, key=list(FLOORS).index):
        started_ns = clock.now_ns()
        path = whole if precision == "fp32" else folder / f"{sense}.{precision}.onnx"
        step(precision)
        kept: tuple[str, ...] = ()
        if precision == "int8":
            if not whole.exists():
                _write_graph(checkpoint, SENSES[sense], torch.float32, whole)
            give_back()
            for kept in INT8_KEPT:
                _quantise(whole, path, kept)
                cosines = _cosines(path, inputs, expected)
                if cosines.min() >= max(INT8_WANTED, floors[precision]):
                    break
        else:
            dtype = torch.float32 if precision == "fp32" else torch.float16
            _write_graph(checkpoint, SENSES[sense], dtype, path)
            give_back()
            cosines = _cosines(path, inputs, expected)
        seconds = to_s(clock.now_ns() - started_ns)
        give_back()
        # Turned round, so that what is not a number fails too.
        if not cosines.min() >= floors[precision]:
            raise EncoderError(
                f"{sense} {precision}: least cosine with the original is {cosines.min():.6f}, "
                f"expected at least {floors[precision]:g}"
            )
        exported[precision] = Exported(_entry(path, precision), cosines.tolist(), kept, seconds)
    if "fp32" not in floors:
        for part in (whole, _data(whole)):
            part.unlink(missing_ok=True)
    return Tower(scale, exported)


def tower_report(tower: Tower, floors: Mapping[str, float], material: str) -> TowerReport:
    """What a folder keeps of an exported tower. material: what the inputs were."""
    files = {
        name: Check(
            file=made.file,
            least=min(made.cosines),
            mean=math.fsum(made.cosines) / len(made.cosines),
            inputs=len(made.cosines),
            material=material,
            floor=floors[name],
            kept=made.kept,
            seconds=round(made.seconds, 1),
        )
        for name, made in tower.files.items()
    }
    return TowerReport(scale=tower.scale, files=files)


def needed_bytes(checkpoint: Checkpoint, pending: Mapping[str, Sequence[str]]) -> int:
    """About as many as exporting takes of a disk, at its fullest. pending: precisions by sense."""
    kept = spare = 0
    for sense, precisions in pending.items():
        sizes = {name: _bytes(checkpoint, SENSES[sense], name) for name in FLOORS}
        kept += sum(sizes[name] for name in precisions)
        if "int8" in precisions:
            # The quantiser makes a copy of the float32 graph, which may itself be for it alone.
            spare = max(spare, sizes["fp32"] * (1 if "fp32" in precisions else 2))
    return kept + spare


def _bytes(checkpoint: Checkpoint, tower: str, precision: str) -> int:
    shapes = expected_shapes(tower, checkpoint.dims.towers[tower], checkpoint.dims.out)
    counts = {key: math.prod(shape) for key, shape in shapes.items()}
    total = sum(counts.values())
    if precision != "int8":
        return total * (4 if precision == "fp32" else 2)
    products = sum(
        counts[key] for key, shape in shapes.items() if len(shape) == 2 and "token_embed" not in key
    )
    # A quarter of a block's products may be kept in float32 (INT8_KEPT).
    return products * 7 // 4 + 4 * (total - products)


def _entry(path: Path, precision: str) -> ModelFile:
    own, data = read_entry(path), _data(path)
    return ModelFile(
        path=own.path,
        bytes=own.bytes,
        sha256=own.sha256,
        data=read_entry(data) if data.exists() else None,
        max_batch=INT8_MAX_BATCH if precision == "int8" else None,
    )


def _data(path: Path) -> Path:
    """Where torch.onnx puts external data."""
    return path.with_name(f"{path.name}.data")


def _original(checkpoint: Checkpoint, tower: str, inputs: Sequence[Array]) -> tuple[float, Array]:
    """The scale, and float32 (n, out) unit vectors."""
    model = load(checkpoint, [tower])
    vectors = []
    with torch.inference_mode():
        for row in inputs:
            # The original takes a text at its full length only.
            whole = np.pad(row, (0, CONTEXT - len(row))) if tower == TEXT else row
            vectors.append(model.vectors(tower, torch.from_numpy(whole[np.newaxis]))[0].numpy())
    log_scale = model.state_dict().get(f"modality_postprocessors.{tower}.1.log_logit_scale")
    scale = 1.0 if log_scale is None else min(math.exp(log_scale.item()), MAX_SCALE)
    return round(scale, SCALE_DIGITS), np.stack(vectors)


def _cosines(path: Path, inputs: Sequence[Array], expected: Array) -> Array:
    options = RuntimeOptions(providers=("cpu",), threads=torch.get_num_threads())
    session = make_session(path, options)
    name = session.get_inputs()[0].name
    vectors = [session.run([OUTPUT], {name: row[np.newaxis]})[0] for row in inputs]
    cosines: Array = (np.concatenate(vectors) * expected).sum(axis=1, dtype=np.float64)
    return cosines


def _write_graph(checkpoint: Checkpoint, tower: str, dtype: torch.dtype, path: Path) -> None:
    graph = tower_graph(checkpoint.tensors(tower), checkpoint.dims.towers[tower], tower, dtype)
    free = {0: free_rows()}
    if tower == TEXT:
        example: Tensor = torch.ones((2, 9), dtype=torch.int64)
        free[1] = torch.export.Dim("length", min=2, max=CONTEXT)
    else:
        example = torch.zeros(2, *GEOMETRY[tower].input)
    program = traced(graph, example, free, (TEXT_INPUT if tower == TEXT else INPUT, OUTPUT))
    tensors = [*graph.parameters(), *graph.buffers()]
    size = sum(tensor.nbytes for tensor in tensors)
    program.save(path, external_data=size > MAX_FILE_BYTES)
    # The optimiser's rules hold on to the last graph they saw: not with its weights.
    for value in program.model.graph.initializers.values():
        value.const_value = None


def _quantise(source: Path, path: Path, kept: Sequence[str]) -> None:
    """Products with weights in int8, a scale a column; all else stays float32, and so do the
    products of a block that are `kept`.

    Weights have 7 bits: where the processor has no VNNI, onnxruntime adds pairs of products in 16
    bits, which 8-bit weights overflow (its quantisation guide, "reduce_range").
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source, load_external_data=False).graph
    weights = tuple(f".{name}.weight" for name in kept)
    quantize_dynamic(
        source,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=[
            node.name for node in graph.node if any(n.endswith(weights) for n in node.input)
        ],
    )
