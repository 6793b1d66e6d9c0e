"""Parts that the graph tells of its own map: where they are, what they are, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the extra 'bind'")
pytest.importorskip("onnx", reason="needs the extra 'bind'")

import onnx
import torch
from onnx import numpy_helper

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, ModelMismatch
from agent.types import Region, Window
from encoders.bind.backbone import EARLY, FEATURES, LiteHead, LiteParts, LiteTower, looks
from encoders.bind.export import NewSpace, write_tower
from encoders.bind.grey import LAST
from encoders.preprocess.base import Box
from encoders.preprocess.image import ImagePreprocess
from encoders.preprocess.views import MapSettings
from encoders.space import open_space
from encoders.tower import PreprocessSettings, WindowSettings
from tests.encoders.made import window

DIM, SIZE, CELLS = 16, 96, 3
PARTS = MapSettings(output="parts", cells=CELLS, side=2, step=1)
GREY = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "reducing_gap": None}
CPU = RuntimeOptions(providers=("cpu",))


def picture(height: int, width: int, frames: int = 1, seed: int = 0) -> Window:
    rng = np.random.default_rng(seed)
    return window("image", rng.integers(0, 256, (frames, height, width, 3)).astype(np.uint8))


def made_tower() -> LiteTower:
    torch.manual_seed(0)
    tower = LiteTower("lite0", DIM)
    for layer in tower.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1  # the norms know the first pictures: no layer's map is next to 0
    with torch.no_grad():
        tower.body(torch.randn(8, 3, SIZE, SIZE))
        tower.classes.weight *= 40  # so that parts differ in what they are taken for
        tower.look.share.fill_(1.3)
    return tower.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mapped")
    preprocess = ImagePreprocess(
        size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3, reducing_gap=None, fit="squeeze"
    )
    write_tower(
        made,
        "image",
        LiteParts(made_tower(), PARTS.side, PARTS.step),
        [preprocess(picture(60, 80, seed=i))[0] for i in range(4)],
        window=WindowSettings(length_s=0.5, hop_s=0.5, ticks=1),
        preprocess=PreprocessSettings(
            name="image", parameters={"size": SIZE, **GREY, "fit": "squeeze"}
        ),
        new=NewSpace(name="made", licence="none"),
        floors={"fp32": 0.9999, "int8": -1.0},
        parts=PARTS,
    )
    return made


def changed(folder: Path, to: Path, **entry: Any) -> Path:
    manifest = yaml.safe_load((folder / "space.yaml").read_text())
    manifest["towers"]["image"] |= entry
    for path in folder.iterdir():
        (to / path.name).symlink_to(path)
    (to / "space.yaml").unlink()
    (to / "space.yaml").write_text(yaml.safe_dump(manifest))
    return to


def test_a_part_is_what_the_head_says_of_that_part_of_the_map(folder: Path) -> None:
    tower = open_space(str(folder), CPU).encoder("image")
    tower.load()
    seen = picture(90, 90)
    (embedding,) = tower.encode([seen])
    assert embedding.views is not None
    assert embedding.views.vectors.shape == (4, DIM)
    network = made_tower()
    preprocess = ImagePreprocess(size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3, reducing_gap=None)
    with torch.no_grad():
        early = network.body[:EARLY](torch.from_numpy(preprocess(seen)))
        last = network.body[EARLY:](early)
        assert last.shape == (1, FEATURES, CELLS, CELLS)
        cells = [last[0, :, row : row + 2, left : left + 2] for row in (0, 1) for left in (0, 1)]
        features = torch.stack([last[0].mean((1, 2)), *(cell.mean((1, 2)) for cell in cells)])
        expected = LiteHead(network)(torch.cat([features, looks(early).expand(5, -1)], 1))
    np.testing.assert_allclose(embedding.rows, expected, atol=2e-5)
    apart = embedding.rows @ embedding.rows.T
    assert apart.min() < 0.999, "parts that are all the same would show nothing"


def test_the_whole_is_as_without_them(folder: Path, tmp_path: Path) -> None:
    plain = open_space(str(changed(folder, tmp_path, views=None)), CPU)
    mapped = open_space(str(folder), CPU)
    assert plain.identity != mapped.identity
    windows = [picture(60, 80, seed=i) for i in range(3)]
    for space in (plain, mapped):
        space.encoder("image").load()
    alone, both = plain.encoder("image").encode(windows), mapped.encoder("image").encode(windows)
    for expected, seen in zip(alone, both, strict=True):
        assert expected.views is None
        np.testing.assert_array_equal(seen.vector, expected.vector)


def test_its_layers_are_found_in_the_file_by_the_names_that_a_tower_has(folder: Path) -> None:
    written = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(folder / "image.onnx").graph.initializer
    }
    network = made_tower().state_dict()
    for name in LAST:  # what compact's other picture towers begin from
        np.testing.assert_array_equal(written[name].reshape(network[name].shape), network[name])


def test_several_frames_have_the_mean_of_each_part(folder: Path) -> None:
    tower = open_space(str(folder), CPU).encoder("image")
    tower.load()
    first, second = picture(60, 80, seed=1), picture(60, 80, seed=2)
    both = window("image", np.concatenate([first.data, second.data]))
    one, other, mean = tower.encode([first, second, both])
    expected = one.rows + other.rows
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mean.rows, expected, atol=1e-5)
    assert mean.regions == one.regions


def test_where_they_are_in_a_frame_that_is_squeezed(folder: Path) -> None:
    tower = open_space(str(folder), CPU).encoder("image")
    tower.load()
    (embedding,) = tower.encode([picture(100, 400)])  # the view is of the middle 200
    assert embedding.regions == (
        None,
        Region(0.25, 0.0, 0.333333, 0.666667),
        Region(0.416667, 0.0, 0.333333, 0.666667),
        Region(0.25, 0.333333, 0.333333, 0.666667),
        Region(0.416667, 0.333333, 0.333333, 0.666667),
    )


def test_a_frame_seen_in_several_squares_has_the_parts_of_each(
    folder: Path, tmp_path: Path
) -> None:
    squares = {"name": "image", "parameters": {"size": SIZE, **GREY, "fit": "squares"}}
    tower = open_space(str(changed(folder, tmp_path, preprocess=squares)), CPU).encoder("image")
    tower.load()
    (wide, left) = tower.encode([picture(90, 160), picture(90, 160)])
    assert len(wide.rows) == 1 + 2 * PARTS.count
    assert wide.regions == left.regions
    assert wide.regions[1 + PARTS.count] == Region(0.4375, 0.0, 0.375, 0.666667)
    (alone,) = tower.encode([window("image", picture(90, 160).data[:, :, :90])])
    np.testing.assert_allclose(wide.rows[1 : 1 + PARTS.count], alone.rows[1:], atol=1e-5)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.integers(1, 300))
def test_parts_are_in_their_box(cells: int, side: int, step: int, width: int) -> None:
    settings = MapSettings(output="parts", cells=cells, side=min(side, cells), step=step)
    found = settings.regions(Box(10, 5, width, 40), 60, 400)
    assert len(found) == settings.count
    assert len(set(found)) == len(found)
    for part in found:
        assert part.left >= 10 / 400 - 1e-6
        assert part.left + part.width <= (10 + width) / 400 + 2e-6
        assert part.top >= 5 / 60 - 1e-6
        assert part.top + part.height <= 45 / 60 + 2e-6


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"output": "parts", "cells": 3, "side": 4, "step": 1}, "side is 4, expected at most"),
        ({"output": "parts", "cells": 3, "side": 2}, "missing required field `step`"),
    ],
)
def test_a_map_that_cannot_be_is_refused(
    folder: Path, tmp_path: Path, views: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_space(str(changed(folder, tmp_path, views={"map": views})), CPU)


def test_squares_beside_a_map_are_refused(folder: Path, tmp_path: Path) -> None:
    asked = {"squares": True, "map": {"output": "parts", "cells": 3, "side": 2, "step": 1}}
    with pytest.raises(ConfigError, match="views ask for map beside squares or tiles, expected"):
        open_space(str(changed(folder, tmp_path, views=asked)), CPU)


@pytest.mark.parametrize(("output", "side"), [("others", 2), ("parts", 3)])
def test_a_graph_that_gives_other_parts_is_refused(
    folder: Path, tmp_path: Path, output: str, side: int
) -> None:
    asked = {"map": {"output": output, "cells": 3, "side": side, "step": 1}}
    tower = open_space(str(changed(folder, tmp_path, views=asked)), CPU).encoder("image")
    with pytest.raises(ModelMismatch, match=rf"'parts': \(4, 16\).* expected .*'{output}'"):
        tower.load()
