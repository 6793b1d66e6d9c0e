"""Rooms that are drawn: what is drawn is where and as far as it should be."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.types import Window
from encoders.bind.aligned import RoomRecipe
from encoders.bind.rooms.camera import (
    AMBIENT,
    COLUMNS,
    EDGE,
    FARTHEST_M,
    NOISE_PER_M,
    ROWS,
    Light,
    look,
    measured,
)
from encoders.bind.rooms.examples import around, room_examples, window_of
from encoders.bind.rooms.pieces import load_piece, read_pieces
from encoders.bind.rooms.raster import NEAR_M, draw
from encoders.bind.rooms.scene import View, chosen, fits_a_room, room_views
from encoders.preprocess.base import Float32Array
from tests.encoders.furniture import write_furniture

FURNITURE = {
    "Table": (120.0, 70.0, 80.0),
    "Wardrobe": (100.0, 200.0, 60.0),
    "Stool": (40.0, 45.0, 40.0),
    "Cup": (20.0, 15.0, 20.0),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_furniture(tmp_path, FURNITURE)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_nearest_triangle_is_seen_where_its_ray_meets_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns, focal = 9, 13, 11.0
    corners = rng.uniform((-2, -2, -0.5), (2, 2, 4), (6, 3, 3)).astype(np.float32)
    hits = draw(corners, focal, rows, columns)
    ahead = (corners[..., 2] > NEAR_M).all(axis=1)
    for row in range(rows):
        for column in range(columns):
            ray = np.array([column - (columns - 1) / 2, row - (rows - 1) / 2, focal]) / focal
            # A point of a triangle is a sum of its corners: solved for the weights and the depth.
            met = {}
            for number in np.flatnonzero(ahead):
                system = np.vstack([np.column_stack([corners[number].T, -ray]), [1, 1, 1, 0]])
                *weights, depth = np.linalg.solve(system, [0, 0, 0, 1])
                if abs(min(weights)) < 1e-4:
                    met = {}
                    break  # on an edge, either is right
                if min(weights) > 0:
                    met[number] = depth, weights
            else:
                found = int(hits.triangle[row, column])
                assert (found >= 0) == bool(met)
                if met:
                    nearest = min(met, key=lambda number: met[number][0])
                    assert hits.depth_m[row, column] == pytest.approx(met[nearest][0], rel=1e-3)
                    assert hits.weights[row, column] == pytest.approx(met[found][1], abs=1e-3)


def test_a_box_of_known_size_at_a_known_distance(package: Path) -> None:
    wardrobe = load_piece(read_pieces(package)[1])
    eye, light = np.array([0, 1.0, 3.3]), Light(np.array([0, 1.0, 40.0]), 0.5)
    seen = look(wardrobe, eye, np.array([0, 1.0, 0]), math.tan(math.radians(30)), [light])
    # Its front is 0.3 m before its middle, its width and height are 1 and 2 m.
    assert seen.depth_m[ROWS // 2, COLUMNS // 2] == pytest.approx(3.0, abs=1e-4)
    focal = COLUMNS / 2 / math.tan(math.radians(30))
    shown = seen.triangle >= 0
    assert shown.any(0).sum() == pytest.approx(1.0 / 3.0 * focal, abs=1)
    assert shown.any(1).sum() == pytest.approx(2.0 / 3.0 * focal, abs=1)
    assert np.isinf(seen.depth_m[~shown]).all()
    middle = seen.colour[ROWS // 2, COLUMNS // 2]
    expected = np.array([0.8, 0.1, 0.1]) * (AMBIENT + 0.5) * 255
    assert middle == pytest.approx(expected, abs=2)


def test_a_piece_is_as_large_as_it_is_listed(package: Path) -> None:
    pieces = read_pieces(package)
    assert [piece.name for piece in pieces] == list(FURNITURE)
    assert {piece.licence for piece in pieces} == {"Public domain"}
    for piece, centimetres in zip(pieces, FURNITURE.values(), strict=True):
        corners = load_piece(piece).corners
        assert np.ptp(corners, axis=(0, 1)) == pytest.approx(np.array(centimetres) / 100)
        assert corners[..., 1].min() == pytest.approx(0)


def test_models_are_kept_apart_by_author_where_there_are_many(tmp_path: Path) -> None:
    own = read_pieces(write_furniture(tmp_path / "a", FURNITURE))
    many = read_pieces(write_furniture(tmp_path / "b", FURNITURE, "BlendSwap-CC-0"))
    assert {piece.recording for piece in own} == {"furniture/Boxes/box"}
    assert [piece.recording for piece in many] == [
        f"furniture/BlendSwap-CC-0/Somebody {number}" for number in range(1, 5)
    ]


def test_what_stands_in_no_room_is_left_out(tmp_path: Path) -> None:
    sizes = {"Socket": (8.0, 8.0, 2.0), "Window": (100.0, 100.0, 20.0), "House": (900.0, 300.0, 9)}
    pieces = read_pieces(write_furniture(tmp_path, sizes | FURNITURE))
    assert [piece.name for piece in pieces if fits_a_room(piece)] == list(FURNITURE)


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected the unpacked sweethome3d-furniture$"):
        read_pieces(tmp_path)


def test_a_broken_archive_is_one_line(package: Path) -> None:
    (path,) = package.rglob("*.sh3f")
    path.write_bytes(b"no zip file")
    with pytest.raises(ConfigError, match=r"Boxes\.sh3f: .*expected a zip file with"):
        read_pieces(package)


def test_rooms_are_the_same_by_their_seed(package: Path) -> None:
    pieces = read_pieces(package)
    first, again, other = (
        [view for room in room_views(pieces, 4, seed) for view in room] for seed in (5, 5, 6)
    )
    assert len(first) == len(again) >= 4
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.depth, two.depth)
        assert np.array_equal(one.colour, two.colour)
        assert one.box == two.box
    assert not np.array_equal(first[0].depth, other[0].depth)


def test_rooms_show_what_is_looked_at(package: Path) -> None:
    views = [view for room in room_views(read_pieces(package), 8, 0) for view in room]
    assert {view.piece.name for view in views} == set(FURNITURE)
    for view in views:
        left, top, right, bottom = view.box
        assert 0 <= left < right <= COLUMNS
        assert 0 <= top < bottom <= ROWS
        reds = view.colour[top:bottom, left:right].astype(int)
        assert (reds[..., 0] > 2 * reds[..., 1]).mean() > 0.1  # the boxes, and nothing else
        assert (view.depth > 0).mean() > 0.8  # closed all around


@given(st.floats(1.5, 5.0))
def test_the_sensor_errs_by_the_square_of_the_distance(depth_m: float) -> None:
    rng = np.random.default_rng(0)
    depth = measured(np.full((80, 80), depth_m, np.float32), rng) / 1000
    assert depth.mean() == pytest.approx(depth_m, abs=0.002)
    rounding = 0.001 / math.sqrt(12)
    assert depth.std() == pytest.approx(math.hypot(NOISE_PER_M * depth_m**2, rounding), rel=0.1)


def test_the_sensor_has_holes_at_edges_and_far_away() -> None:
    rng = np.random.default_rng(0)
    true_m = np.full((100, 60), 2.0, np.float32)
    true_m[:, 30:] = 2.0 * (1 + 2 * EDGE)
    true_m[:, 50:] = np.inf
    holes = measured(true_m, rng) == 0
    assert 0.3 < holes[:, 30].mean() < 0.7
    assert not holes[:, :29].any()
    assert not holes[:, 32:48].any()
    assert holes[:, 50:].all()
    assert (measured(np.full((9, 9), FARTHEST_M + 1, np.float32), rng) == 0).all()


def test_depth_and_colour_are_cut_alike(package: Path) -> None:
    (piece, *_) = read_pieces(package)
    ramp = np.tile(np.arange(COLUMNS), (ROWS, 1))
    colour = np.repeat(ramp[..., None], 3, 2).astype(np.uint8)
    view = View((1000 + ramp).astype(np.uint16), colour, piece, (60, 40, 120, 90), 0.1)
    rooms = [[view, view], [view]]

    def embed(window: Window) -> Float32Array:
        ends = window.data[0, 0, [0, -1], 0].astype(np.float32)
        return ends / np.linalg.norm(ends)

    def preprocess(window: Window) -> Float32Array:
        return (window.data[:, :1, [0, -1]] - 1000).astype(np.float32)[:, None]

    recipe = RoomRecipe(count=2, parts=4, batch=1)
    examples = room_examples(rooms, recipe, preprocess, embed, lambda *_: None, lambda v, _: v)
    assert examples.groups.tolist() == [0] * 8 + [1] * 4
    for seen, anchor in zip(examples.views, examples.anchors, strict=True):
        ends = seen.ravel()
        assert anchor == pytest.approx(ends / np.linalg.norm(ends))
    assert len({tuple(seen.ravel()) for seen in examples.views}) > 6


@given(*[st.floats(0, 3)] * 4)
def test_a_part_around_a_piece_has_all_of_it(
    left: float, top: float, right: float, bottom: float
) -> None:
    frame = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    view = View(frame, frame, None, (60, 40, 120, 90), 0.1)  # type: ignore[arg-type]  # not asked for
    rows, columns = around(view, (left, top, right, bottom))
    assert np.isin(frame[40:90, 60:120], frame[rows, columns]).all()


def test_a_still_says_what_it_is() -> None:
    assert window_of(np.zeros((4, 5), np.uint16), "depth").stream.unit == "mm"
    assert window_of(np.zeros((4, 5, 3), np.uint8), "image").data.shape == (1, 4, 5, 3)


def test_what_is_chosen_is_all_that_is_seen(package: Path) -> None:
    pieces = [piece for piece in read_pieces(package) for _ in range(10)]
    few = chosen(pieces, 1, 3)
    assert len(few) < len(pieces)
    seen = [view.piece for room in room_views(pieces, 1, 3) for view in room]
    assert seen[0] == few[0]
    assert set(seen) <= set(few)
