"""What is kept for validation: the same for everyone, by recording, and about a fifth."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from encoders.bind.splits import held_out, recording_id


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("photos/tench.webp", "photos/tench"),
        ("esc10/4-182369-A.ogg", "esc10/4-182369-A"),
        ("thermal_pairs/lwir/roadscene_FLIR_00006.jpg", "thermal_pairs/roadscene_FLIR_00006"),
        ("thermal_pairs/rgb/roadscene_FLIR_00006.jpg", "thermal_pairs/roadscene_FLIR_00006"),
        ("depth_pairs/depth/frame-000320.png", "depth_pairs/frame-000320"),
    ],
)
def test_id_of_a_file(path: str, expected: str) -> None:
    assert recording_id(path) == expected


@pytest.mark.parametrize(
    ("recording", "expected"),
    [
        ("esc10/4-182369-A", True),
        ("esc10/3-182369-A", False),
        ("watch/6", False),
        ("watch/7", True),
        ("cifar100/apple/24", True),
        ("cifar100/apple/25", False),
        ("thermal_pairs/roadscene_FLIR_04799", False),
        ("thermal_pairs/roadscene_FLIR_04800", True),
        ("thermal_pairs/roadscene_FLIR_video_00843", True),
        ("thermal_pairs/llvip_010030", False),
        ("depth_pairs/frame-000099", False),
        ("depth_pairs/frame-000320", True),
        ("photos/bagel", False),  # a hash must never change: towers are trained by it
        ("photos/pizza", True),
    ],
)
def test_rule(recording: str, expected: bool) -> None:
    assert held_out(recording) is expected


@pytest.mark.parametrize(
    "recording", ["esc10/dog", "watch/x", "cifar10/bird", "depth_pairs/other-000001"]
)
def test_an_id_of_another_form_is_refused(recording: str) -> None:
    with pytest.raises(ConfigError, match=f"recording '{recording}'"):
        held_out(recording)


@given(st.sets(st.text(min_size=1), min_size=400, max_size=500))
def test_about_a_fifth(names: set[str]) -> None:
    kept = sum(held_out(f"sounds/{name}") for name in names)
    assert 0.05 < kept / len(names) < 0.4


def test_every_collection_has_both(shared_data: Path) -> None:
    counts: dict[str, Counter[bool]] = {}
    with (shared_data / "training/MANIFEST.tsv").open(encoding="utf-8", newline="") as text:
        for row in csv.DictReader(text, delimiter="\t"):
            path = row["path"].removeprefix("training/")
            if not path.startswith("cifar"):
                counter = counts.setdefault(path.split("/")[0], Counter())
                counter[held_out(recording_id(path))] += 1
    for collection, counter in counts.items():
        assert counter[True] >= 16, collection
        assert counter[False] > 3 * counter[True] - 1, collection
