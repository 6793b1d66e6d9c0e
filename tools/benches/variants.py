"""The variants that `bench imagebind` compares: each a set of cases, made once and run often.

A function a variant, called in a process of its own (tools/benches/worker.py) with what the parent
wants and the arrays it made; those that stand for the running agent never import torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from agent.clock import NS_PER_S
from agent.config import GateConfig, QueryConfig
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from agent.match.meaning import Meaning, Part
from agent.match.queries import QuerySet
from agent.types import Array, StreamInfo, Window
from encoders.imagebind.dims import TINY, Dims, TowerDims
from encoders.manifest import TowerContext, convert, read_manifest
from encoders.preprocess.base import PerStream
from encoders.registry import find_plugin
from encoders.session import GraphSettings, GraphTower
from encoders.space import open_space

__all__ = [
    "BATCHES",
    "CLIP_TICKS",
    "HOP_TICKS",
    "IMU_HZ",
    "SOUND_HZ",
    "VARIANTS",
    "Cases",
]

Cases = dict[str, Callable[[], Array]]

BATCHES = {"batch1": 1, "batch4": 4}
SOUND_HZ, IMU_HZ = 16_000, 200
CLIP_TICKS, HOP_TICKS = 2 * SOUND_HZ, SOUND_HZ // 2
MATMUL_SIZES = (1024, 2048, 4096)
ENTRY_POINTS = "sensebind.encoders"


def _plain(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    import torch

    from tools.benches.plain_imagebind import plain_forward

    torch.set_num_threads(spec["threads"])
    tower, (tensors, dims) = spec["tower"], _weights(spec)

    def case(x: Array) -> Callable[[], Array]:
        given = torch.from_numpy(x)
        return lambda: plain_forward(tower, tensors, dims.towers[tower], given).numpy()

    return {name: case(x) for name, x in inputs.items() if name != "window"}


def _weights(spec: Mapping[str, Any]) -> tuple[Any, Dims]:
    from encoders.imagebind.checkpoint import open_checkpoint
    from encoders.imagebind.random_weights import random_checkpoint

    source = spec["source"]
    if source["checkpoint"]:
        made = open_checkpoint(Path(source["checkpoint"]))
    else:
        sizes = {tower: TowerDims(*size) for tower, size in source["dims"].items()}
        made = random_checkpoint(Dims(source["out"], sizes), source["seed"])
    return made.tensors(spec["tower"]), made.dims


def _reference(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    """The published implementation, from the folder it was cloned to."""
    import importlib
    import types

    import torch

    # Its __init__ imports data loaders whose packages are not needed to run a tower.
    package = types.ModuleType("imagebind")
    package.__path__ = [str(Path(spec["reference"]) / "imagebind")]
    sys.modules["imagebind"] = package
    try:
        published = importlib.import_module("imagebind.models.imagebind_model")
    except ImportError as exc:
        raise ConfigError(
            f"--reference {spec['reference']}: {exc}, expected a clone of ImageBind's repository "
            "and the packages that its models import"
        ) from exc
    torch.set_num_threads(spec["threads"])
    tower, (tensors, dims) = spec["tower"], _weights(spec)
    sizes: dict[str, int] = {"out_embed_dim": dims.out}
    # It makes all six towers; of those that are not used, the smallest.
    for name, size in {**TINY.towers, tower: dims.towers[tower]}.items():
        sizes |= {
            f"{name}_embed_dim": size.width,
            f"{name}_num_blocks": size.blocks,
            f"{name}_num_heads": size.heads,
        }
    model = published.ImageBindModel(**sizes)
    model.load_state_dict(tensors, strict=False, assign=True)
    model.eval()

    def case(x: Array) -> Callable[[], Array]:
        given = torch.from_numpy(x)

        def run() -> Array:
            with torch.inference_mode():
                output: Array = model({tower: given})[tower].numpy()
            return output

        return run

    return {name: case(x) for name, x in inputs.items() if name != "window"}


class _Rows(GraphTower):
    """A tower's graph in the agent's own session, given rows that are preprocessed already."""

    def __init__(self, config: GraphSettings, context: TowerContext, example: Array) -> None:
        super().__init__(config, context)
        self._row = example[:1]

    def run(self, rows: Array) -> Array:
        """float32 (n, dim) unit vectors."""
        return self._vectors(self._batches(rows))

    def _example(self) -> Array:
        return self._row


def _options(spec: Mapping[str, Any]) -> RuntimeOptions:
    return RuntimeOptions(threads=spec["threads"], precision=spec["precision"])


def _session(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    """The exported graph alone."""
    folder, sense = Path(spec["folder"]), spec["sense"]
    settings = read_manifest(folder)
    fields = dict(settings.towers[sense])
    kind = find_plugin(fields.pop("kind"), "encoders", ENTRY_POINTS, f"{folder}: {sense}")
    config = convert(fields, kind.Config, f"{folder}: {sense}")
    context = TowerContext(folder, sense, settings.name, settings.dim, _options(spec))
    rows = {name: _row(sense, x) for name, x in inputs.items() if name in BATCHES}
    tower = _Rows(config, context, rows["batch1"])
    tower.load()
    return {name: partial(tower.run, x) for name, x in rows.items()}


def _row(sense: str, x: Array) -> Array:
    """The graph's input for the plain forward's: a still given twice, no tokens after the end."""
    if sense == "image":
        return np.repeat(x[:, :, np.newaxis], 2, axis=2)
    return x[:, : int(x.argmax(-1).max()) + 1] if sense == "text" else x


def _encode(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    """What the agent does: a whole window, or a query in words."""
    space = open_space(spec["folder"], _options(spec))
    sense = spec["sense"]
    if sense != "text":
        encoder, window = space.encoder(sense), _window(sense, inputs["window"])
        encoder.load()
        return {"window": lambda: encoder.encode([window])[0].vector}
    text_encoder = space.text_encoder()
    text_encoder.load()

    def embed(config: QueryConfig) -> Meaning:
        return Meaning((Part(text_encoder.encode(config.phrases)[0]),))

    query = QueryConfig(text=spec["text"])
    queries = QuerySet(embed, GateConfig())
    queries.put(query)
    return {
        "cold query": lambda: embed(query).parts[0].embedding.vector,
        "same query again": lambda: queries.put(query).meaning.parts[0].embedding.vector,
    }


def _window(sense: str, data: Array, start_ns: int = 0, live: bool = False) -> Window:
    """live: as one of a stream, of which the preprocessing may keep work for the next."""
    rate_hz = {"audio": SOUND_HZ, "imu": IMU_HZ}.get(sense)
    info = StreamInfo("bench", sense, str(data.dtype), data.shape[1:], rate_hz, "")
    t_ns = np.rint(np.arange(len(data)) * NS_PER_S / (rate_hz or 1.0)).astype(np.int64) + start_ns
    end_ns = int(t_ns[-1]) + 1
    return Window(info, start_ns, end_ns, data, t_ns, arrival_ns=end_ns if live else 0)


def _plain_picture(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    import torch

    from tools.benches.plain_imagebind import plain_picture

    torch.set_num_threads(1)  # so little work takes longer when it is shared
    frame = inputs["window"][0]

    def run() -> Array:
        still = plain_picture(frame).numpy()
        # The tower takes it twice, which as a view costs nothing.
        return np.broadcast_to(still[np.newaxis, :, np.newaxis], (1, 3, 2, 224, 224))

    return {"frame": run}


def _picture(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    from encoders.preprocess.imagebind_image import PLUGIN as Picture

    run, window = Picture(resize=spec["resize"]), _window("image", inputs["window"])
    return {"frame": lambda: run(window)}


def _plain_log_mel(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    import torch

    from tools.benches.plain_imagebind import plain_log_mel

    torch.set_num_threads(1)  # so little work takes longer when it is shared
    clip = torch.from_numpy(inputs["sound"][:CLIP_TICKS])
    return {"clip": lambda: plain_log_mel(clip).numpy()[np.newaxis]}


def _log_mel(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    """From scratch, and as the next window of a live stream half a second on."""
    from encoders.preprocess.imagebind_audio import PLUGIN as Sound

    preprocess = Sound()
    sound = inputs["sound"][:, np.newaxis]
    length, hop = CLIP_TICKS, HOP_TICKS
    windows = [
        _window("audio", sound[at : at + length], at * NS_PER_S // SOUND_HZ, live=True)
        for at in range(0, len(sound) - length + 1, hop)
    ]
    streaming, successive = PerStream(preprocess), cycle(windows)
    return {
        "clip": lambda: preprocess(windows[0]),
        "next hop": lambda: streaming(next(successive)),
    }


def _peak_torch(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    """float32 products of square matrices: what the machine gives at best."""
    import torch

    torch.set_num_threads(spec["threads"])

    def case(size: int) -> Callable[[], Array]:
        a, b = torch.randn(size, size), torch.randn(size, size)
        return lambda: torch.mm(a, b)[:1, :1].numpy()

    return {str(size): case(size) for size in MATMUL_SIZES}


def _peak_numpy(spec: Mapping[str, Any], inputs: Mapping[str, Array]) -> Cases:
    def case(size: int) -> Callable[[], Array]:
        a, b = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
        return lambda: (a @ b)[:1, :1]

    return {str(size): case(size) for size in MATMUL_SIZES}


VARIANTS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Array]], Cases]] = {
    "plain": _plain,
    "reference": _reference,
    "session": _session,
    "encode": _encode,
    "plain_picture": _plain_picture,
    "picture": _picture,
    "plain_log_mel": _plain_log_mel,
    "log_mel": _log_mel,
    "peak_torch": _peak_torch,
    "peak_numpy": _peak_numpy,
}
