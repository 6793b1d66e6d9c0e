from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

import encoders.models.compact
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError, EncodeFailed, ModelMismatch, ModelMissing
from encoders.space import open_space
from tests.encoders.made import made_windows
from tools.npz import write_npz

COMPACT = Path(encoders.models.compact.__file__).parent
CPU = RuntimeOptions()

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of compact's smallest tower, its text and its background."""
    manifest = yaml.safe_load((COMPACT / "space.yaml").read_text())
    manifest["towers"] = {name: manifest["towers"][name] for name in ("imu", "text")}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(manifest))
    for name in ("imu.onnx", "imu.int8.onnx", "text_table_int8.npz", "tokenizer.json"):
        shutil.copy(COMPACT / name, tmp_path)
    shutil.copy(COMPACT / "background.npz", tmp_path)
    return tmp_path


def edit(folder: Path, change: Edit) -> None:
    path = folder / "space.yaml"
    manifest = yaml.safe_load(path.read_text())
    change(manifest)
    path.write_text(yaml.safe_dump(manifest))


def test_compact_says_what_it_is() -> None:
    space = open_space("compact", CPU)
    assert space.name == "compact"
    assert space.dim == 256
    assert space.licence == "Apache-2.0"
    assert space.modalities == ("image", "audio", "depth", "thermal", "imu")
    assert space.precision == "fp32+int8"
    assert space.provider == ""
    space.encoder("imu").load()
    assert space.provider == "CPUExecutionProvider"
    space.close()
    space.close()
    assert space.provider == ""


def test_compact_is_found_from_any_folder_and_imports_no_runtime(tmp_path: Path) -> None:
    code = (
        "import sys; from agent.contracts import RuntimeOptions;"
        "from encoders.space import open_space;"
        "print(open_space('compact', RuntimeOptions()).identity);"
        "assert not {'onnxruntime', 'tokenizers', 'soundfile', 'torch'} & set(sys.modules)"
    )
    root = str(COMPACT.parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == open_space("compact", CPU).identity


def test_a_tower_is_the_same_one_each_time() -> None:
    space = open_space("compact", CPU)
    assert space.encoder("imu") is space.encoder("imu")
    assert space.text_encoder() is space.text_encoder()


def test_manifest_of_compact_names_every_file_that_ships() -> None:
    manifest = yaml.safe_load((COMPACT / "space.yaml").read_text())
    named = {manifest["background"]["path"]}
    for tower in manifest["towers"].values():
        named |= {file["path"] for file in tower["files"].values()}
        named |= {tower["tokenizer"]["path"]} if "tokenizer" in tower else set()
    shipped = {path.name for path in COMPACT.iterdir() if path.suffix in (".onnx", ".npz", ".json")}
    assert named == shipped
    assert sum(path.stat().st_size for path in COMPACT.glob("*.*")) < 25 * 2**20


class TestIdentity:
    def test_is_stable_and_does_not_depend_on_where_the_folder_is(self, folder: Path) -> None:
        copy = folder.parent / (folder.name + "_copy")
        shutil.copytree(folder, copy)
        assert open_space(str(folder), CPU).identity == open_space(str(copy), CPU).identity

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m["towers"]["imu"]["preprocess"]["parameters"].update(rotation_scale=4),
            lambda m: m["towers"]["imu"]["files"]["fp32"].update(sha256="0" * 64),
            lambda m: m["towers"]["text"]["tokenizer"].update(sha256="0" * 64),
            lambda m: m["towers"].pop("imu"),
            lambda m: m.update(dim=128),
            lambda m: m.update(name="other"),
        ],
    )
    def test_changes_with_what_changes_vectors(self, folder: Path, change: Edit) -> None:
        before = open_space(str(folder), CPU).identity
        edit(folder, change)
        assert open_space(str(folder), CPU).identity != before

    @pytest.mark.parametrize(
        "change",
        [
            lambda m: m.update(description="other words", licence="MIT"),
            lambda m: m["towers"]["imu"]["window"].update(hop_s=1.0),
            lambda m: m["towers"]["imu"]["files"].pop("int8"),
            lambda m: m["towers"]["imu"].update(scale=5.0),
            lambda m: m.pop("background"),
        ],
    )
    def test_does_not_change_with_anything_else(self, folder: Path, change: Edit) -> None:
        before = open_space(str(folder), CPU).identity
        edit(folder, change)
        assert open_space(str(folder), CPU).identity == before

    def test_changes_with_the_precision_in_use(self) -> None:
        int8 = open_space("compact", RuntimeOptions(precision="int8"))
        assert int8.identity != open_space("compact", CPU).identity
        assert int8.precision == "int8"
        # The picture towers are int8 only, and say so.
        assert open_space("compact", RuntimeOptions(precision="fp32")).precision == "fp32+int8"


class TestWrongFolder:
    def test_name_that_does_not_ship(self) -> None:
        with pytest.raises(ModelMissing, match="'nope' does not ship, expected one of compact"):
            open_space("nope", CPU)

    def test_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissing, match=r"nowhere/space.yaml: no such file"):
            open_space(str(tmp_path / "nowhere"), CPU)

    @pytest.mark.parametrize(
        "name", ["imu.onnx", "text_table_int8.npz", "tokenizer.json", "background.npz"]
    )
    def test_file_that_is_not_there(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(ModelMissing, match=f"{name}: no such file, named in space.yaml"):
            open_space(str(folder), CPU)

    def test_file_of_a_precision_not_in_use_may_be_missing(self, folder: Path) -> None:
        (folder / "imu.int8.onnx").unlink()
        open_space(str(folder), CPU)
        with pytest.raises(ModelMissing, match=r"imu.int8.onnx"):
            open_space(str(folder), RuntimeOptions(precision="int8"))

    def test_file_that_goes_away_before_load(self, folder: Path) -> None:
        encoder = open_space(str(folder), CPU).encoder("imu")
        (folder / "imu.onnx").unlink()
        with pytest.raises(ModelMissing, match=r"imu.onnx: cannot be read"):
            encoder.load()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m.update(version=2), "version is 2, expected 1"),
            (lambda m: m.pop("version"), "version is None, expected 1"),
            (lambda m: m.pop("dim"), "missing required field `dim`"),
            (lambda m: m.update(dim="wide"), r"Expected `int`, got `str` - at `\$.dim`"),
            (lambda m: m.update(towels={}), "unknown field `towels`"),
            (lambda m: m.update(towers={}), r"length >= 1 - at `\$.towers`"),
            (lambda m: m["towers"]["imu"].pop("input"), r"towers.imu: .*`input`"),
            (lambda m: m["towers"]["imu"].update(outputs="e"), "towers.imu: .*`outputs`"),
            (lambda m: m["towers"]["imu"].update(kind="torch"), "towers.imu.kind: 'torch' is unk"),
            (lambda m: m["towers"]["imu"].update(kind="space"), "towers.imu.kind: 'space' is unk"),
            (lambda m: m["towers"]["imu"].pop("kind"), "towers.imu.kind: '' must be lower-case"),
            (lambda m: m["towers"]["imu"].update(precision="fp16"), "'fp16' has no file"),
            (
                lambda m: m["towers"]["imu"]["preprocess"].update(name="smell"),
                "towers.imu.preprocess.name: 'smell' is unknown",
            ),
            (
                lambda m: m["towers"]["imu"]["preprocess"]["parameters"].update(hops=3),
                "towers.imu.preprocess.parameters: .*`hops`",
            ),
            (
                lambda m: m["towers"]["imu"]["files"]["fp32"].update(path="../imu.onnx"),
                "towers.imu: Expected `str` matching regex",
            ),
            (
                lambda m: m["towers"]["imu"]["files"]["fp32"].update(sha256="abc"),
                "towers.imu: Expected `str` matching regex",
            ),
        ],
    )
    def test_manifest_that_is_not_right(self, folder: Path, change: Edit, message: str) -> None:
        edit(folder, change)
        with pytest.raises(ConfigError, match=message) as caught:
            open_space(str(folder), CPU)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)

    @pytest.mark.parametrize("text", ["{", "- a list", "", "\x00"])
    def test_manifest_that_is_not_yaml_or_not_a_mapping(self, folder: Path, text: str) -> None:
        (folder / "space.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"space.yaml: ") as caught:
            open_space(str(folder), CPU)
        assert "\n" not in str(caught.value)

    def test_manifest_that_is_not_text(self, folder: Path) -> None:
        (folder / "space.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match=r"space.yaml: cannot be read"):
            open_space(str(folder), CPU)

    def test_sense_it_has_no_tower_for(self, folder: Path) -> None:
        space = open_space(str(folder), CPU)
        for call in (
            lambda: space.encoder("smell"),
            lambda: space.encoder("text"),
            lambda: space.prior(np.zeros(256), "smell"),
            lambda: space.embed_file("x", "smell"),
        ):
            with pytest.raises(ConfigError, match=r"has no tower for .*, expected one of imu"):
                call()

    def test_no_text_tower(self, folder: Path) -> None:
        edit(folder, lambda m: m["towers"].pop("text"))
        with pytest.raises(ConfigError, match="has no text tower"):
            open_space(str(folder), CPU).text_encoder()

    def test_precision_no_tower_has(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match=r"'int4' is in no tower .* one of fp32, int8"):
            open_space(str(folder), RuntimeOptions(precision="int4"))


class TestAlteredFile:
    def flip(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def test_tower(self, folder: Path) -> None:
        self.flip(folder / "imu.onnx")
        encoder = open_space(str(folder), CPU).encoder("imu")
        with pytest.raises(
            ModelMismatch, match=r"imu.onnx: sha256 is [0-9a-f]{12} .*expected 327f0113bdee "
        ):
            encoder.load()
        with pytest.raises(EncodeFailed, match="not loaded"):
            encoder.encode(made_windows("imu", 1))

    @pytest.mark.parametrize("name", ["text_table_int8.npz", "tokenizer.json"])
    def test_text(self, folder: Path, name: str) -> None:
        self.flip(folder / name)
        with pytest.raises(ModelMismatch, match=f"{name}: sha256 is"):
            open_space(str(folder), CPU).text_encoder().load()

    def test_background(self, folder: Path) -> None:
        self.flip(folder / "background.npz")
        with pytest.raises(ModelMismatch, match=r"background.npz: sha256 is"):
            open_space(str(folder), CPU).prior(np.ones(256), "imu")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m["towers"]["imu"].update(input="y"), r"takes \{'input': \(6, 100\)\}"),
            (lambda m: m["towers"]["imu"].update(output="y"), r"gives \{'embedding': \(256,\)\}"),
            (
                lambda m: m.update(dim=128),
                r"gives \{'embedding': \(256,\)\}, expected \{'embedding': \(128,\)\}",
            ),
            (
                lambda m: m["towers"]["imu"]["preprocess"]["parameters"].update(length=80),
                r"expected \{'input': \(6, 80\)\}",
            ),
            (
                lambda m: m["towers"]["imu"]["files"].update(fp32=m["towers"]["text"]["tokenizer"]),
                "onnxruntime cannot load it",
            ),
        ],
    )
    def test_graph_that_is_not_as_the_manifest_says(
        self, folder: Path, change: Edit, message: str
    ) -> None:
        edit(folder, change)
        with pytest.raises(ModelMismatch, match=message) as caught:
            open_space(str(folder), CPU).encoder("imu").load()
        assert "\n" not in str(caught.value)

    def test_table_of_another_size(self, folder: Path) -> None:
        edit(folder, lambda m: m.update(dim=128))
        with pytest.raises(ModelMismatch, match=r"expected \[30522, 128\]"):
            open_space(str(folder), CPU).text_encoder().load()

    def test_table_that_is_none(self, folder: Path) -> None:
        edit(
            folder,
            lambda m: m["towers"]["text"]["files"].update(int8=m["towers"]["text"]["tokenizer"]),
        )
        with pytest.raises(ModelMismatch, match=r"not an .npz with q and scale"):
            open_space(str(folder), CPU).text_encoder().load()


class TestPrior:
    def test_is_what_ordinary_input_gives(self) -> None:
        space = open_space("compact", CPU)
        bank = np.load(COMPACT / "background.npz")["imu"].astype(np.float32)
        vector = bank[0] / np.linalg.norm(bank[0])
        mean, deviation = space.prior(vector, "imu")
        cosines = bank @ vector
        kept = cosines[np.abs(cosines - mean) <= 3 * deviation]
        assert 0 < len(kept) <= len(cosines)
        assert mean == pytest.approx(kept.mean(), abs=1e-5)
        assert deviation == pytest.approx(kept.std(), abs=1e-5)

    def test_a_few_of_what_is_asked_for_do_not_hide_the_rest(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        asked = np.eye(256, dtype=np.float32)[0]
        others = rng.normal(size=(200, 256))
        others[:, 0] = 0.05
        bank = np.concatenate([others, np.tile(asked * 100, (10, 1))])
        bank /= np.linalg.norm(bank, axis=1, keepdims=True)
        write_background(folder, imu=bank.astype(np.float16))
        mean, deviation = open_space(str(folder), CPU).prior(asked, "imu")
        assert mean == pytest.approx(0.0, abs=0.01)
        assert deviation < 0.01

    def test_differs_by_query_and_sense(self) -> None:
        space = open_space("compact", CPU)
        text = space.text_encoder()
        text.load()
        vectors = [e.vector for e in text.encode(["rain", "a dog", "someone walking"])]
        found = {space.prior(vector, sense) for vector in vectors for sense in space.modalities}
        assert len(found) == 15
        assert all(-1 < mean < 1 and 0 < deviation < 0.5 for mean, deviation in found)

    def test_without_a_background_is_that_of_random_directions(self, folder: Path) -> None:
        edit(folder, lambda m: m.pop("background"))
        assert open_space(str(folder), CPU).prior(np.ones(256), "imu") == (0.0, 1 / 16)

    def test_background_of_another_size(self, folder: Path) -> None:
        write_background(folder, imu=np.ones((4, 8), np.float16))
        with pytest.raises(ModelMismatch, match=r"imu is \[4, 8\], expected \[n >= 1, 256\]"):
            open_space(str(folder), CPU).prior(np.ones(256), "imu")

    def test_background_of_another_tower(self, folder: Path) -> None:
        """Replaced as encoders.bind does it: another file of the same sense."""
        versions = dict(open_space(str(folder), CPU).versions)
        bank = np.eye(256, dtype=np.float16)[:4]
        for told in (versions, {"smell": "0" * 12}, {}):
            comment = msgspec.json.encode(told).decode()
            write_npz(folder / "background.npz", {"imu": bank}, comment)
            edit(folder, lambda m: m.update(background=file_entry(folder, "background.npz")))
            assert open_space(str(folder), CPU).background("imu").shape == (4, 1, 256)
        write_npz(folder / "background.npz", {"imu": bank}, msgspec.json.encode(versions).decode())
        other = file_entry(folder, "imu.onnx") | {"sha256": "0" * 64}
        edit(folder, lambda m: m["towers"]["imu"]["files"].update(fp32=other))
        edit(folder, lambda m: m.update(background=file_entry(folder, "background.npz")))
        with pytest.raises(ModelMismatch) as caught:
            open_space(str(folder), CPU).background("imu")
        told = str(caught.value)
        assert f"imu vectors are of tower {versions['imu']}, expected of " in told
        assert told.endswith(f"python -m tools.make_background --space {folder}")


def write_background(folder: Path, **banks: np.ndarray) -> None:
    np.savez(folder / "background.npz", **banks)
    edit(folder, lambda m: m.update(background=file_entry(folder, "background.npz")))


def file_entry(folder: Path, name: str) -> dict[str, Any]:
    content = (folder / name).read_bytes()
    return {"path": name, "bytes": len(content), "sha256": sha256(content).hexdigest()}


class TestEmbedFile:
    def test_names_no_stream(self, folder: Path) -> None:
        golden = Path(__file__).parents[1] / "data" / "compact_golden" / "imu_50hz.csv"
        space = open_space(str(folder), CPU)
        embedding = space.embed_file(str(golden), "imu")
        assert embedding.stream == ""
        assert embedding.space == space.identity
        views = space.embed_views(str(golden), "imu")
        assert views.shape == (3, 256)
        mean = views.mean(axis=0)
        np.testing.assert_allclose(embedding.vector, mean / np.linalg.norm(mean), atol=1e-6)

    def test_file_that_is_not_there(self) -> None:
        with pytest.raises(ConfigError, match=r"nope.wav: cannot be read"):
            open_space("compact", CPU).embed_file("nope.wav", "audio")


class TestExternalData:
    @pytest.fixture
    def split(self, folder: Path) -> Path:
        """`folder` with the weights of its tower in a file of their own."""
        import onnx

        onnx.save(
            onnx.load(folder / "imu.onnx"),
            folder / "imu.onnx",
            save_as_external_data=True,
            location="imu.onnx.data",
        )
        data = file_entry(folder, "imu.onnx.data")
        files = {"fp32": {**file_entry(folder, "imu.onnx"), "data": data}}
        edit(folder, lambda m: m["towers"]["imu"].update(files=files))
        return folder

    def test_gives_the_same_vectors_and_another_identity(self, split: Path) -> None:
        windows = made_windows("imu", 3)
        space, whole = open_space(str(split), CPU), open_space("compact", CPU)
        found = []
        for encoder in (space.encoder("imu"), whole.encoder("imu")):
            encoder.load()
            found.append([embedding.vector for embedding in encoder.encode(windows)])
        np.testing.assert_allclose(*found, atol=1e-6)
        edit(split, lambda m: m["towers"]["imu"]["files"]["fp32"]["data"].update(sha256="0" * 64))
        assert open_space(str(split), CPU).identity != space.identity

    def test_data_that_is_missing(self, split: Path) -> None:
        (split / "imu.onnx.data").unlink()
        with pytest.raises(ModelMissing, match=r"imu.onnx.data: no such file, named in space.yaml"):
            open_space(str(split), CPU)

    def test_data_that_was_altered(self, split: Path) -> None:
        path = split / "imu.onnx.data"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(ModelMismatch, match=r"imu.onnx.data: sha256 is .* expected"):
            open_space(str(split), CPU).encoder("imu").load()

    def test_each_file_is_read_once_a_load(
        self, split: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = []
        unpatched = Path.open

        def spy(path: Path, *args: Any, **kwargs: Any) -> Any:
            opened.append(path.name)
            return unpatched(path, *args, **kwargs)

        encoder = open_space(str(split), CPU).encoder("imu")
        monkeypatch.setattr(Path, "open", spy)
        encoder.load()
        assert sorted(opened) == ["imu.onnx", "imu.onnx.data"]


@pytest.mark.parametrize(
    ("own", "allowed", "expected"), [(None, 4, [4, 1]), (2, 4, [2, 2, 1]), (9, 3, [3, 2])]
)
def test_a_file_may_ask_for_small_batches(
    own: int | None,
    allowed: int,
    expected: list[int],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import onnxruntime

    edit(folder, lambda m: m["towers"]["imu"]["files"]["fp32"].update(max_batch=own))
    encoder = open_space(str(folder), RuntimeOptions(max_batch=allowed)).encoder("imu")
    encoder.load()
    rows = []
    run = onnxruntime.InferenceSession.run

    def spy(session: Any, outputs: Any, feed: dict[str, Any]) -> Any:
        rows.extend(len(batch) for batch in feed.values())
        return run(session, outputs, feed)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", spy)
    encoder.encode(made_windows("imu", 5))
    assert rows == expected


def test_a_batch_of_no_rows_is_refused(folder: Path) -> None:
    edit(folder, lambda m: m["towers"]["imu"]["files"]["fp32"].update(max_batch=0))
    with pytest.raises(ConfigError, match=r">= 1 - at .*max_batch"):
        open_space(str(folder), CPU)
