"""The training data as records."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from agent.errors import BadData, ConfigError
from encoders.bind import sources, sources_motion
from encoders.bind.recipe import RECIPES
from encoders.bind.sources_tiles import read_tiles
from encoders.bind.splits import held_out
from tests.fakes.training import write_manifest


@pytest.fixture
def training(shared_data: Path) -> Path:
    return shared_data / "training"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A training folder of four pictures and a mosaic of 2 x 3 tiles."""
    folder = tmp_path / "training"
    labels = ("hen", "owl", "cat", "tiger")
    (folder / "photos").mkdir(parents=True)
    for label in labels:
        Image.new("RGB", (40, 30)).save(folder / f"photos/{label}.png")
    (folder / "cifar10").mkdir()
    mosaic = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3), 32, 0), 32, 1)
    Image.fromarray(np.stack([mosaic] * 3, -1)).save(folder / "cifar10/car.png")
    photos = [(f"photos/{label}.png", label, 1) for label in labels]
    write_manifest(folder, [*photos, ("cifar10/car.png", "car", 6)])
    return folder


def test_photos_carry_what_their_labels_are_kinds_of(small: Path) -> None:
    records = sources.photos(small, [("hen", "owl", "a bird")], {"a pet": ["cat", "hen"]})
    assert [record.texts for record in records] == [
        ("hen", "a bird", "a pet"),
        ("owl", "a bird"),
        ("cat", "a pet"),
        ("tiger",),
    ]
    assert records[0].recording == "photos/hen"
    assert records[0].licence == "ours, free"
    assert records[0].window().data.shape == (1, 30, 40, 3)


@pytest.mark.parametrize(
    ("hypernyms", "groups", "message"),
    [
        ([("owl", "hen", "a bird")], {}, "'owl' to 'hen', expected two labels in order"),
        ([("hen", "dog", "a bird")], {}, "'hen' to 'dog'"),
        ([], {"a pet": ["dog"]}, "'a pet' has 'dog', expected a class's label"),
    ],
)
def test_a_label_that_is_not_there_is_refused(
    small: Path, hypernyms: list[Any], groups: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sources.photos(small, hypernyms, groups)


def test_tiles_are_cut_row_by_row(small: Path) -> None:
    cut = read_tiles(small, "cifar10")
    assert cut.pixels.shape == (6, 32, 32, 3)
    assert cut.pixels[:, 0, 0, 0].tolist() == list(range(6))
    assert cut.pixels.std(axis=(1, 2, 3)).max() == 0  # no tile has pixels of its neighbour
    assert cut.recordings[4] == "cifar10/car/4"
    assert cut.training().tolist() == list(range(6))


def test_a_mosaic_of_another_size_is_refused(small: Path) -> None:
    Image.new("RGB", (64, 64)).save(small / "cifar10/car.png")
    with pytest.raises(ConfigError, match="2 x 2 tiles, expected 6"):
        read_tiles(small, "cifar10")


def test_a_collection_that_is_not_listed_is_refused(small: Path) -> None:
    with pytest.raises(ConfigError, match="no rows of esc10"):
        sources.esc10(small)
    with pytest.raises(ConfigError, match=r"MANIFEST\.tsv: No such file"):
        sources.esc10(small / "photos")


def test_a_stamp_has_a_line_and_only_its_effect_as_sound(tmp_path: Path) -> None:
    folder = tmp_path / sources.STAMPS_FOLDER / "animals"
    folder.mkdir(parents=True)
    Image.new("LA", (4, 3), (0, 0)).save(folder / "cow.png")
    for name in ("cow.ogg", "cow_desc.ogg", "cow_desc_fr.ogg", "moon.png", "sun.txt"):
        (folder / name).write_bytes(b"")
    (folder / "cow.txt").write_text("A cow.\nfr.utf8=Une vache.\n", encoding="utf-8")
    (pictured,) = sources.stamps(tmp_path)
    (heard,) = sources.stamp_sounds(tmp_path)
    assert pictured.texts == heard.texts == ("A cow",)
    assert pictured.recording == heard.recording == "stamps/animals/cow"
    assert pictured.window().data.shape == (1, 3, 4, 3)
    assert pictured.window().data.min() == 255  # what is transparent is white
    assert heard.content == folder / "cow.ogg"


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return open, ("written",)


def _object_file(pickled: bytes) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    return stream.getvalue() + pickled


def test_a_pickle_that_calls_anything_is_refused(tmp_path: Path) -> None:
    content = _object_file(pickle.dumps({"X": _Evil()}))
    with pytest.raises(BadData, match=r"names (_io|builtins|io)\.open, expected arrays only"):
        sources_motion.read_object_array(content, tmp_path / "x.npy")


def test_a_pickle_of_arrays_is_read(tmp_path: Path) -> None:
    pickled = pickle.dumps(np.array({"X": [np.eye(2)]}, dtype=object), protocol=2)
    content = _object_file(pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    read = sources_motion.read_object_array(content, tmp_path / "x.npy")
    assert read["X"][0].tolist() == [[1, 0], [0, 1]]


def test_a_file_that_changed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / sources_motion.WATCH_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    with pytest.raises(ConfigError, match="sha256 d9298a10d1b0, expected"):
        sources_motion.watch(tmp_path)


def test_the_recipes_hypernyms_fit_the_photos(training: Path) -> None:
    recipe = yaml.safe_load((RECIPES / "image.yaml").read_text(encoding="utf-8"))
    records = sources.photos(training, recipe["hypernyms"], recipe["groups"], recipe["absent"])
    texts = {record.label: record.texts for record in records}
    assert len({record.content for record in records}) == len(records) == 949
    assert texts["axolotl"] == ("axolotl", "a salamander", "an amphibian")
    assert sum("a dog" in own for own in texts.values()) == 113
    # The frogs have no photo: what stands beside them must not be given their name.
    assert not any("a frog" in own for own in texts.values())
    assert len(records) + len(recipe["absent"]) == 1000


def test_every_source_is_read_and_parted_by_recording(training: Path) -> None:
    for load in (sources.esc10, sources.animal_sounds, sources.thermal_pairs, sources.depth_pairs):
        records = load(training)
        kept = {record.recording for record in records if record.held_out}
        used = {record.recording for record in records if not record.held_out}
        assert kept
        assert used
        assert not kept & used
        assert records[0].window().stream.modality == records[0].modality
    assert not any(Path(str(r.content)).name.startswith("5-") for r in sources.esc10(training))


def test_thermal_and_depth_have_their_photographs(training: Path) -> None:
    for record in [*sources.thermal_pairs(training), *sources.depth_pairs(training)]:
        assert record.photo is not None
        assert record.photo.stem == Path(str(record.content)).stem


def test_tiles_of_real_mosaics_are_whole(training: Path) -> None:
    cut = read_tiles(training, "cifar100")
    assert cut.pixels.shape == (50_000, 32, 32, 3)
    assert len(cut.labels) == 100
    kept = np.setdiff1d(np.arange(50_000), cut.training())
    assert len(kept) == 2000
    assert all(held_out(cut.recordings[i]) for i in kept)
