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


def test_imagebind_compares_every_variant_with_the_plain_one(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason=EXPORT)
    pytest.importorskip("onnxscript", reason=EXPORT)
    pytest.importorskip("cv2", reason="needs the extra 'imagebind'")
    result = run(
        "tools.bench", "imagebind", "--dims", "tiny", "--towers", "audio,text",
        "--rounds", "1", "--json", tmp_path / "out.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "targets" in result.stdout
    found = figures(tmp_path / "out.json")
    assert set(found["groups"]) == {"audio", "text", "frame 1280x720", "log-mel of 2 s"}
    assert min(found["peak_gflops"].values()) > 0
    for name in ("audio", "text"):
        variants = found["groups"][name]
        own = {
            f"{kind} {precision}" for kind in ("onnx", "agent") for precision in ("fp32", "int8")
        }
        assert set(variants) == {"plain", *own}
        assert {variant for variant, found in variants.items() if found["torch"]} == {"plain"}
        cases = variants["onnx fp32"]["cases"]
        assert set(cases) == {"batch1", "batch4"}
        assert all(case["cosine"] > 0.99999 for case in cases.values())
        assert all(case["share_of_peak"] > 0 for case in cases.values())
        assert variants["onnx int8"]["cases"]["batch1"]["cosine"] > 0.99
    assert "clips3" in found["groups"]["audio"]["plain"]["cases"]
    assert found["groups"]["text"]["agent fp32"]["cases"]["cold query"]["cosine"] > 0.99999
    assert found["groups"]["log-mel of 2 s"]["agent"]["cases"]["clip"]["cosine"] > 0.99999
    # Nothing of tiny towers is held against what is expected of the published size.
    assert {target["group"] for target in found["targets"]} == {"frame 1280x720", "log-mel of 2 s"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("imagebind", "--dims", "tiny", "--towers", "smell"), ("--towers", "'smell'", "imu")),
        (("imagebind", "--dims", "tiny", "--rounds", "0"), ("--rounds", "0", "at least 1")),
        (("stream", "--seconds", "0"), ("--seconds", "0", "at least 1")),
        (("stream", "--precision", "int8"), ("--precision", "'int8'", "--folder")),
    ],
)
def test_an_option_that_cannot_be_is_one_line(
    options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(run("tools.bench", *options), 2, *words)
