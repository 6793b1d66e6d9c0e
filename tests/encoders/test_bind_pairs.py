"""Sources of pairs, from the text on a command line to examples with anchors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from encoders.bind.pairs import Collector, labelled_files, paired_files, parse_source
from encoders.preprocess.signal import SignalPreprocess
from encoders.preprocess.thermal import ThermalPreprocess
from encoders.space import open_space
from tests.encoders.made import made_windows, window

SIGNAL = SignalPreprocess(channels=2, rate_hz=10.0, length_s=1.0, hop_s=1.0)


def _collector(preprocess: object, anchor: str) -> Collector:
    return Collector(preprocess, open_space("compact", RuntimeOptions()), anchor)


def test_a_source_is_told_in_one_word() -> None:
    source = parse_source("log:a/b.mcap?sense=mag&anchor=imu&stretch=7.5")
    assert (source.kind, source.path, source.needed("sense")) == ("log", Path("a/b.mcap"), "mag")
    assert source.number("stretch", 10) == 7.5
    assert parse_source("labels:C:/x.csv").path == Path("C:/x.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("walk.mcap", "'walk.mcap', expected log, folders, labels"),
        ("log:", "expected log, folders, labels"),
        ("labels:x?anchor=y", "labels has no option 'anchor', expected none"),
        ("log:x?strech=5", "no option 'strech', expected anchor, sense, stretch"),
    ],
)
def test_a_source_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_source(text)


def test_an_option_is_asked_for_by_its_name() -> None:
    source = parse_source("folders:x?block=none")
    with pytest.raises(ConfigError, match=r"no anchor, expected folders:PATH\?anchor="):
        source.needed("anchor")
    with pytest.raises(ConfigError, match="block is 'none', expected a number above 0"):
        source.number("block", 1)


def test_files_of_one_stem_are_pairs_and_neighbours_are_one_recording(tmp_path: Path) -> None:
    for folder, suffix, names in (("a", "png", "012345"), ("b", "jpg", "12345x")):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.{suffix}").write_bytes(b"1")
    source = parse_source(f"folders:{tmp_path}/a?anchor={tmp_path}/b&block=2")
    pairs = paired_files(source)
    assert [(own.name, other.name) for own, other, _ in pairs] == [
        (f"{i}.png", f"{i}.jpg") for i in range(1, 6)
    ]
    assert [recording[-1] for _, _, recording in pairs] == ["0", "0", "1", "1", "2"]
    (tmp_path / "a" / "1.tiff").write_bytes(b"1")
    with pytest.raises(ConfigError, match="two files of one stem"):
        paired_files(source)


def test_labels_come_as_a_list_or_as_folders(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,label,recording\nx/1.wav,dog,r1\nx/2.wav,cat,\n")
    (tmp_path / "a.json").write_text(json.dumps({"x/1.wav": "dog", "x/2.wav": "cat"}))
    (tmp_path / "a.yaml").write_text("- {file: x/1.wav, label: dog}\n- {file: x/2.wav, label: cat}")
    for name in ("a.csv", "a.json", "a.yaml"):
        found = labelled_files(tmp_path / name)
        assert [(row.file, row.label) for row in found] == [
            (tmp_path / "x/1.wav", "dog"),
            (tmp_path / "x/2.wav", "cat"),
        ]
    assert labelled_files(tmp_path / "a.csv")[0].recording == "r1"
    (tmp_path / "set" / "door_bell").mkdir(parents=True)
    (tmp_path / "set" / "door_bell" / "1.wav").write_bytes(b"1")
    assert [row.label for row in labelled_files(tmp_path / "set")] == ["door bell"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "path,label\nx,dog\n", "entry 1 is .*expected file and label"),
        ("a.csv", "file,label\n", "empty"),
        ("a.json", "{", "cannot be read"),
        ("a.yaml", "dog", "str, expected a list"),
        ("a.txt", "x dog", "expected a folder, or a list as .csv"),
    ],
)
def test_a_list_that_is_none_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        labelled_files(tmp_path / name)


def test_a_label_is_bound_to_the_mean_of_its_texts() -> None:
    collector = _collector(SIGNAL, "text")
    for i, label in enumerate(("dog", "cat", "dog")):
        collector.labelled(window("emg", np.ones((20, 2)), 10.0), label, f"r{i}")
    examples = collector.finish()
    assert len(examples) == 6  # two views each
    assert examples.labels.tolist() == [0, 0, 1, 1, 0, 0]
    assert examples.groups.tolist() == [0, 0, 1, 1, 2, 2]
    encoder = collector.space.text_encoder()
    texts = [template.format("cat") for template in collector.templates]
    mean = np.mean([e.vector for e in encoder.encode(texts)], axis=0)
    np.testing.assert_allclose(examples.anchors[2], mean / np.linalg.norm(mean), atol=1e-6)


def test_each_crop_is_bound_to_a_frame_that_the_anchor_sees_as_one() -> None:
    preprocess = ThermalPreprocess(
        size=64, mean=(0.45,), std=(0.25,), reducing_gap=None, percentiles=(1, 99)
    )
    collector = _collector(preprocess, "image")
    thermal, image = made_windows("thermal", 1)[0], made_windows("image", 1)[0]
    collector.pair(thermal, image, "r")
    examples = collector.finish()
    vectors = collector.space.encoder("image").encode_views(image)
    assert len(examples) == 3
    np.testing.assert_allclose(examples.anchors, np.repeat(vectors, 3, axis=0), atol=1e-6)


def test_what_cannot_be_used_is_counted_and_nothing_at_all_is_an_error() -> None:
    collector = _collector(SIGNAL, "text")
    for _ in range(2):
        collector.labelled(window("emg", np.ones((20, 3)), 10.0), "dog", "r")
    assert list(collector.skipped.values()) == [2]
    with pytest.raises(ConfigError, match=r"none usable \(.*expected numbers \[n, 2\]"):
        collector.finish()


def test_a_paired_picture_folder_reads_as_files(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "1.png")
    pairs = paired_files(parse_source(f"folders:{tmp_path}?anchor={tmp_path}"))
    assert pairs[0][:2] == (tmp_path / "1.png", tmp_path / "1.png")
