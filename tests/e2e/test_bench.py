"""The benchmarks run to their end and give figures of the form that is compared over time.

How fast anything is, is no test's business.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import refused, run

EXPORT = "needs the extra 'export'"
PREPROCESSING = {"frame 1280x720": ("fast", "frame"), "log-mel of 2 s": ("agent", "next hop")}


def figures(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    assert found["machine"]["cores"] >= 1
    return found


def test_stream_sets_free_towers_beside_busy_ones(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason=EXPORT)
    result = run("tools.bench", "stream", "--seconds", "3", "--json", tmp_path / "out.json")
    assert result.returncode == 0, result.stderr
    assert "capture p99, ms" in result.stdout
    runs = figures(tmp_path / "out.json")["runs"]
    for name in ("free", "busy"):
        streams = runs[name]["streams"]
        assert {s["modality"] for s in streams.values()} == {
            "image", "audio", "depth", "thermal", "imu",
        }  # fmt: skip
        assert len(streams) == 6
        assert all(stream["received"] > 0 for stream in streams.values())
        assert sum(stream["windows"] for stream in streams.values()) > 0
        assert runs[name]["gaps"] == 0
        assert (
            0
            <= runs[name]["latency_ms"]["capture"]["p50"]
            <= (runs[name]["latency_ms"]["capture"]["worst_p99"])
        )


@pytest.mark.parametrize(
    ("sense", "plain", "agent"),
    [
        ("audio", {"batch1", "batch4", "clips3"}, {"window"}),
        ("text", {"batch1", "batch4"}, {"cold query", "same query again"}),
    ],
)
def test_imagebind_compares_every_variant_with_the_plain_one(
    tmp_path: Path, sense: str, plain: set[str], agent: set[str]
) -> None:
    pytest.importorskip("torch", reason=EXPORT)
    pytest.importorskip("onnxscript", reason=EXPORT)
    pytest.importorskip("cv2", reason="needs the extra 'imagebind'")
    out = tmp_path / "out.json"
    options = ["--dims", "tiny", "--towers", sense, "--rounds", "1", "--json", out]
    result = run("tools.bench", "imagebind", *options)
    assert result.returncode == 0, result.stderr
    assert "targets" in result.stdout
    found = figures(out)
    assert set(found["groups"]) == {sense, *PREPROCESSING}
    assert min(found["peak_gflops"].values()) > 0
    variants = found["groups"][sense]
    cases = {name: set(variant["cases"]) for name, variant in variants.items()}
    assert cases == {
        "plain": plain,
        **{f"onnx {precision}": {"batch1", "batch4"} for precision in ("fp32", "int8")},
        **{f"agent {precision}": agent for precision in ("fp32", "int8")},
    }
    # A process with torch in it would be compared by memory with one that has none.
    assert {name for name, variant in variants.items() if variant["torch"]} == {"plain"}
    floors = {"fp32": 0.99999, "int8": 0.99}
    for precision, floor in floors.items():
        for case in variants[f"onnx {precision}"]["cases"].values():
            assert case["cosine"] > floor
            assert case["share_of_peak"] > 0
        for case in variants[f"agent {precision}"]["cases"].values():
            assert case.get("cosine", 1.0) > floor
    for name, (variant, case) in PREPROCESSING.items():
        assert found["groups"][name][variant]["cases"][case]["cosine"] > 0.999
    # Nothing of tiny towers is held against what is expected of the published size.
    assert {target["group"] for target in found["targets"]} == set(PREPROCESSING)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("imagebind", "--dims", "tiny", "--towers", "smell"), ("--towers", "'smell'", "imu")),
        (("imagebind", "--dims", "tiny", "--rounds", "0"), ("--rounds", "0", "at least 1")),
        (("imagebind", "--dims", "tiny", "--reference", "nowhere"), ("--reference", "nowhere")),
        (("imagebind", "--folder", "nowhere"), ("nowhere", "report")),
        (("stream", "--seconds", "0"), ("--seconds", "0", "at least 1")),
        (("stream", "--precision", "int8"), ("--precision", "'int8'", "--folder")),
    ],
)
def test_an_option_that_cannot_be_is_one_line(
    options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(run("tools.bench", *options), 2, *words)


def test_isolate_sets_a_process_beside_the_agents_own(tmp_path: Path) -> None:
    result = run("tools.bench", "isolate", "--seconds", "0.5", "--json", tmp_path / "out.json")
    assert result.returncode == 0, result.stderr
    assert "child CPU %" in result.stdout
    rows = figures(tmp_path / "out.json")["rows"]
    assert [row["isolated"] for row in rows] == [False, True] * 2
    assert all(row["rate_hz"] > 0 and row["p99_ms"] >= row["p50_ms"] >= 0 for row in rows)
    assert all((row["child_rss_mb"] > 0) == row["isolated"] for row in rows)
    refused(run("tools.bench", "isolate", "--seconds", "0"), 2, "--seconds", "more than 0")
