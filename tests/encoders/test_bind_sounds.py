"""Everyday sounds of packages, and the files of Qt resources that some of them stand in."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from encoders.bind.rcc import read_rcc
from encoders.bind.recipe import RECIPES, LabelRecipe, read_recipe
from encoders.bind.sounds import SoundFolder, SoundList, everyday_sounds

NAMES = st.text("abcäß_.-", min_size=1, max_size=6)
TREES = st.recursive(
    st.binary(max_size=40),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
FILES, COMPRESSED, FOLDER, ZSTANDARD = 0, 1, 2, 4


def _rcc(tree: dict[str, object], *, compress: bool = False, version: int = 3) -> bytes:
    """A file of Qt resources, as Qt's documentation of its resource system has them."""
    nodes: list[tuple[str, object]] = [("", tree)]
    firsts: dict[int, int] = {}
    for number, (_, content) in enumerate(nodes):  # it grows as it is read: breadth first
        if isinstance(content, dict):
            firsts[number] = len(nodes)
            nodes.extend(content.items())
    names, data, table = b"", b"", b""
    for number, (name, content) in enumerate(nodes):
        place = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        if isinstance(content, dict):
            node = struct.pack(">IHII", place, FOLDER, len(content), firsts[number])
        else:
            assert isinstance(content, bytes)
            flags = COMPRESSED if compress else FILES
            node = struct.pack(">IHHHI", place, flags, 0, 1, len(data))
            kept = struct.pack(">I", len(content)) + zlib.compress(content) if compress else content
            data += struct.pack(">I", len(kept)) + kept
        table += node + (b"" if version == 1 else bytes(8))
    head = struct.calcsize(">4s4I")
    places = (head, head + len(table), head + len(table) + len(data))
    return struct.pack(">4s4I", b"qres", version, *places) + table + data + names


def _flat(tree: dict[str, object], above: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, content in tree.items():
        if isinstance(content, dict):
            found |= _flat(content, f"{above}{name}/")
        else:
            found[f"{above}{name}"] = content
    return found


@given(
    tree=st.dictionaries(NAMES, TREES, max_size=4),
    compress=st.booleans(),
    version=st.sampled_from([1, 2, 3]),
)
def test_every_file_of_qts_resources_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    tree: dict[str, object],
    compress: bool,
    version: int,
) -> None:
    path = tmp_path_factory.mktemp("rcc") / "made.rcc"
    path.write_bytes(_rcc(tree, compress=compress, version=version))
    assert read_rcc(path) == _flat(tree)


def test_what_is_kept_in_zstandard_is_left_out(tmp_path: Path) -> None:
    content = bytearray(_rcc({"a": b"heard", "b": b"seen"}))
    second = struct.calcsize(">4s4I") + 2 * 22  # the root and "a" stand before it
    content[second + 4 : second + 6] = struct.pack(">H", ZSTANDARD)
    path = tmp_path / "made.rcc"
    path.write_bytes(content)
    assert read_rcc(path) == {"a": b"heard"}


@pytest.mark.parametrize("cut", [0, 3, 19, 30, 60])
def test_a_broken_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.rcc"
    path.write_bytes(_rcc({"folder": {"name": b"content"}})[:cut])
    with pytest.raises(ConfigError, match=r"cut\.rcc: cannot be read .*expected Qt resources"):
        read_rcc(path)
    path.write_bytes(b"RIFF" + bytes(40))
    with pytest.raises(ConfigError, match=r"begins with b'RIFF'"):
        read_rcc(path)
    with pytest.raises(ConfigError, match=r"none\.rcc: No such file"):
        read_rcc(tmp_path / "none.rcc")


def _sound(seconds: float) -> bytes:
    content = BytesIO()
    soundfile.write(content, np.zeros(int(8000 * seconds), np.float32), 8000, format="WAV")
    return content.getvalue()


def _list(**sounds: tuple[str, ...]) -> SoundList:
    return SoundList(
        folders=(
            SoundFolder(package="effects", licence="CC0-1.0", folder="usr/share", sounds=sounds),
            SoundFolder(
                package="effects",
                licence="CC0-1.0",
                folder="usr/share",
                recording="stamps",
                sounds={"bell": ("bell.wav",)},
            ),
        )
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    share = tmp_path / "effects/usr/share"
    share.mkdir(parents=True)
    for name in ("bell.wav", "dog-1.wav", "dog-2.wav"):
        (share / name).write_bytes(_sound(0.5))
    (share / "more.rcc").write_bytes(_rcc({"deep": {"dog.wav": _sound(1.25), "dog.svg": b"<"}}))
    return tmp_path


def test_a_file_is_a_record_by_its_label(cache: Path) -> None:
    records = everyday_sounds(cache, _list(dog=("dog-?.wav", "more.rcc/*dog.wav")))
    assert [(record.recording, record.label) for record in records] == [
        ("effects/dog-1", "dog"),
        ("effects/dog-2", "dog"),
        ("effects/more/deep/dog", "dog"),
        ("stamps/bell", "bell"),
    ]
    assert {(record.source, record.licence) for record in records} == {("effects", "CC0-1.0")}
    inside = records[2].window()
    assert inside.data.shape == (10_000, 1)
    assert inside.stream.rate_hz == 8000
    assert inside.end_ns == pytest.approx(1.25e9, abs=1e6)


@pytest.mark.parametrize("pattern", ["cat*.wav", "more.rcc/*cat.wav", "none.rcc/*"])
def test_a_pattern_that_finds_nothing_is_named(cache: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"cat\*\.wav|\*cat\.wav|none\.rcc"):
        everyday_sounds(cache, _list(cat=(pattern,)))


def test_what_cannot_be_heard_is_named(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"deep/dog\.svg: cannot be read"):
        everyday_sounds(cache, _list(dog=("more.rcc/*.svg",)))


def test_every_sound_of_the_recipe_has_texts() -> None:
    folders = read_recipe(RECIPES / "sounds.yaml", SoundList).folders
    texts = read_recipe(RECIPES / "audio.yaml", LabelRecipe).texts
    assert {label for folder in folders for label in folder.sounds} <= set(texts)
    packages = [(folder.package, folder.folder) for folder in folders]
    assert len(packages) == len(set(packages))
