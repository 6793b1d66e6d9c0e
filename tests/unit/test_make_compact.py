"""The command that makes the space that ships, where it can be tried without an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoders.bind.compact import TOWERS
from encoders.bind.compact.card import card, licences
from encoders.bind.compact.makers import MAKERS
from encoders.bind.recipe import RECIPES
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
