"""Files and folders that are whole or not there, whatever ends the writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.atomic import open_atomic, whole_folder
from agent.errors import ConfigError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")
    with open_atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["out.json"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_broken_off_file_leaves_the_old_one_alone(
    tmp_path: Path, stop: type[BaseException]
) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")

    def write() -> None:
        with open_atomic(path) as file:
            file.write(b"half")
            raise stop

    with pytest.raises(stop):
        write()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.json"]


def test_a_file_in_no_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "out.json"
    with (
        pytest.raises(ConfigError, match=r"missing/out\.json: cannot be written"),
        open_atomic(path),
    ):
        pytest.fail("opened")


def test_a_full_disk_is_said_of_the_file(tmp_path: Path) -> None:
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(ConfigError, match=r"out\.json: cannot be written \(No space left"),
        open_atomic(tmp_path / "out.json"),
    ):
        full.write(b"x")
    assert names(tmp_path) == []


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    left = tmp_path / "out.partial"
    left.mkdir()
    (left / "of_a_killed_run").touch()
    with whole_folder(tmp_path / "out") as partial:
        assert not partial.exists()
        partial.mkdir()
        (partial / "made").touch()
        assert names(tmp_path) == ["out.partial"]
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["made"]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_broken_off_folder_is_gone(tmp_path: Path, stop: type[BaseException]) -> None:
    def make() -> None:
        with whole_folder(tmp_path / "out") as partial:
            partial.mkdir()
            (partial / "half").touch()
            raise stop

    with pytest.raises(stop):
        make()
    assert names(tmp_path) == []


def test_a_folder_whose_name_is_taken_leaves_what_is_there(tmp_path: Path) -> None:
    taken = tmp_path / "out"
    taken.mkdir()
    (taken / "other").touch()
    with (
        pytest.raises(ConfigError, match=r"out: cannot be written \(Directory not empty\)"),
        whole_folder(taken) as partial,
    ):
        partial.mkdir()
    assert names(tmp_path) == ["out"]
    assert names(taken) == ["other"]
