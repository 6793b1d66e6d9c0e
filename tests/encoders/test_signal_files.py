"""Files of a sense that nobody planned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import ConfigError
from encoders.signal_files import read_signal


def test_columns_are_channels_stamped_by_the_first(tmp_path: Path) -> None:
    path = tmp_path / "Left Arm.csv"
    path.write_text("t,flexor,extensor\n5.0,1,2\n5.1,3,4\n5.2,5,6\n")
    window = read_signal(str(path), "emg")
    assert window.data.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert window.t_ns.tolist() == [0, 100_000_000, 200_000_000]
    assert window.stream.rate_hz == pytest.approx(10)
    assert (window.stream.name, window.stream.modality) == ("left_arm", "emg")


def test_a_file_without_a_header_loses_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("0,1,2\r\n0.1,3,4\r\n\r\n")
    assert read_signal(str(path), "emg").data.tolist() == [[1, 2], [3, 4]]


def test_an_array_is_one_frame(tmp_path: Path) -> None:
    np.save(tmp_path / "mat.npy", np.ones((4, 6), np.uint16))
    window = read_signal(str(tmp_path / "mat.npy"), "touch")
    assert (window.data.shape, window.stream.dtype) == ((1, 4, 6), "uint16")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("t,a\n0,1\n0,2\n", "rising t"),
        ("t,a\n1,1\n0,2\n", "rising t"),
        ("t\n0\n1\n", "rising t and channels"),
        ("t,a\n0,1\n", "1 rows of numbers, expected at least 2"),
        ("t,a\n", "0 rows of numbers"),
        ("hello", "0 rows of numbers"),
        ("t,a\n0,x\n1,2\n", "not numbers"),
        ("t,a\n0,1\n1,nan\n", "not finite"),
    ],
)
def test_other_columns_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_signal(str(path), "emg")
    with pytest.raises(ConfigError, match=r"b\.csv: cannot be read"):
        read_signal(str(tmp_path / "b.csv"), "emg")
