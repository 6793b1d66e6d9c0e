"""What the measured times of `bench imagebind` say: work done, shares of the machine, targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console

from agent.types import Array
from encoders.imagebind.dims import GEOMETRY, MLP_RATIO, TowerDims
from tools.benches.common import make_table
from tools.benches.rounds import Measured
from tools.benches.variants import BATCHES

__all__ = ["TARGETS", "Target", "figures_of", "gflop", "judge", "peak_gflops", "print_all"]


HEADINGS = (
    "variant",
    "case",
    "ms",
    "least ms",
    "ratio",
    "items/s",
    "GFLOP/s",
    "of peak",
    "cosine",
    "peak MB",
    "MB",
    "load s",
)
# What a case's time is set against where the yardstick has none of its name.
_BASE_CASES = {
    "window": "batch1",
    "cold query": "batch1",
    "same query again": "batch1",
    "next hop": "clip",
}
_OTHER_INPUT = ("window",)


@dataclass(frozen=True)
class Target:
    """That `variant` in `case` takes at most 1/ratio of the time of the group's yardstick in
    `base_case`, for vectors as near to it as `cosine`. published: means the published size only.
    """

    name: str
    group: str
    variant: str
    ratio: float
    case: str = "batch1"
    base_case: str = "batch1"
    cosine: float = 0.999
    rss_mb: float | None = None
    published: bool = True


TARGETS = (
    Target("image, fp32", "image", "onnx fp32", 1.4, cosine=0.99999),
    Target("image, int8", "image", "onnx int8", 2.0, rss_mb=1100.0),
    Target("audio, a live clip for three", "audio", "onnx int8", 5.5, base_case="clips3"),
    Target("thermal, int8", "thermal", "onnx int8", 2.3),
    Target("depth, int8", "depth", "onnx int8", 1.9),
    Target("imu, int8", "imu", "onnx int8", 2.4),
    Target("text, cold query", "text", "agent fp32", 2.5, case="cold query", cosine=0.99999),
    Target("frame", "frame 1280x720", "fast", 15.0, "frame", "frame", published=False),
    Target("log-mel", "log-mel of 2 s", "agent", 2.0, "clip", "clip", published=False),
    Target("log-mel, live", "log-mel of 2 s", "agent", 2.0, "next hop", "clip", published=False),
)


def gflop(
    tower: str, dims: TowerDims, out: int, tokens: int | None = None, pooled_last: bool = False
) -> float:
    """10^9 floating-point operations of one forward of one item; a multiply-add counts as two.

    Matrix products only: stem, blocks (12 width^2 weights a token, and attention), head. tokens:
    of a text that is cut. pooled_last: the last block has queries, attention's output and MLP for
    the pooled token alone, as the exported graphs have.
    """
    geometry, width = GEOMETRY[tower], dims.width
    tokens = tokens or geometry.tokens
    keys = tokens + geometry.bias_kv
    stem = (tokens - 1) * math.prod(geometry.kernel) * width if geometry.kernel else 0
    # Queries, attention's output and MLP; keys and values; then scores and their weighted sum.
    own, others = (2 + 2 * MLP_RATIO) * width**2, 2 * width**2
    block = tokens * (own + others + 2 * keys * width)
    last = own + tokens * others + 2 * keys * width if pooled_last else block
    return 2e-9 * (stem + (dims.blocks - 1) * block + last + width * out)


def peak_gflops(measured: Mapping[str, Measured]) -> dict[str, float]:
    """By library, the best rate of any size of square float32 product."""
    return {
        name: max(2e-9 * int(size) ** 3 / min(taken_s) for size, taken_s in variant.cases.items())
        for name, variant in measured.items()
    }


def figures_of(
    measured: Mapping[str, Measured], work: Mapping[tuple[str, str], float], peak: float
) -> dict[str, Any]:
    """A group as JSON. work: GFLOP of a run by (variant, case), where it is known; peak: GFLOP/s.

    ms, min_ms: median and least of the rounds. ratio: of the yardstick's time to this. cosine: the
    least of a row of the output with the yardstick's for the same input.
    """
    yardstick = next(iter(measured.values()))
    figures: dict[str, Any] = {}
    for name, variant in measured.items():
        cases: dict[str, dict[str, Any]] = {}
        for case, taken_s in variant.cases.items():
            base = _BASE_CASES.get(case, case)
            median_s = float(np.median(taken_s))
            cases[case] = {
                "ms": median_s * 1e3,
                "min_ms": min(taken_s) * 1e3,
                "rounds_ms": [s * 1e3 for s in taken_s],
                "ratio": float(np.median(yardstick.cases[base])) / median_s,
            }
            if case not in _OTHER_INPUT:
                cosine = _least_cosine(variant.outputs[case], yardstick.outputs[base])
                cases[case]["cosine"] = cosine
            if (done := work.get((name, case))) is not None:
                rate = done / median_s
                cases[case] |= {"gflop": done, "gflops": rate, "share_of_peak": rate / peak}
        figures[name] = {
            "load_s": variant.load_s,
            "rss_mb": variant.rss_mb,
            "peak_rss_mb": variant.peak_rss_mb,
            "torch": variant.torch,
            "cases": cases,
        }
    return figures


def judge(groups: Mapping[str, Any], published: bool) -> list[dict[str, Any]]:
    """Each target of what was measured: whether it is reached. published: the size that was run."""
    judged = []
    for target in TARGETS:
        variants = groups.get(target.group, {})
        if target.variant not in variants or (target.published and not published):
            continue
        base = next(iter(variants.values()))["cases"][target.base_case]
        variant = variants[target.variant]
        case = variant["cases"][target.case]
        ratio = base["ms"] / case["ms"]
        small = target.rss_mb is None or variant["rss_mb"] <= target.rss_mb
        found = {
            "ratio_found": ratio,
            "cosine_found": case["cosine"],
            "rss_mb_found": variant["rss_mb"],
            "reached": ratio >= target.ratio and case["cosine"] >= target.cosine and small,
        }
        judged.append({**asdict(target), **found})
    return judged


def print_all(figures: Mapping[str, Any], console: Console) -> None:
    """The tables of `figures`, as `bench imagebind --json` writes them."""
    peaks = ", ".join(f"{name} {rate:.0f}" for name, rate in figures["peak_gflops"].items())
    console.print(f"best float32 matrix product, {figures['threads']} threads, GFLOP/s: {peaks}")
    for name, variants in figures["groups"].items():
        rows = []
        for variant, of_variant in variants.items():
            memory = f"{of_variant['peak_rss_mb']:.0f}", f"{of_variant['rss_mb']:.0f}"
            for number, (case, found) in enumerate(of_variant["cases"].items()):
                rows.append(
                    [
                        "" if number else variant,
                        case,
                        _digits(found["ms"]),
                        _digits(found["min_ms"]),
                        f"{found['ratio']:.2f}",
                        _digits(1e3 * BATCHES.get(case, 1) / found["ms"]),
                        f"{found['gflops']:.0f}" if "gflops" in found else "",
                        f"{found['share_of_peak']:.0%}" if "gflops" in found else "",
                        f"{found['cosine']:.6f}" if "cosine" in found else "",
                        *(("", "", "") if number else (*memory, f"{of_variant['load_s']:.1f}")),
                    ]
                )
        console.print(make_table(name, HEADINGS, rows, words=2))
    rows = [
        [
            target["name"],
            f"{target['ratio_found']:.2f} of {target['ratio']:g}",
            f"{target['cosine_found']:.6f} of {target['cosine']:g}",
            f"{target['rss_mb_found']:.0f} of {target['rss_mb']:.0f}" if target["rss_mb"] else "",
            "reached" if target["reached"] else "missed",
        ]
        for target in figures["targets"]
    ]
    headings = ["target", "times as fast", "cosine", "resident MB", ""]
    console.print(make_table("targets", headings, rows))


def _least_cosine(a: Array, b: Array) -> float:
    rows = [np.atleast_2d(x.astype(np.float64)) for x in (a, b)]
    one, other = (x.reshape(len(x), -1) for x in rows)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(1) / lengths).min())


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
