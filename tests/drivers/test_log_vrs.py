"""Driver log on VRS, against the records that pyvrs lists."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from agent.errors import DeviceNotFound
from tests.drivers.test_log_recordings import counts, of, play

pytest.importorskip("pyvrs", reason="the extra vrs is not installed")


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> Path:
    return shared_data / "recordings"


FILES = [
    ("aria_vrs/recording.vrs", True),
    ("vrs/sample_file.vrs", True),
    ("vrs/chunks-shuffled.vrs", True),
    ("vrs/chunks.vrs", False),
    ("vrs/sample_raw_pixel_formats.vrs", True),
]


def data_records(path: Path) -> Counter[str]:
    """Whole data records by stream: each record's header says how far it is to the next."""
    data, found = path.read_bytes(), Counter[str]()
    (at,) = struct.unpack_from("<I", data, 16)
    while at + 32 <= len(data):
        size, _, kind, _, _, instance, record_type, _, _ = struct.unpack_from(
            "<IIiIdHBBI", data, at
        )
        if at + size > len(data):
            break
        if record_type == 3 and kind not in (1, 2):  # nor the index and the description
            found[f"{kind}-{instance}"] += 1
        at += size
    return found


@pytest.mark.parametrize(("name", "complete"), FILES)
def test_data_records_are_counted_by_stream(recordings: Path, name: str, complete: bool) -> None:
    driver, samples = play(recordings / name)
    expected = data_records(recordings / name)
    assert counts(driver) == expected
    assert driver.complete == complete
    for stream in driver.streams:
        assert len(of(samples, stream.topic)) == expected[stream.topic]


def test_project_aria(recordings: Path) -> None:
    driver, samples = play(recordings / "aria_vrs/recording.vrs")
    assert {s.topic: (s.name, s.modality, s.dtype, s.shape) for s in driver.streams} == {
        "1201-1": ("1201_1", "image", "uint8", (480, 640)),
        "1201-2": ("1201_2", "image", "uint8", (480, 640)),
        "1202-1": ("1202_1", "imu", "float32", (6,)),
        "1202-2": ("1202_2", "imu", "float32", (6,)),
        "1203-1": ("1203_1", "magnetic_field", "float64", (3,)),
        "211-1": ("211_1", "image", "uint8", (240, 640)),
        "214-1": ("214_1", "image", "uint8", (1408, 1408, 3)),
        "231-1": ("231_1", "audio", "float32", (7,)),
        "247-1": ("247_1", "barometer", "float64", (3,)),
    }
    assert driver.metadata["vrs"]["device_type"] == "Aria"
    sound = of(samples, "231-1")
    assert [len(s) for s in sound] == [4096] * 4
    assert all(s.arrival_ns == s.t_ns[-1] for s in sound)
    assert np.abs(np.concatenate([s.data for s in sound])).max() <= 1


def test_vrs_and_ros2_of_one_recording_agree(recordings: Path) -> None:
    """The ROS 2 file was made from the VRS by others."""
    _, vrs = play(recordings / "aria_vrs/recording.vrs")
    _, ros = play(recordings / "aria_aea_ros2")
    pairs = {
        "1202-1": "/imu/right",
        "1202-2": "/imu/left",
        "1203-1": "/mag",
        "214-1": "/camera/rgb/image/compressed",
        "1201-1": "/camera/slam_left/image/compressed",
        "211-1": "/camera/eye/image/compressed",
    }
    for stream_id, topic in pairs.items():
        ours, theirs = of(vrs, stream_id), of(ros, topic)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.t_ns[0] == b.t_ns[0]
            if a.stream.modality == "image":  # two JPEG decoders
                assert np.abs(a.data.astype(int) - b.data).mean() < 1
            else:
                np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.95])
def test_vrs_that_was_cut_off(recordings: Path, tmp_path: Path, fraction: float) -> None:
    whole = (recordings / "aria_vrs/recording.vrs").read_bytes()
    path = tmp_path / "cut.vrs"
    path.write_bytes(whole[: int(fraction * len(whole))])
    driver, samples = play(path)
    _, expected = play(recordings / "aria_vrs/recording.vrs")
    assert not driver.complete
    assert 0 < len(samples) < len(expected)
    for stream in driver.streams:
        for a, b in zip(of(samples, stream.topic), of(expected, stream.topic), strict=False):
            assert a.seq == b.seq
            np.testing.assert_array_equal(a.t_ns, b.t_ns)


def test_stubs_of_a_vrs(recordings: Path, tmp_path: Path) -> None:
    path = tmp_path / "stub.vrs"
    whole = (recordings / "vrs/sample_file.vrs").read_bytes()
    path.write_bytes(whole[:20])
    with pytest.raises(DeviceNotFound, match=r"stub\.vrs: cannot be read as VRS") as error:
        play(path)
    assert "\n" not in str(error.value)
    path.write_bytes(whole[:500])
    driver, samples = play(path)
    assert (samples, driver.complete) == ([], False)


def test_opening_prints_nothing_on_stderr(recordings: Path) -> None:
    code = (
        "from pathlib import Path; from drivers.log_formats.vrs import VrsLog;"
        f"log = VrsLog(Path({str(recordings / 'aria_vrs/recording.vrs')!r}));"
        "import sys; print('said', file=sys.stderr); log.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", done.stderr).strip() == "said"
