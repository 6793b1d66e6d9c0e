"""The validation folder: only what is never trained on, and tasks that can be scored."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.bind import sources_motion
from encoders.bind.sources_tiles import read_tiles
from encoders.bind.splits import held_out, recording_id
from encoders.files import IMU_COLUMNS, read_file
from tools import evaluate
from tools.make_validation import _add_motions, main
from tools.query_folder import QueryFolder
from tools.retrieval_queries import read_queries

SENSES = ("image", "audio", "depth", "thermal", "imu")


@pytest.fixture(scope="module")
def made(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "validation"
    rooms = shared_data / "recordings/slambook_rgbd/ch5/rgbd"
    training = shared_data / "training"
    arguments = ["--training", str(training), "--rooms", str(rooms), "--out", str(out)]
    assert main(arguments) == 0
    return out


def digests(paths: list[Path]) -> dict[str, Path]:
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}


def test_nothing_of_it_may_be_trained_on(made: Path, shared_data: Path) -> None:
    training = shared_data / "training"
    originals = digests([path for path in training.rglob("*") if path.is_file()])
    copied = 0
    for digest in digests([path for path in made.rglob("*") if path.is_file()]):
        if digest in originals:
            below = originals[digest].relative_to(training).as_posix()
            assert held_out(recording_id(below)), below
            copied += 1
    assert copied > 300


def test_every_tile_is_one_that_is_kept(made: Path, shared_data: Path) -> None:
    tiles = read_tiles(shared_data / "training", "cifar100")
    numbers = {name.replace("/", "_"): i for i, name in enumerate(tiles.recordings)}
    trained_on = set(tiles.training().tolist())
    found = sorted((made / "tiles/images").glob("cifar100_*.png"))
    assert len(found) == 1000
    for path in found:
        number = numbers[path.stem]
        assert number not in trained_on
        np.testing.assert_array_equal(np.asarray(Image.open(path)), tiles.pixels[number])


def test_tasks(made: Path) -> None:
    queries = read_queries(made, SENSES)
    by_task = {query.task: query for query in queries}
    assert list(by_task) == [
        "text_to_image",
        "image_to_text_cifar10",
        "image_to_text_cifar100",
        "text_to_image_seen",
        "text_to_audio",
        "audio_to_text",
        "text_to_image_kind",
        "image_to_audio",
        "audio_to_image",
        "audio+image_to_image",
        "text+audio_to_image",
        "thermal_to_rgb",
        "text_to_thermal",
        "thermal_to_text",
        "depth_to_rgb",
        "text_to_depth",
        "depth_to_text",
        "depth_to_rgb_unseen",
        "text_to_depth_unseen",
        "depth_to_text_unseen",
    ]
    for task, query in by_task.items():
        asked, _, searched = task.partition("_to_")
        senses = [part.modality for part in query.parts]
        assert sorted(senses) == sorted(asked.split("+"))
        found = searched.partition("_")[0]
        expected = "image" if found == "rgb" else found
        assert {item.modality for item in query.candidates} == {expected}
        # A guess must not do well, nor what is asked with be among what is searched.
        assert len(query.relevant) < len(query.candidates) / 2
        assert not set(query.parts) & set(query.candidates)


def test_the_space_that_ships_finds_pairs_better_than_chance(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.json"
    tasks = "depth_to_rgb,audio_to_text"
    arguments = ["retrieval", "--data", str(made), "--tasks", tasks, "--json", str(output)]
    assert evaluate.main(arguments) == 0
    for scores in json.loads(output.read_text())["tasks"].values():
        assert scores["recall@1_95"][0] > scores["chance@1"]


def test_senses_bound_through_pictures_alone_answer_to_texts(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.json"
    tasks = ["--tasks", "thermal_to_text,depth_to_text", "--calibrated"]
    assert evaluate.main(["retrieval", "--data", str(made), *tasks, "--json", str(output)]) == 0
    for scores in json.loads(output.read_text())["tasks"].values():
        assert scores["recall@1_95"][0] > scores["chance@1"]


def test_motions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [
        sources_motion.motion_record(rng.normal(size=(50, 6)), 10.0, label, recording, "made")
        for label, recording in (("Running", "watch/7"), ("PEN", "watch/8"), ("ROW", "watch/6"))
    ]
    out = QueryFolder(tmp_path / "out")
    _add_motions(out, records)
    out.write_queries()
    queries = read_queries(tmp_path / "out", SENSES)
    assert [query.task for query in queries] == ["text_to_imu", "imu_to_text"] * 2
    assert [len(query.candidates) for query in queries] == [2] * 4
    file = tmp_path / "out" / queries[1].parts[0].value
    assert file.read_text().splitlines()[0] == ",".join(IMU_COLUMNS)
    window = read_file(str(file), "imu")
    assert window.stream.rate_hz == pytest.approx(10)
    np.testing.assert_allclose(window.data, records[0].window().data, rtol=1e-4, atol=1e-5)


def test_a_folder_with_something_in_it_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.txt").write_text("mine")
    assert main(["--training", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "has something in it, expected a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]


def test_training_data_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--training", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "MANIFEST.tsv" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
