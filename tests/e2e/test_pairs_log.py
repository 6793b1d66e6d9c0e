"""`python -m tools.make_pairs_log`: aligned pictures as two streams of a log."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.types import WindowSpec
from tools.bind_logs import Cut, log_pairs
from tools.make_pairs_log import FRAMES_A_SECOND, HEIGHT, WIDTH, main


def test_a_pair_is_a_second_of_both_streams(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.mcap"
    arguments = ["--training", str(shared_data / "training"), "--sense", "depth"]
    assert main([*arguments, "--out", str(path)]) == 0
    seconds = int(capsys.readouterr().out.split(": ")[1].split()[0])
    spec = WindowSpec(0.25, 0.25, 1)
    cuts = Cut("depth", "depth", spec), Cut("camera", "image", spec)
    pairs = list(log_pairs(path, *cuts, 1.0))
    assert len(pairs) == seconds * FRAMES_A_SECOND
    assert len({recording for _, _, recording in pairs}) == seconds
    for frame, photo, _ in pairs:
        assert frame.end_ns == photo.end_ns
        assert frame.data.shape == (1, HEIGHT, WIDTH)
        assert photo.data.shape == (1, HEIGHT, WIDTH, 3)
    assert main([*arguments, "--out", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err
