"""The command that makes the space that ships, where it can be tried without an hour."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import yaml

from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from encoders.bind.binding import base_folder
from encoders.bind.compact import TOWERS
from encoders.bind.compact.card import card, licences
from encoders.bind.compact.makers import MAKERS
from encoders.bind.compact.shipped import copy_shipped, name_background
from encoders.bind.recipe import RECIPES
from encoders.manifest import MANIFEST_NAME, read_entry
from encoders.space import open_space
from tools.make_background import synthetic, write_bank
from tools.make_compact import PACKAGES, main


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has every package, so that nothing is fetched."""
    for package in PACKAGES:
        (tmp_path / "cache" / package.folder).mkdir(parents=True)
    return tmp_path / "cache"


def _run(tmp_path: Path, cache: Path, *more: str) -> int:
    out, data = str(tmp_path / "out"), str(tmp_path)
    return main(["--data", data, "--cache", str(cache), "--out", out, *more])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--only", "smell"),
            "--only: 'smell', expected of text, imu, audio, image, thermal, depth",
        ),
        (("--threads", "0"), "--threads: 0, expected at least 1"),
        (("--only", "imu"), "expected the text tower first"),
        (("--only", "depth"), "expected the image tower first"),
        (("--only", "text"), "MANIFEST.tsv: No such file"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path,
    cache: Path,
    more: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(tmp_path, cache, *more) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_every_tower_has_a_maker_and_a_recipe() -> None:
    assert tuple(MAKERS) == TOWERS
    assert {path.stem for path in RECIPES.glob("*.yaml")} >= set(TOWERS)


def test_the_card_names_each_source_with_its_licence() -> None:
    used = [("photos", "research"), ("photos", "research"), ("stamps", "GPL-2.0-only")]
    made = {
        "made_by": {},
        "seconds": 3.0,
        "threads": 1,
        "figures": {"held_out": 4},
        "sources": licences(used),
    }
    page = card({"image": made})
    assert "| image | photos | research | 2 |" in page
    assert "| image | stamps | GPL-2.0-only | 1 |" in page


def test_what_ships_is_a_space_with_its_ordinary_input(tmp_path: Path) -> None:
    made, shipped = tmp_path / "made", tmp_path / "shipped"
    copytree(base_folder("compact"), made)
    (made / "image.onnx").write_bytes(b"as it is made, in 32 bits")
    space = yaml.safe_load((made / MANIFEST_NAME).read_text())
    del space["background"]
    space["towers"] = dict(sorted(space["towers"].items()))
    entry = {"path": "image.onnx", "bytes": 25, "sha256": read_entry(made / "image.onnx").sha256}
    space["towers"]["image"]["files"]["fp32"] = entry
    (made / MANIFEST_NAME).write_text(yaml.safe_dump(space, sort_keys=False))
    shipped.mkdir()

    copy_shipped(made, shipped)
    assert not (shipped / "image.onnx").exists()
    windows = synthetic(np.random.default_rng(0))
    counts, bank = write_bank(str(shipped), windows, shipped / "background.npz")
    name_background(shipped, bank)

    opened = open_space(str(shipped), RuntimeOptions())
    assert sum(counts.values()) == len(windows)
    assert len(opened.background("image")) == counts["image"]
    ours = open_space("compact", RuntimeOptions())
    assert opened.versions == ours.versions


def test_nothing_ships_where_a_tower_is_missing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    copytree(base_folder("compact"), made)
    space = yaml.safe_load((made / MANIFEST_NAME).read_text())
    del space["towers"]["depth"], space["background"]
    (made / MANIFEST_NAME).write_text(yaml.safe_dump(space))
    (tmp_path / "shipped").mkdir()
    with pytest.raises(ConfigError, match="no depth, expected every tower"):
        copy_shipped(made, tmp_path / "shipped")
    assert not list((tmp_path / "shipped").iterdir())
