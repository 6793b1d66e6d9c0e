"""tools.compose: a table of what composing finds, on pictures that are plainly what they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tools.compose import main

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}
COLOURS |= {"white": (240, 240, 240), "black": (10, 10, 10)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shades of five colours, each asked for by one of them; and two colours side by side."""
    for name in ("shades", "pairs/images"):
        (tmp_path / name).mkdir(parents=True)
    lines = []
    for name, (red, green, blue) in COLOURS.items():
        files = [f"shades/{name}_{n}.png" for n in range(2)]
        for n, file in enumerate(files):
            Image.new("RGB", (64, 64), (red, green + 9 * n, blue)).save(tmp_path / file)
        lines.append({"task": "kind", "image": files[0], "pool": "shades", "relevant": files})
    for left, right in (("red", "blue"), ("green", "white"), ("black", "red")):
        picture = Image.new("RGB", (64, 64), COLOURS[left])
        picture.paste(COLOURS[right], (32, 0, 64, 64))
        picture.save(tmp_path / f"pairs/images/{left}_{right}.png")
        image = [f"shades/{left}_0.png", f"shades/{right}_0.png"]
        own = {"pool": "pairs/images", "relevant": [f"{left}_{right}.png"]}
        lines.append({"task": "both", "image": image, **own})
    (tmp_path / "modalities.json").write_text('{"shades": "image"}')
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_both_tables_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(folder)]) == 0
    out = capsys.readouterr().out
    for how in ("image alone", "0.5 + 0.5", "plain unit sum", "not, all of it"):
        assert how in out
    kinds = [line for line in out.splitlines() if "kind (5)" in line]
    assert [line.split("│")[3].split()[0] for line in kinds[:2]] == ["1.00", "1.00"]
    over = float(kinds[0].split("│")[6])
    assert 0.9 < over <= 1, "a shade is nearer than another colour, nearly always"


def test_a_folder_with_nothing_to_compose_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (folder / "queries.jsonl").read_text().splitlines()
    (folder / "queries.jsonl").write_text(lines[0])
    assert main(["--data", str(folder)]) == 2
    assert "no task of two parts or of classes" in capsys.readouterr().err
