"""The log of six streams that tools/bench.py senses plays: what is in it, second by second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fakes.log_reading import read_log
from tools.benches.senses_log import INFOS, write_log


def test_two_seconds_of_six_streams(tmp_path: Path) -> None:
    path = tmp_path / "six.mcap"
    assert list(write_log(path, 2.0)) == [1, 2]
    streams = read_log(path)
    assert streams.keys() == INFOS.keys()
    for name, samples in streams.items():
        info = INFOS[name]
        assert info.rate_hz is not None
        t_ns = np.concatenate([sample.t_ns for sample in samples])
        assert len(t_ns) == 2 * info.rate_hz, name
        assert np.abs(np.diff(t_ns) - 1e9 / info.rate_hz).max() <= 1, name
        assert samples[0].stream.modality == info.modality
        assert sum(sample.lost for sample in samples) == 0
    # Of the first twenty seconds the warm body is there in the first, and nothing sounds yet.
    warm = streams["thermal"]
    assert warm[0].data[0, 60, 80] - float(np.median(warm[0].data)) > 800
    assert warm[-1].data[0, 60, 80] - float(np.median(warm[-1].data)) < 100
    sound = np.concatenate([sample.data for sample in streams["microphone"]])
    assert 20 < float(np.std(sound)) < 40
    # One camera stands and the other walks.
    stands, walks = (
        np.abs(streams[name][0].data.astype(int) - streams[name][4].data.astype(int)).mean()
        for name in ("camera", "walker")
    )
    assert walks > 3 * stands
