"""Tasks of rooms with furniture that no tower saw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.bind.rooms.camera import COLUMNS, ROWS
from encoders.bind.rooms.pieces import Piece, read_pieces
from encoders.files import read_file
from tests.encoders.furniture import write_furniture
from tools.query_folder import QueryFolder
from tools.retrieval_queries import read_queries
from tools.validation_rooms import A_NAME, NAMES, add_rooms

SENSES = ("image", "audio", "depth", "thermal", "imu")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Piece]:
    """One catalogue of which all is held out, and one of which nothing is."""
    package = tmp_path_factory.mktemp("furniture")
    sizes = {"Chair": (50.0, 90.0, 50.0), "Oak table": (140.0, 70.0, 80.0), "Egg": (30.0, 30, 30)}
    for number in (12, 13):
        write_furniture(package, sizes, f"Boxes{number}")
    return read_pieces(package)


def test_only_what_is_held_out_and_named_is_asked_for(tmp_path: Path, pieces: list[Piece]) -> None:
    kept = {piece.held_out for piece in pieces}
    assert kept == {True, False}
    out = QueryFolder(tmp_path)
    add_rooms(out, pieces, count=3)
    out.write_queries()
    queries = read_queries(tmp_path, SENSES)
    tasks = {query.task for query in queries}
    assert tasks == {"depth_to_rgb_rooms", "text_to_depth_rooms", "depth_to_text_rooms"}
    lines = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text().splitlines()]
    named = {tuple(q["candidates"]) for q in lines if q["task"] == "depth_to_text_rooms"}
    assert {name for names in named for name in names} == {"a chair", "a table"}
    for sense, dtype in (("depth", np.uint16), ("rgb", np.uint8)):
        for path in (tmp_path / "depth_rooms_pairs" / sense).iterdir():
            frame = read_file(str(path), "depth" if sense == "depth" else "image").data[0]
            assert frame.dtype == dtype
    for path in (tmp_path / "seen/depth_rooms").iterdir():
        with Image.open(path) as part:
            assert part.width < COLUMNS or part.height < ROWS


def test_no_name_fills_the_pool(tmp_path: Path, pieces: list[Piece]) -> None:
    out = QueryFolder(tmp_path)
    add_rooms(out, [piece for piece in pieces if piece.name == "Chair"], count=A_NAME)
    assert len(list((tmp_path / "seen/depth_rooms").iterdir())) == A_NAME


def test_a_listed_name_is_of_one_name() -> None:
    listed = [name for names in NAMES.values() for name in names]
    assert len(listed) == len(set(listed))
