"""The plumbing: six streams at full rate through the live agent, its towers free and then busy."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files as package_files
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import yaml
from rich.console import Console
from rich.progress import Progress

from agent.contracts import RuntimeOptions
from agent.errors import AgentError, ConfigError
from agent.extras import needs_extra
from agent.publish.client import Subscriber
from agent.types import Array
from agent.wire import Health
from encoders.manifest import MANIFEST_NAME, convert, read_entry
from encoders.registry import find_plugin
from encoders.space import open_space
from tools.benches.common import (
    cores,
    make_table,
    running_agent,
)

__all__ = ["add_parser"]

STREAMS: dict[str, dict[str, Any]] = {
    "camera": {"modality": "image", "rate_hz": 30, "size": [1280, 720]},
    "second": {"modality": "image", "rate_hz": 30, "size": [1280, 720]},
    "depth": {"modality": "depth", "rate_hz": 30, "size": [640, 480]},
    "thermal": {"modality": "thermal", "rate_hz": 30, "size": [640, 480]},
    "microphone": {"modality": "audio", "rate_hz": 48_000},
    "imu": {"modality": "imu", "rate_hz": 200},
}
SETTLE_S = 6  # towers load, and the longest window (5 s of motion) fills
SILENCE_S = 60.0
# 8 products of 1024 x 1024 are 17 GFLOP: about 150 ms on a core that gives 100 GFLOP/s.
BUSY_SIZE, BUSY_PRODUCTS = 1024, 8


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `stream` to the benchmarks."""
    parser = commands.add_parser(
        "stream",
        help="six streams at full rate through the live agent, with towers that cost nothing and "
        "with towers that keep every core busy: latency of the ingest, losses, CPU, memory",
        description="Needs the extra export, to make the two models.",
    )
    parser.add_argument("--seconds", type=int, default=30, help="of each run (default 30)")
    parser.add_argument(
        "--folder", type=Path, help="a model folder to be busy with (default: one that is made)"
    )
    parser.add_argument("--precision", help="of --folder")
    parser.add_argument("--threads", type=int, default=cores(), help="default: one a core")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    for name in ("seconds", "threads"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name}: got {getattr(args, name)}, expected at least 1")
    if args.folder:
        # Said before a run of the other towers, and by this process.
        open_space(str(args.folder.absolute()), RuntimeOptions(precision=args.precision)).close()
    elif args.precision:
        raise ConfigError(f"--precision: got {args.precision!r}, expected it with --folder")
    figures: dict[str, Any] = {"seconds": args.seconds, "runs": {}}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        made = {name: _make_space(work / name, name == "busy") for name in ("free", "busy")}
        spaces = {name: {"path": str(path), "threads": args.threads} for name, path in made.items()}
        if args.folder:
            spaces["busy"] |= {"path": str(args.folder.absolute()), "precision": args.precision}
        with Progress(console=console, transient=True) as progress:
            for name, space in spaces.items():
                task = progress.add_task(f"towers {name}", total=SETTLE_S + args.seconds)
                config = {
                    "agent": "bench",
                    "space": space,
                    "bus": {"events": "tcp://127.0.0.1:*", "control": None},
                    "drivers": {
                        stream: {"kind": "synthetic", "streams": {stream: fields}}
                        for stream, fields in STREAMS.items()
                    },
                }
                duration_s = SETTLE_S + args.seconds + SILENCE_S
                with running_agent(config, work, duration_s) as address:
                    figures["runs"][name] = _listen(
                        address, args.seconds, partial(progress.advance, task)
                    )
    _print(figures, console)
    return figures


def _make_space(folder: Path, busy: bool) -> Path:
    """The space that ships, its preprocessing as it is, with another graph in place of its towers:
    one product of a number, or `BUSY_PRODUCTS` large ones too.
    """
    folder.mkdir()
    shipped = Path(str(package_files("encoders.models"))) / "compact" / MANIFEST_NAME
    manifest = yaml.safe_load(shipped.read_text())
    manifest |= {"name": folder.name, "licence": "none", "background": None}
    del manifest["towers"]["text"]  # no query is asked
    for sense, tower in manifest["towers"].items():
        name, parameters = tower["preprocess"]["name"], tower["preprocess"]["parameters"]
        plugin = find_plugin(name, "encoders.preprocess", "sensebind.preprocess", sense)
        shape = convert(parameters, plugin, sense).shape
        path = folder / f"{sense}.onnx"
        path.write_bytes(_graph(tower["input"], tower["output"], shape, manifest["dim"], busy))
        tower["files"] = {"fp32": msgspec.to_builtins(read_entry(path))}
        tower["precision"] = "fp32"
        tower.pop("views", None)  # of parts of a frame these graphs tell nothing
    (folder / MANIFEST_NAME).write_text(yaml.safe_dump(manifest))
    return folder


def _graph(source: str, output: str, shape: tuple[int, ...], dim: int, busy: bool) -> bytes:
    """An ONNX model: the mean of a view times one vector, plus another."""
    with needs_extra("export"):
        from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {
        "direction": rng.standard_normal((1, dim), np.float32),
        "offset": rng.standard_normal((1, dim), np.float32),
        "column": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node(
            "ReduceMean", [source], ["mean"], axes=[*range(1, len(shape) + 1)], keepdims=0
        ),
        helper.make_node("Unsqueeze", ["mean", "column"], ["scalar"]),
        helper.make_node("MatMul", ["scalar", "direction"], ["along"]),
        helper.make_node("Add", ["along", "offset"], ["vector"]),
    ]
    if busy:
        arrays["square"] = rng.standard_normal((BUSY_SIZE, BUSY_SIZE), np.float32) / BUSY_SIZE**0.5
        # So little of the products that it changes nothing, and enough that none is left out.
        arrays["little"] = np.array(1e-30, np.float32)
        nodes += [
            helper.make_node("ReduceMean", [source], ["all"], keepdims=0),
            helper.make_node("Add", ["square", "all"], ["product0"]),
        ]
        nodes += [
            helper.make_node("MatMul", [f"product{n}", "square"], [f"product{n + 1}"])
            for n in range(BUSY_PRODUCTS)
        ]
        nodes += [
            helper.make_node("ReduceMean", [f"product{BUSY_PRODUCTS}"], ["rest"], keepdims=0),
            helper.make_node("Mul", ["rest", "little"], ["nothing"]),
            helper.make_node("Add", ["vector", "nothing"], [output]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["vector"], [output]))
    graph = helper.make_graph(
        nodes,
        "bench",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return model


def _listen(address: str, seconds: int, advance: Callable[[], object]) -> dict[str, Any]:
    """Health messages, one a second: `seconds` of them after the agent has settled."""
    healths: list[Health] = []
    with Subscriber(address) as bus:
        for _, message in bus.messages(SILENCE_S):
            if not isinstance(message, Health) or message.retained:
                continue
            healths.append(message)
            advance()
            if len(healths) > SETTLE_S + seconds:
                return _figures(healths[SETTLE_S], healths[SETTLE_S + 1 :], sum(bus.gaps.values()))
    raise AgentError(f"{address}: no message for {SILENCE_S:g} s, expected one a second")


def _figures(before: Health, healths: Sequence[Health], gaps: int) -> dict[str, Any]:
    """Counters since `before`. latency_ms: of each hop the medians over the seconds, and the
    worst second's p99. least_rate: of any stream, the ticks that came a second to those that
    should: a source that is read too late has them wait, and a real device would lose them.
    """
    after = healths[-1]
    hops: dict[str, dict[str, list[float]]] = {}
    for hop in (hop for health in healths for hop in health.latency_ms):
        found = hops.setdefault(hop.hop, {"p50": [], "p99": []})
        found["p50"].append(hop.p50)
        found["p99"].append(hop.p99)
    earlier = {stream.stream: stream for stream in before.streams}
    counted = ("received", "lost", "bad", "overruns", "windows", "skipped", "reused")
    streams: dict[str, dict[str, Any]] = {}
    for stream in after.streams:
        name = stream.stream
        rates_hz = [s.rate_hz for health in healths for s in health.streams if s.stream == name]
        counts = {n: getattr(stream, n) - getattr(earlier[name], n) for n in counted}
        streams[name] = {"modality": stream.modality, "rate_hz": median(rates_hz), **counts}
    return {
        "seconds": len(healths),
        "latency_ms": {
            name: {
                "p50": median(found["p50"]),
                "p99": median(found["p99"]),
                "worst_p99": max(found["p99"]),
            }
            for name, found in hops.items()
        },
        "least_rate": min(found["rate_hz"] / STREAMS[n]["rate_hz"] for n, found in streams.items()),
        "cpu_percent": median(health.cpu_percent for health in healths),
        "rss_mb": max(health.rss_mb for health in healths),
        "drops": {name: count - before.drops.get(name, 0) for name, count in after.drops.items()},
        "gaps": gaps,
        "streams": streams,
    }


def _print(figures: Mapping[str, Any], console: Console) -> None:
    free, busy = figures["runs"]["free"], figures["runs"]["busy"]
    rows = []
    for hop in ("capture", "window", "encode", "match"):
        for part in ("p50", "p99", "worst_p99"):
            pair = [run["latency_ms"].get(hop, {}).get(part) for run in (free, busy)]
            rows.append(_row(f"{hop} {part.replace('_', ' ')}, ms", *pair))
    for name in ("lost", "bad", "overruns", "windows", "skipped", "reused"):
        totals = [sum(s[name] for s in run["streams"].values()) for run in (free, busy)]
        rows.append(_row(f"{'ticks ' if name in ('lost', 'bad') else ''}{name}", *totals))
    for name, title in (
        ("least_rate", "least share of a stream's rate"),
        ("cpu_percent", "CPU, % of a core"),
        ("rss_mb", "memory, MB"),
        ("gaps", "messages missed by the subscriber"),
    ):
        rows.append(_row(title, free[name], busy[name]))
    title = f"{figures['seconds']} s of six streams"
    console.print(make_table(title, ["", "free", "busy", "busy/free"], rows))
    parts = {"rate_hz": "Hz"} | {name: name for name in ("lost", "windows", "skipped", "reused")}
    rows = [
        [name, *(f"{stream[part]:g} / {busy['streams'][name][part]:g}" for part in parts)]
        for name, stream in free["streams"].items()
    ]
    console.print(make_table("streams, free / busy", ["stream", *parts.values()], rows))


def _row(title: str, free: float | None, busy: float | None) -> list[str]:
    shown = ["-" if value is None else f"{value:.4g}" for value in (free, busy)]
    return [title, *shown, f"{busy / free:.2f}" if free and busy is not None else ""]
