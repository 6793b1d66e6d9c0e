"""Checkpoints: what is read off them, and every one that is refused, in one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the extra 'export'")
pytest.importorskip("safetensors", reason="needs the extra 'export'")

import torch
from safetensors.torch import save_file
from torch import Tensor

from agent.errors import AgentError, ConfigError, ModelMismatch, ModelMissing
from encoders.imagebind import checkpoint as module
from encoders.imagebind.checkpoint import Checkpoint, open_checkpoint
from encoders.imagebind.dims import HUGE, TINY, TOWERS, Dims, TowerDims, expected_shapes
from encoders.imagebind.random_weights import random_checkpoint

SMALL = ("depth", "imu")  # quickly written
SUFFIXES = (".pth", ".safetensors")


def everything(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {k: v for tower in checkpoint.towers for k, v in checkpoint.tensors(tower).items()}


def config_of(dims: Dims) -> dict[str, int]:
    """As the published model's configuration is written."""
    fields = {"out_embed_dim": dims.out}
    for tower, size in dims.towers.items():
        fields[f"{tower}_embed_dim"] = size.width
        fields[f"{tower}_num_blocks"] = size.blocks
        fields[f"{tower}_num_heads"] = size.heads
    return fields


def write(path: Path, tensors: Mapping[str, Any], config: object = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(dict(tensors), path)
    else:
        torch.save(dict(tensors), path)
    text = config_of(TINY) if config is None else config
    path.with_name("config.json").write_text(json.dumps(text))
    return path


def refusal(kind: type[AgentError], path: Path, config: Path | None = None) -> str:
    """What is said of a file that is refused, without where it is."""
    with pytest.raises(kind) as caught:
        open_checkpoint(path, config)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


@pytest.fixture
def small() -> dict[str, Tensor]:
    return everything(random_checkpoint(TINY, 3, SMALL))


class TestRead:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_what_was_written_is_read(self, tmp_path: Path, suffix: str) -> None:
        made = random_checkpoint(TINY, 3)
        path = write(tmp_path / f"all{suffix}", everything(made))
        found = open_checkpoint(path)
        assert (found.name, found.dims, found.towers) == (path.name, TINY, TOWERS)
        for tower in TOWERS:
            tensors, wanted = found.tensors(tower), made.tensors(tower)
            assert tensors.keys() == expected_shapes(tower, TINY.towers[tower], TINY.out).keys()
            assert all(torch.equal(tensors[key], wanted[key]) for key in wanted)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_read_as_float32(
        self, tmp_path: Path, small: dict[str, Tensor], suffix: str, dtype: torch.dtype
    ) -> None:
        half = {key: value.to(dtype) for key, value in small.items()}
        read = everything(open_checkpoint(write(tmp_path / f"half{suffix}", half)))
        for key, value in half.items():
            assert read[key].dtype == torch.float32
            assert torch.equal(read[key], value.float())

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_weights_are_the_files_own_pages(
        self, tmp_path: Path, small: dict[str, Tensor], suffix: str
    ) -> None:
        path = write(tmp_path / f"mapped{suffix}", small)
        before = path.read_bytes()
        found = open_checkpoint(path)
        if hasattr(psutil.Process, "memory_maps"):  # not on every system
            assert str(path) in [region.path for region in psutil.Process().memory_maps()]
        first, again = found.tensors("imu"), found.tensors("imu")
        assert all(first[key].data_ptr() == again[key].data_ptr() for key in first)
        for value in first.values():
            value.fill_(7.0)
        assert path.read_bytes() == before

    def test_towers_are_those_of_the_file_in_the_usual_order(
        self, tmp_path: Path, small: dict[str, Tensor]
    ) -> None:
        found = open_checkpoint(write(tmp_path / "two.pth", dict(reversed(small.items()))))
        assert found.towers == SMALL
        with pytest.raises(ConfigError) as caught:
            found.tensors("text")
        assert str(caught.value) == "two.pth: has no text tower, expected one of depth, imu"


class TestHeads:
    """They are not in the shapes."""

    def test_a_configuration_that_is_given_goes_before_the_one_beside(
        self, tmp_path: Path, small: dict[str, Tensor]
    ) -> None:
        path = write(tmp_path / "two.pth", small)
        other = tmp_path / "other.json"
        other.write_text(json.dumps({"depth_num_heads": 2, "imu_num_heads": 8}))
        assert open_checkpoint(path).dims.towers["imu"].heads == 4
        found = open_checkpoint(path, other).dims.towers
        assert (found["depth"].heads, found["imu"].heads) == (2, 8)

    def test_the_published_size_needs_no_configuration(
        self, tmp_path: Path, small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        published = Dims(TINY.out, {**TINY.towers, "imu": TowerDims(32, 2, 16)})
        monkeypatch.setattr(module, "HUGE", published)
        path = write(tmp_path / "two.pth", small, {"unrelated": True})
        assert open_checkpoint(path).dims.towers["imu"] == published.towers["imu"]
        path.with_name("config.json").unlink()
        assert open_checkpoint(path).dims.towers["imu"] == published.towers["imu"]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"depth_num_heads": None},
                "config.json: depth_num_heads is not given, expected a divisor of 32: "
                "two.pth's depth tower is not of published size",
            ),
            (
                {"depth_num_heads": 5},
                "config.json: depth_num_heads is 5, expected a divisor of 32: "
                "two.pth's depth tower is not of published size",
            ),
            ({"imu_embed_dim": 64}, "config.json: imu_embed_dim is 64, expected 32 as in two.pth"),
            ({"imu_num_blocks": 6}, "config.json: imu_num_blocks is 6, expected 2 as in two.pth"),
            ({"out_embed_dim": 9}, "config.json: out_embed_dim is 9, expected 48 as in two.pth"),
        ],
    )
    def test_a_configuration_that_does_not_fit_is_refused(
        self, tmp_path: Path, small: dict[str, Tensor], change: dict[str, int | None], said: str
    ) -> None:
        fields = {k: v for k, v in {**config_of(TINY), **change}.items() if v is not None}
        assert refusal(ConfigError, write(tmp_path / "two.pth", small, fields)) == said

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("[]", "holds a list, expected a JSON object"),
            ("{", "cannot be read (Expecting property name enclosed in double quotes"),
            (None, "cannot be read ([Errno 2] No such file or directory"),
        ],
    )
    def test_a_configuration_that_is_none_is_refused(
        self, tmp_path: Path, small: dict[str, Tensor], content: str | None, said: str
    ) -> None:
        given_config = tmp_path / "given.json"
        if content is not None:
            given_config.write_text(content)
        message = refusal(ConfigError, write(tmp_path / "two.pth", small), given_config)
        assert message.startswith(f"given.json: {said}")
        assert message.endswith("expected a JSON object")


class TestRefused:
    def test_a_file_that_is_not_there_or_a_folder(self, tmp_path: Path) -> None:
        assert refusal(ModelMissing, tmp_path / "none.pth") == (
            "none.pth: cannot be read (No such file or directory), expected an ImageBind checkpoint"
        )
        assert refusal(ModelMissing, tmp_path).endswith(
            ": cannot be read (Is a directory), expected an ImageBind checkpoint"
        )

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @given(part=st.floats(0, 1, exclude_max=True))
    def test_a_file_cut_anywhere(
        self, tmp_path_factory: pytest.TempPathFactory, suffix: str, part: float
    ) -> None:
        folder = tmp_path_factory.mktemp("cut")
        whole = write(folder / f"whole{suffix}", everything(random_checkpoint(TINY, 3, ["imu"])))
        content = whole.read_bytes()
        cut = folder / f"cut{suffix}"
        cut.write_bytes(content[: int(part * len(content))])
        message = refusal(ModelMismatch, cut)
        assert message.startswith(f"cut{suffix}: {cut.stat().st_size} bytes")
        if suffix == ".pth" and cut.stat().st_size >= 4:
            assert "cut short: its end is missing" in message

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_another_kind_of_file(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"page{suffix}"
        path.write_text("<!DOCTYPE html><html>please sign in</html>")
        message = refusal(ModelMismatch, path)
        assert message.startswith(f"page{suffix}: 42 bytes")
        assert ("not a checkpoint" if suffix == ".pth" else "as safetensors (") in message

    def test_objects_beside_tensors_and_their_code_is_not_run(self, tmp_path: Path) -> None:
        path = tmp_path / "objects.pth"
        torch.save({"model": _MakesFolder(tmp_path / "run")}, path)
        assert refusal(ModelMismatch, path) == (
            "objects.pth: holds a Python object (posix.mkdir), expected tensors only"
        )
        assert not (tmp_path / "run").exists()

    def test_a_damaged_pickle(self, tmp_path: Path, small: dict[str, Tensor]) -> None:
        path = write(tmp_path / "bad.pth", small)
        content = path.read_bytes()
        start = content.index(b"_rebuild_tensor_v2")
        path.write_bytes(content[:start] + b"\xff" + content[start + 1 :])
        assert refusal(ModelMismatch, path).startswith("bad.pth: ")

    def test_something_else_of_torch(self, tmp_path: Path) -> None:
        path = tmp_path / "list.pth"
        torch.save([torch.zeros(3)], path)
        assert refusal(ModelMismatch, path) == (
            "list.pth: holds a list, expected a dictionary of tensors"
        )

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(
        ("key", "whose"),
        [
            ("blocks.0.weight", "not ImageBind"),
            ("vision_model.encoder.layers.0.norm.weight", "has Transformers' names"),
        ],
    )
    def test_another_model(self, tmp_path: Path, suffix: str, key: str, whose: str) -> None:
        path = write(tmp_path / f"other{suffix}", {key: torch.zeros(3)})
        assert refusal(ModelMismatch, path) == (
            f"other{suffix}: {whose} (1 entries, first {key}), expected the official names "
            "(modality_trunks.vision...), as in imagebind_huge.pth or its safetensors mirror"
        )

    def test_nothing(self, tmp_path: Path) -> None:
        assert "(0 entries, first nothing)" in refusal(
            ModelMismatch, write(tmp_path / "empty.pth", {})
        )

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_missing_key(self, tmp_path: Path, small: dict[str, Tensor], suffix: str) -> None:
        del small["modality_heads.imu.3.weight"]
        assert refusal(ModelMismatch, write(tmp_path / f"less{suffix}", small)) == (
            f"less{suffix}: keys 1 missing (modality_heads.imu.3.weight), "
            "expected the 74 of ImageBind's depth, imu"
        )

    def test_a_tower_in_part_and_unknown_keys(
        self, tmp_path: Path, small: dict[str, Tensor]
    ) -> None:
        trunk = "modality_trunks.text.blocks.0.norm_1"
        extra = {f"{trunk}.weight": torch.ones(32), "epoch": 3, "modality_heads.imu.9": 1}
        message = refusal(ModelMismatch, write(tmp_path / "more.pth", {**small, **extra}))
        pre = "modality_preprocessors.text"
        assert message == (
            f"more.pth: keys 18 missing ({pre}.pos_embed, {pre}.mask, "
            f"{pre}.token_embedding.weight, ...) and 2 unknown (epoch, modality_heads.imu.9), "
            "expected the 93 of ImageBind's text, depth, imu"
        )

    def test_a_block_that_is_missing_is_not_a_shorter_trunk(
        self, tmp_path: Path, small: dict[str, Tensor]
    ) -> None:
        less = {k: v for k, v in small.items() if not k.startswith("modality_trunks.imu.blocks.0")}
        message = refusal(ModelMismatch, write(tmp_path / "less.pth", less))
        assert "keys 14 missing (modality_trunks.imu.blocks.0.norm_1.weight, " in message

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(
        ("key", "value", "found", "shape"),
        [
            ("modality_heads.imu.3.weight", torch.zeros(47, 32), "float32[47, 32]", "[48, 32]"),
            ("modality_heads.imu.3.weight", torch.zeros(()), "float32[]", "[48, 32]"),
            (
                "modality_preprocessors.imu.cls_token",
                torch.zeros(1, 32),
                "float32[1, 32]",
                "[1, 1, 32]",
            ),
            (
                "modality_trunks.imu.blocks.1.norm_1.weight",
                torch.zeros(31),
                "float32[31]",
                "[32]",
            ),
            (
                "modality_trunks.imu.blocks.0.mlp.fc1.bias",
                torch.zeros(128, dtype=torch.int32),
                None,
                "[128]",
            ),
        ],
    )
    def test_a_wrong_shape_or_dtype(
        self,
        tmp_path: Path,
        small: dict[str, Tensor],
        suffix: str,
        key: str,
        value: Tensor,
        found: str | None,
        shape: str,
    ) -> None:
        path = write(tmp_path / f"wrong{suffix}", {**small, key: value})
        found = found or ("int32[128]" if suffix == ".pth" else "I32[128]")
        assert refusal(ModelMismatch, path) == (
            f"wrong{suffix}: {key} is {found}, expected float32{shape}"
        )

    def test_of_many_wrong_shapes_the_first_is_named(
        self, tmp_path: Path, small: dict[str, Tensor]
    ) -> None:
        wrong = {k: v[..., None] if k.endswith("fc1.bias") else v for k, v in small.items()}
        message = refusal(ModelMismatch, write(tmp_path / "wrong.pth", wrong))
        assert re.fullmatch(
            r"wrong.pth: \S+blocks.0.mlp.fc1.bias is .*float32\[128\] \(and 3 more\)", message
        )


class _MakesFolder:
    """A pickle of it makes a folder when it is read by a reader that runs what it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class TestRandom:
    @given(seed=st.integers(0, 2**31), chosen=st.sets(st.sampled_from(SMALL), min_size=1))
    def test_a_tower_depends_on_the_seed_alone(self, seed: int, chosen: set[str]) -> None:
        some = random_checkpoint(TINY, seed, tuple(chosen))
        assert some.towers == tuple(tower for tower in SMALL if tower in chosen)
        whole, other = random_checkpoint(TINY, seed), random_checkpoint(TINY, seed + 1)
        for tower in some.towers:
            made, again, different = (c.tensors(tower) for c in (some, whole, other))
            shapes = expected_shapes(tower, TINY.towers[tower], TINY.out)
            assert {key: tuple(value.shape) for key, value in made.items()} == shapes
            assert all(torch.equal(value, again[key]) for key, value in made.items())
            assert not any(
                torch.equal(value, different[key])
                for key, value in made.items()
                if value.ndim  # the scales are fixed
            )

    def test_towers_of_one_seed_are_not_drawn_alike(self) -> None:
        made = random_checkpoint(TINY, 0)
        first = "modality_preprocessors.{}.cls_token".format
        assert not torch.equal(
            made.tensors("audio")[first("audio")], made.tensors("thermal")[first("thermal")]
        )

    def test_what_is_fixed_is_as_published(self) -> None:
        made = random_checkpoint(TINY, 0)
        scales = {
            tower: made.tensors(tower)[f"modality_postprocessors.{tower}.1.log_logit_scale"].exp()
            for tower in TOWERS
            if tower != "vision"
        }
        assert {tower: round(float(scale), 3) for tower, scale in scales.items()} == {
            "text": 14.286,
            "audio": 20.0,
            "depth": 5.0,
            "thermal": 10.0,
            "imu": 5.0,
        }
        mask = made.tensors("text")["modality_preprocessors.text.mask"]
        assert mask[3, 3] == 0
        assert mask[3, 2] == 0
        assert mask[3, 4] == float("-inf")

    def test_no_tower_is_made_before_it_is_asked_for(self) -> None:
        huge = random_checkpoint(HUGE, 0)  # 4.8 GB, were it made
        assert huge.towers == TOWERS
        made = huge.tensors("imu")
        assert sum(value.numel() for value in made.values()) == 19_600_384 + 1
