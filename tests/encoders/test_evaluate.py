"""The command that scores a space: what it reads, what it refuses, and what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from agent.errors import ConfigError
from agent.ordinary import ordinary
from encoders.bind.scoring import Pool
from tools import evaluate
from tools.evaluate import main
from tools.retrieval_queries import Item, read_queries

SENSES = ("image", "audio", "depth", "thermal", "imu")
COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200)}

Line = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, and folders of other names with files of any content."""
    for name in ("images", "rgb", "pool_images", "thermal", "a_to_b", "sounds/kept"):
        (tmp_path / name).mkdir(parents=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"images/{name}.png")
    for name in ("rgb/1.png", "pool_images/1.png", "thermal/1.png", "a_to_b/1", "sounds/kept/1"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, *lines: Line | str) -> Path:
    rows = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "queries.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def line(**changes: Any) -> Line:
    fields = {"task": "t", "text": "red", "pool": "images", "relevant": ["red.png"]} | changes
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize(
    "relevant", [["images/red.png"], ["red.png"], ["./images/red.png"], [2], "red.png", 2]
)
def test_what_is_relevant_in_a_pool(folder: Path, relevant: Any) -> None:
    (query,) = read_queries(write(folder, line(relevant=relevant)), SENSES)
    assert [item.value for item in query.candidates] == [
        "images/blue.png",
        "images/green.png",
        "images/red.png",
    ]
    assert query.relevant == (2,)
    assert query.parts == (Item("text", "red"),)


def test_texts_as_candidates(folder: Path) -> None:
    fields = line(text=None, query="thermal/1.png", pool=None, candidates=["a", "b", "a"])
    (query,) = read_queries(write(folder, fields | {"relevant": ["a"]}), SENSES)
    assert query.candidates == (Item("text", "a"), Item("text", "b"), Item("text", "a"))
    assert query.relevant == (0, 2)
    assert query.parts == (Item("thermal", "thermal/1.png"),)
    (query,) = read_queries(write(folder, fields | {"relevant": [1, "b"]}), SENSES)
    assert query.relevant == (1,)


def test_fields_that_are_null_are_not_there(folder: Path) -> None:
    fields = line() | {"image": None, "query": None, "candidates": None}
    (query,) = read_queries(write(folder, json.dumps(fields)), SENSES)
    assert query.parts == (Item("text", "red"),)


def test_a_text_with_breaks_is_one_line(folder: Path) -> None:
    text = "one\u2028two\x85three"
    (query,) = read_queries(write(folder, json.dumps(line(text=text), ensure_ascii=False)), SENSES)
    assert query.parts == (Item("text", text),)


def test_several_parts_and_fields_that_are_not_known(folder: Path) -> None:
    fields = line(text=["a", "b"], audio="sounds/kept/1", query="images/red.png", note="x", id=3)
    (query,) = read_queries(write(folder, "", fields, "  "), SENSES)
    assert sorted(query.parts, key=lambda item: item.value) == [
        Item("text", "a"),
        Item("text", "b"),
        Item("image", "images/red.png"),
        Item("audio", "sounds/kept/1"),
    ]


@pytest.mark.parametrize(
    ("file", "modality"),
    [
        ("rgb/1.png", "image"),
        ("pool_images/1.png", "image"),
        ("thermal/1.png", "thermal"),
        ("sounds/kept/1", "audio"),  # of the folder that it is in
    ],
)
def test_modality_by_the_folder(folder: Path, file: str, modality: str) -> None:
    (query,) = read_queries(write(folder, line(text=None, query=file)), SENSES)
    assert query.parts == (Item(modality, file),)


@pytest.mark.parametrize("key", ["a_to_b", "a_to_b/"])
def test_modality_by_the_file_of_modalities(folder: Path, key: str) -> None:
    write(folder, line(text=None, query="a_to_b/1"), line(pool="a_to_b", relevant=[0]))
    with pytest.raises(ConfigError, match=r"jsonl:1: query is 'a_to_b/1': no modality"):
        read_queries(folder, SENSES)
    (folder / "modalities.json").write_text(json.dumps({key: "imu", "rgb": "depth"}))
    first, second = read_queries(folder, SENSES)
    assert first.parts == (Item("imu", "a_to_b/1"),)
    assert second.candidates == (Item("imu", "a_to_b/1"),)
    # A file of no folder is named by ".".
    (folder / "1.csv").write_bytes(b"x")
    (folder / "modalities.json").write_text(json.dumps({".": "imu"}))
    (query,) = read_queries(write(folder, line(text=None, query="1.csv")), SENSES)
    assert query.parts == (Item("imu", "1.csv"),)
    (folder / "modalities.json").write_text(json.dumps({"rgb": "depth"}))
    # The folder's own name comes before the file.
    (query,) = read_queries(write(folder, line(text=None, query="rgb/1.png")), SENSES)
    assert query.parts == (Item("image", "rgb/1.png"),)


def test_a_sense_that_nobody_planned(folder: Path) -> None:
    (folder / "touch").mkdir()
    (folder / "touch/1.npy").write_bytes(b"x")
    write(folder, line(text=None, query="touch/1.npy"), line(touch="touch/1.npy"))
    first, second = read_queries(folder, (*SENSES, "touch"))
    assert first.parts == (Item("touch", "touch/1.npy"),)
    assert second.parts == (Item("text", "red"), Item("touch", "touch/1.npy"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[1]", r"\[1\], expected an object"),
        (line(task=None), "task is null, expected a name"),
        (line(task=3), "task is 3, expected a name"),
        (line(text=None), "fields are task, pool, relevant, expected one of text, query, image"),
        (line(text=4), "text is 4, expected a string"),
        (line(text=" "), 'text is " ", expected a string'),
        (line(text=None, image="images/x.png"), "image is 'images/x.png', expected a file below"),
        (line(image="../x.png"), "image is '../x.png', expected a path below"),
        (line(pool=None), "pool and candidates, expected exactly one"),
        (line(candidates=["a"]), "pool and candidates, expected exactly one"),
        (line(pool="nowhere"), "pool is 'nowhere', expected a folder below"),
        (line(pool="/tmp"), "pool is '/tmp', expected a path below"),
        (line(pool=7), "pool is 7, expected a folder's name"),
        (line(pool="a_to_b"), "pool is 'a_to_b': no modality by its folder's name"),
        (line(relevant=None), "relevant is null, expected a list"),
        (line(relevant=[]), r"relevant is \[\], expected a list"),
        (line(relevant=["black.png"]), 'relevant has "black.png", expected one of the 3'),
        (line(relevant=[3]), "relevant has 3, expected one of the 3 candidates, or its index"),
        (line(relevant=[-1]), "relevant has -1"),
        (line(relevant=[True]), "relevant has true"),
        (line(pool=None, candidates=[]), r"candidates is \[\], expected a string or a list"),
    ],
)
def test_a_bad_line_is_named(
    folder: Path, bad: Line | str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, line(), bad)
    with pytest.raises(ConfigError, match=rf"queries\.jsonl:2: {message}"):
        read_queries(folder, SENSES)
    assert main(["retrieval", "--data", str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "modalities.json: "), ('{"x": "smell"}', "x is 'smell', expected one of image, audio")],
)
def test_a_bad_file_of_modalities_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "modalities.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_queries(write(folder, line()), SENSES)


def test_a_folder_without_queries(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"queries\.jsonl: cannot be read"):
        read_queries(tmp_path, SENSES)
    with pytest.raises(ConfigError, match="no lines"):
        read_queries(write(tmp_path, ""), SENSES)


def test_tasks_that_are_not_asked_for_need_no_files(folder: Path) -> None:
    write(folder, line(task="a"), line(task="b", image="images/gone.png"))
    assert [query.task for query in read_queries(folder, SENSES, ["a"])] == ["a"]
    with pytest.raises(ConfigError, match="no task 'c', expected one of a, b"):
        read_queries(folder, SENSES, ["c"])


def test_a_folder_end_to_end(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [
        line(task="image_to_image", text=None, image=f"images/{name}.png", relevant=[f"{name}.png"])
        for name in COLOURS
    ]
    texts = [
        line(task="text_to_text", text=text, pool=None, candidates=["dog", "sea"], relevant=[text])
        for text in ("dog", "sea")
    ]
    wrong = line(task="wrong", text="dog", pool=None, candidates=["dog", "sea"], relevant=["sea"])
    output = tmp_path / "scores.json"
    arguments = [
        "retrieval",
        "--space",
        "compact",
        "--data",
        str(write(folder, *own, *texts, wrong)),
    ]
    assert main([*arguments, "--json", str(output)]) == 0
    table = capsys.readouterr().out
    content = json.loads(output.read_text())
    assert content["space"].startswith("compact@")
    tasks = content["tasks"]
    assert list(tasks) == ["image_to_image", "text_to_text", "wrong"]
    assert tasks["image_to_image"]["queries"] == 3
    for task in ("image_to_image", "text_to_text"):
        assert task in table
        assert [tasks[task][name] for name in ("recall@1", "recall@5", "map")] == [1, 1, 1]
    assert tasks["image_to_image"]["chance@1"] == pytest.approx(1 / 3)
    assert tasks["wrong"]["recall@1"] == 0
    assert tasks["wrong"]["map"] == 0.5
    assert main([*arguments, "--tasks", "wrong", "--precision", "int8", "--json", str(output)]) == 0
    assert list(json.loads(output.read_text())["tasks"]) == ["wrong"]


def test_vectors_that_are_all_the_same_find_nothing(folder: Path, tmp_path: Path) -> None:
    for name in COLOURS:
        Image.new("RGB", (64, 64)).save(folder / f"images/{name}.png")
    own = [
        line(text=None, image=f"images/{name}.png", relevant=[f"{name}.png"]) for name in COLOURS
    ]
    output = tmp_path / "scores.json"
    assert main(["retrieval", "--data", str(write(folder, *own)), "--json", str(output)]) == 0
    scores = json.loads(output.read_text())["tasks"]["t"]
    assert scores["recall@1"] == 0
    assert scores["map"] == pytest.approx(1 / 3)


def test_each_distinct_file_is_embedded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Item] = []
    real: Callable[..., Any] = evaluate._vectors

    def counted(space: Any, data: Path, item: Item) -> Any:
        seen.append(item)
        return real(space, data, item)

    monkeypatch.setattr(evaluate, "_vectors", counted)
    write(folder, line(), line(image="images/red.png"), line(text="blue", task="u"))
    assert main(["retrieval", "--data", str(folder)]) == 0
    assert len(seen) == len(set(seen)) == 5


def test_the_parts_of_a_composed_query_have_an_equal_say(folder: Path, tmp_path: Path) -> None:
    """Of a sound and a picture; scores of the command against cosines worked out here."""
    (folder / "audio").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000)
    soundfile.write(folder / "audio/a.wav", noise, 16_000)
    write(folder, line(text=None, image="images/red.png", audio="audio/a.wav"))
    (query,) = read_queries(folder, SENSES)
    space = evaluate.open_space("compact", evaluate.RuntimeOptions())
    vectors = evaluate._embed(space, folder, [query])
    parts = np.concatenate([vectors[part] for part in query.parts])
    candidates = [vectors[item] for item in query.candidates]
    assert len(candidates[0]) > 1, "pictures have views"
    cosines = [[views @ part for views in candidates] for part in parts]
    near = np.array([[(float(own[0]) + float(own.max())) / 2 for own in row] for row in cosines])
    expected = ((near.T - near.mean(axis=1)) / near.std(axis=1)).mean(axis=1)
    np.testing.assert_allclose(Pool(candidates).scores(parts), expected, rtol=1e-3, atol=1e-3)


def test_texts_are_counted_from_what_is_ordinary(folder: Path, tmp_path: Path) -> None:
    names = ["a dog", "the sea", "red"]
    told = line(text=None, image="images/red.png", pool=None, candidates=names, relevant=["red"])
    write(folder, told, line(), line(text="a cat", pool=None, candidates=names, relevant=[0]))
    output = tmp_path / "scores.json"
    arguments = ["retrieval", "--data", str(folder), "--calibrated", "--json", str(output)]
    assert main(arguments) == 0
    assert json.loads(output.read_text())["calibrated"] is True

    queries = read_queries(folder, SENSES)
    space = evaluate.open_space("compact", evaluate.RuntimeOptions())
    vectors = evaluate._embed(space, folder, queries)
    usual = evaluate._Usual(space, vectors)
    assert usual(queries[1]) is None, "files"
    assert usual(queries[2]) is None, "texts found by a text"
    shown = vectors[queries[0].parts[0]][0]
    texts = [vectors[item] for item in queries[0].candidates]
    bank = space.background("image")[:, 0]
    by_hand = []
    for (text,) in texts:
        mean, deviation = ordinary(bank @ text, space.dim)
        by_hand.append((text @ shown - mean) / deviation)
    scores = Pool(texts).scores(shown[np.newaxis], usual(queries[0]))
    np.testing.assert_allclose(scores, by_hand, rtol=1e-3, atol=1e-3)


def test_a_file_that_cannot_be_read_is_one_line_with_its_task(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "images/green.png").write_bytes(b"no picture")
    output = tmp_path / "scores.json"
    arguments = ["retrieval", "--data", str(write(folder, line())), "--json", str(output)]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "queries.jsonl:1: task t: " in captured.err
    assert "images/green.png: not a picture" in captured.err
    assert captured.out == ""
    assert not output.exists()


def test_a_model_that_is_not_there_is_no_fault_of_a_file(folder: Path, tmp_path: Path) -> None:
    write(folder, line())
    assert main(["retrieval", "--data", str(folder), "--space", str(tmp_path / "none")]) == 3
