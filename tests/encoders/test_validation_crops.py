"""What frames that are held out show, by name: the table, and the files and tasks made of it."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from agent.errors import ConfigError
from agent.types import StreamInfo, Window
from encoders.bind.sources import Record
from encoders.bind.splits import held_out
from encoders.files import read_file
from tools.query_folder import QueryFolder
from tools.retrieval_queries import read_queries
from tools.validation_crops import Crop, add_crops, read_crops


def shared(one: Crop, other: Crop) -> float:
    """How much of the smaller part is in the other, too."""
    wide = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    high = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    return max(wide, 0) * max(high, 0) / min(c.width * c.height for c in (one, other))


def test_parts_lie_in_frames_that_are_never_trained_on() -> None:
    crops = read_crops()
    assert {crop.collection for crop in crops} == {"thermal_pairs", "depth_pairs", "slambook"}
    for crop in crops:
        assert 0 <= crop.left < crop.left + crop.width <= 100, crop
        assert 0 <= crop.top < crop.top + crop.height <= 100, crop
        assert crop.collection == "slambook" or held_out(crop.recording), crop


def test_parts_of_one_name_in_one_frame_are_apart() -> None:
    crops = read_crops()
    assert len({(crop.collection, crop.stem) for crop in crops}) == len(crops)
    for one, other in combinations(crops, 2):
        if (one.recording, one.name) == (other.recording, other.name):
            assert shared(one, other) < 0.5, (one, other)


@pytest.mark.parametrize("collection", ["thermal_pairs", "depth_pairs"])
def test_there_are_enough_to_tell_from_chance(collection: str) -> None:
    names = Counter(crop.name for crop in read_crops() if crop.collection == collection)
    assert sum(names.values()) >= 100
    assert len(names) >= 6
    assert max(names.values()) < sum(names.values()) / 3, "one answer to all must not do well"


def rooms(crops: list[Crop]) -> list[Record]:
    """A depth frame a recording, whose pixels tell where they are."""
    rows, columns = np.mgrid[:200, :100]
    data = (rows * 100 + columns).astype(np.uint16)[np.newaxis]
    info = StreamInfo("room", "depth", "uint16", data.shape[1:], None, "mm")
    window = Window(info, 0, 1, data, np.zeros(1, np.int64))
    names = dict.fromkeys(crop.recording for crop in crops if crop.collection == "slambook")
    return [Record("depth", window, name, "made", "none") for name in names]


def test_parts_are_cut_where_they_are_named(tmp_path: Path) -> None:
    crops = [crop for crop in read_crops() if crop.collection == "slambook"]
    out = QueryFolder(tmp_path / "out")
    add_crops(out, "depth", rooms(crops), "_unseen")
    out.write_queries()
    for crop in crops:
        file = tmp_path / "out" / f"seen/depth_unseen/{crop.stem}.png"
        part = read_file(str(file), "depth").data[0]
        assert part.shape == (2 * crop.height, crop.width)
        assert part[0, 0] == 2 * crop.top * 100 + crop.left
    queries = read_queries(tmp_path / "out", ["depth"])
    names = list(dict.fromkeys(crop.name for crop in crops))
    asked = Counter(query.task for query in queries)
    assert asked == {"text_to_depth_unseen": 2 * len(names), "depth_to_text_unseen": len(crops)}
    for query in queries:
        if query.task == "depth_to_text_unseen":
            assert [item.value for item in query.candidates] == names


def test_a_part_of_a_frame_that_is_not_given(tmp_path: Path) -> None:
    records = rooms(read_crops())
    with pytest.raises(ConfigError, match=f"{records[0].recording}: not among the frames held out"):
        add_crops(QueryFolder(tmp_path / "out"), "depth", records[1:])
