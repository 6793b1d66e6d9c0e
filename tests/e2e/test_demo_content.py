"""The demo log that ships: its size, its streams, and where all of it comes from."""

from __future__ import annotations

import hashlib
import io
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from mcap.reader import make_reader
from PIL import Image

from agent.errors import ConfigError
from tools.demo_sources import PACKAGES, SOURCES, read, sources_page

DEMO = Path(__file__).resolve().parents[2] / "configs/demo"
LOG = DEMO / "demo.mcap"
MAX_BYTES = 8_000_000
MAX_EXAMPLE_BYTES = 250_000
BLOCK_NS = {"/camera": 100_000_000, "/microphone": 100_000_000, "/imu": 100_000_000}


@pytest.fixture(scope="module")
def messages() -> dict[str, list[tuple[int, bytes]]]:
    """topic -> (log time, payload), read by the format's own reader and not by ours."""
    found: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    with LOG.open("rb") as file:
        for _, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            found[channel.topic].append((message.log_time, message.data))
    return found


def test_sizes() -> None:
    assert LOG.stat().st_size < MAX_BYTES
    assert (DEMO / "river.flac").stat().st_size < MAX_EXAMPLE_BYTES
    assert (DEMO / "home.jpg").stat().st_size < MAX_EXAMPLE_BYTES


@pytest.mark.parametrize("topic", BLOCK_NS)
def test_a_minute_at_true_rates(messages: dict[str, list[tuple[int, bytes]]], topic: str) -> None:
    times = [t_ns for t_ns, _ in messages[topic]]
    assert len(times) == 600
    assert {b - a for a, b in pairwise(times)} == {BLOCK_NS[topic]}


def test_streams_say_what_they_are() -> None:
    with LOG.open("rb") as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        ledger = {m.name: m.metadata for m in reader.iter_metadata()}["sensebind.ledger"]
    assert summary is not None
    said = {
        channel.topic: json.loads(channel.metadata["sensebind.stream"])
        for channel in summary.channels.values()
        if "sensebind.stream" in channel.metadata
    }
    assert {t: (s["modality"], s["rate_hz"], s["unit"]) for t, s in said.items()} == {
        "/camera": ("image", 10.0, "rgb8"),
        "/microphone": ("audio", 16_000.0, "full_scale"),
        "/imu": ("imu", 10.0, "m/s^2,rad/s"),
    }
    assert ledger["complete"] == "true"


def test_frames_are_pictures_and_none_repeats(
    messages: dict[str, list[tuple[int, bytes]]],
) -> None:
    pictures = []
    for _, payload in messages["/camera"]:
        frame = CompressedImage()
        frame.ParseFromString(payload)
        assert frame.format == "jpeg"
        pictures.append(frame.data)
    assert len(set(pictures)) == len(pictures)
    sizes = {Image.open(io.BytesIO(picture)).size for picture in pictures[::50]}
    assert sizes == {(480, 360)}


def test_examples_are_a_sound_and_a_picture() -> None:
    wave, rate_hz = soundfile.read(DEMO / "river.flac")
    assert (rate_hz, wave.shape) == (16_000, (80_000,))
    assert 0.02 < float(np.sqrt(np.mean(wave**2))) < 0.2
    with Image.open(DEMO / "home.jpg") as picture:
        assert picture.size == (480, 360)


def test_every_source_is_listed_with_its_licence() -> None:
    page = (DEMO / "SOURCES.md").read_text(encoding="utf-8")
    assert page == sources_page()
    for source in SOURCES.values():
        (row,) = [line for line in page.splitlines() if source.sha256 in line]
        package = f"{source.package} {PACKAGES[source.package].version}"
        assert all(part in row for part in (source.path, source.licence, source.author, package))


def test_the_motion_keeps_its_licence() -> None:
    content = (DEMO / "LICENSE.aeon").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SOURCES["aeon_licence"].sha256


def test_a_missing_or_altered_source_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rocket\.jpg: No such file.*scikit-image"):
        read(tmp_path, "rocket")
    path = tmp_path / "scikit-image" / SOURCES["rocket"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another picture")
    with pytest.raises(ConfigError, match=r"rocket\.jpg: sha256 .* expected c2dd0de7c538"):
        read(tmp_path, "rocket")
