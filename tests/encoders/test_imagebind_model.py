"""The towers in torch: equal to the published model, strict in what they take, fit to be trained.

What "golden" tests compare with was made by the published model, at a small size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the extra 'export'")
pytest.importorskip("safetensors", reason="needs the extra 'export'")

import torch
from safetensors.torch import save_file
from torch import Tensor

from agent.errors import ConfigError, EncodeFailed
from encoders.imagebind.checkpoint import open_checkpoint
from encoders.imagebind.dims import GEOMETRY, HUGE, TINY, TOWERS, expected_shapes, is_buffer
from encoders.imagebind.model import ImageBind, load
from encoders.imagebind.random_weights import random_checkpoint
from tests.encoders.imagebind_golden import Golden

ABSOLUTE = 2e-5  # of outputs that are up to 20 long
ROUNDING = 1e-6  # of unit vectors
PARAMETERS = 1_200_781_057
END = 49_407
STILLS = "[n, 3, 2, 224, 224] or [n, 3, 1, 224, 224] or [n, 3, 224, 224]"
CLIPS = "[n, clips, 3, 2, 224, 224] or [n, clips, 3, 1, 224, 224]"


def texts(*lengths: int, seed: int = 0) -> Tensor:
    """int64 (n, 77): a start, so many words, an end, and zeros."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((len(lengths), 77), np.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[: length + 2] = [49_406, *rng.integers(256, 49_000, length), END]
    return torch.from_numpy(ids)


def items(tower: str, count: int = 3, seed: int = 0) -> Tensor:
    if tower == "text":
        return texts(*range(3, 3 + count), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *GEOMETRY[tower].input, generator=generator)


@pytest.fixture(scope="module")
def whole() -> ImageBind:
    return load(random_checkpoint(TINY, 5))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class TestGolden:
    @pytest.mark.parametrize("tower", TOWERS)
    def test_golden_outputs(self, golden: Golden, tower: str) -> None:
        cases = golden.of(tower)
        if not cases:
            pytest.skip(f"{golden.folder} has no input of {tower}")
        model = load(open_checkpoint(golden.checkpoint), [tower])
        for name, (given_input, wanted) in cases.items():
            found = model({tower: torch.from_numpy(given_input)})[tower].numpy()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=ABSOLUTE, err_msg=name)

    def test_golden_keys_of_the_published_size(self, shared_data: Path) -> None:
        wanted = set()
        for line in (shared_data / "imagebind_golden" / "keys.txt").read_text().splitlines():
            key, shape, _, kind = line.split("\t")
            wanted.add((key, tuple(int(n) for n in re.findall(r"\d+", shape)), kind))
        assert entries(huge()) == wanted


def huge() -> ImageBind:
    with torch.device("meta"):
        return ImageBind(HUGE)


def entries(model: ImageBind) -> set[tuple[str, tuple[int, ...], str]]:
    parameters = {key for key, _ in model.named_parameters()}
    return {
        (key, tuple(value.shape), "param" if key in parameters else "buffer")
        for key, value in model.state_dict().items()
    }


class TestParts:
    def test_has_the_published_number_of_parameters_and_spends_no_memory_on_them(self) -> None:
        model = huge()
        assert all(value.is_meta for value in model.state_dict().values())
        assert sum(value.numel() for value in model.parameters()) == PARAMETERS

    @pytest.mark.parametrize("tower", TOWERS)
    def test_a_tower_alone_has_its_own_keys_only(self, tower: str) -> None:
        with torch.device("meta"):
            model = ImageBind(HUGE, [tower])
        assert model.towers == (tower,)
        assert entries(model) == {
            (key, shape, "buffer" if is_buffer(key) else "param")
            for key, shape in expected_shapes(tower, HUGE.towers[tower], HUGE.out).items()
        }


class TestLoad:
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_from_either_kind_of_file_without_a_copy(
        self, tmp_path: Path, whole: ImageBind, suffix: str
    ) -> None:
        path = tmp_path / f"tiny{suffix}"
        if suffix == ".pth":
            torch.save(whole.state_dict(), path)
        else:
            save_file(whole.state_dict(), path)
        (tmp_path / "config.json").write_text(
            json.dumps({f"{tower}_num_heads": 4 for tower in TOWERS})
        )
        checkpoint = open_checkpoint(path)
        model = load(checkpoint)
        assert not model.training
        for tower in TOWERS:
            kept = model.state_dict()
            for key, value in checkpoint.tensors(tower).items():
                assert kept[key].data_ptr() == value.data_ptr()
            x = items(tower)
            assert torch.equal(model.vectors(tower, x), whole.vectors(tower, x))

    def test_towers_alone_give_what_they_give_together(self, whole: ImageBind) -> None:
        inputs = {tower: items(tower) for tower in TOWERS}
        together = whole(inputs)
        assert list(together) == list(TOWERS)
        for tower in TOWERS:
            alone = load(random_checkpoint(TINY, 5), [tower])
            assert torch.equal(alone({tower: inputs[tower]})[tower], together[tower])

    def test_a_tower_that_the_checkpoint_lacks_is_refused(self) -> None:
        with pytest.raises(ConfigError) as caught:
            load(random_checkpoint(TINY, 5, ["imu"]), ["imu", "text"])
        assert str(caught.value) == "random-5: has no text tower, expected one of imu"


class TestOutputs:
    @pytest.mark.parametrize("tower", TOWERS)
    def test_are_unit_vectors_times_the_published_scale(self, whole: ImageBind, tower: str) -> None:
        x = items(tower)
        unit, scaled = whole.vectors(tower, x), whole({tower: x})[tower]
        scale = {"vision": 1.0, "text": 1 / 0.07}.get(tower, GEOMETRY[tower].scale)
        assert unit.shape == (3, TINY.out)
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(3), atol=ROUNDING, rtol=0)
        torch.testing.assert_close(scaled, unit * scale, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("tower", TOWERS)
    def test_tell_inputs_apart(self, whole: ImageBind, tower: str) -> None:
        unit = whole.vectors(tower, items(tower, 4))
        cosines = (unit @ unit.T)[~torch.eye(4, dtype=torch.bool)]
        assert cosines.max() < 0.999

    @pytest.mark.parametrize("tower", TOWERS)
    def test_of_a_batch_are_those_of_its_items(self, whole: ImageBind, tower: str) -> None:
        x = items(tower, 4)
        alone = torch.cat([whole.vectors(tower, x[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(whole.vectors(tower, x), alone, atol=ROUNDING, rtol=0)

    def test_a_learned_scale_ends_at_100(self) -> None:
        model = load(random_checkpoint(TINY, 5), ["text"])
        model.get_parameter("modality_postprocessors.text.1.log_logit_scale").fill_(6.0)
        lengths = model({"text": texts(3, 4)})["text"].norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((2,), 100.0))

    @pytest.mark.parametrize("tower", ["vision", "audio", "depth", "thermal"])
    def test_of_clips_are_their_mean_and_not_scaled_again(
        self, whole: ImageBind, tower: str
    ) -> None:
        x = items(tower, 6)
        each = whole({tower: x})[tower].reshape(2, 3, -1)
        found = whole({tower: x.reshape(2, 3, *x.shape[1:])})[tower]
        torch.testing.assert_close(found, each.mean(1), atol=1e-5, rtol=0)
        assert (found.norm(dim=1) < each.norm(dim=2).min() - 1e-3).all()

    def test_a_still_is_a_clip_of_it_twice(self, whole: ImageBind) -> None:
        still = items("vision")[:, :, 0]
        wanted = whole.vectors("vision", still)
        for frames in (1, 2):
            clip = still[:, :, None].repeat(1, 1, frames, 1, 1)
            assert torch.equal(whole.vectors("vision", clip), wanted)

    @settings(max_examples=25)
    @given(
        words=st.integers(1, 74),
        after=st.lists(st.integers(0, END - 1), min_size=75, max_size=75),
    )
    def test_what_follows_a_texts_end_does_not_matter(
        self, whole: ImageBind, words: int, after: list[int]
    ) -> None:
        padded = texts(words)
        other = padded.clone()
        rest = 77 - (words + 2)
        other[0, words + 2 :] = torch.tensor(after[:rest])
        with torch.no_grad():
            found = whole.vectors("text", torch.cat([padded, other]))
        torch.testing.assert_close(found[0], found[1], atol=ROUNDING, rtol=0)


def test_attention_has_one_more_key_and_value_that_are_not_projected(whole: ImageBind) -> None:
    """The IMU's first block, written out in float64."""
    block = whole.modality_trunks["imu"].blocks[0]
    w = {key: value.double().numpy() for key, value in block.state_dict().items()}
    heads, width = TINY.towers["imu"].heads, TINY.towers["imu"].width
    x = np.random.default_rng(0).normal(size=(5, width))

    def layer_norm(values: np.ndarray, name: str) -> np.ndarray:
        centred = values - values.mean(-1, keepdims=True)
        deviation = np.sqrt(values.var(-1, keepdims=True) + 1e-6)
        return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]

    projected = layer_norm(x, "norm_1") @ w["attn.in_proj_weight"].T + w["attn.in_proj_bias"]
    query, key, value = np.split(projected, 3, axis=1)
    key = np.concatenate([key, w["attn.bias_k"][0]])
    value = np.concatenate([value, w["attn.bias_v"][0]])
    mixed = np.empty_like(x)
    for part in np.split(np.arange(width), heads):
        scores = query[:, part] @ key[:, part].T / math.sqrt(width // heads)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        mixed[:, part] = weights / weights.sum(1, keepdims=True) @ value[:, part]
    y = x + mixed @ w["attn.out_proj.weight"].T + w["attn.out_proj.bias"]
    hidden = layer_norm(y, "norm_2") @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"]
    gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    wanted = y + gelu @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    found = block(torch.from_numpy(x).float()[:, None], None)[:, 0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


class TestRefused:
    """Among them what the published model takes, and gives a wrong vector for."""

    @pytest.mark.parametrize(
        ("tower", "shape", "expected"),
        [
            # A third frame, which would be dropped.
            ("vision", (1, 1, 3, 3, 224, 224), CLIPS),
            # A video without clips, which would be read as pictures, and one of pictures.
            ("vision", (1, 3, 3, 224, 224), STILLS),
            ("vision", (2, 5, 3, 224, 224), STILLS),
            ("vision", (2, 3, 4, 224, 224), STILLS),
            ("vision", (1, 3, 224, 448), STILLS),
            ("vision", (1, 3, 252, 252), STILLS),
            ("vision", (3, 224, 224), STILLS),
            ("vision", (2, 0, 3, 2, 224, 224), CLIPS),
            # Two channels of sound; another length.
            ("audio", (1, 2, 128, 204), "[n, 1, 128, 204]"),
            ("audio", (1, 1, 128, 198), "[n, 1, 128, 204]"),
            ("audio", (2, 3, 1, 204, 128), "[n, clips, 1, 128, 204]"),
            ("depth", (1, 3, 224, 224), "[n, 1, 224, 224]"),
            ("thermal", (1, 1, 256, 256), "[n, 1, 224, 224]"),
            # Ticks over would be dropped; clips of it were never published.
            ("imu", (1, 6, 2007), "[n, 6, 2000]"),
            ("imu", (1, 6, 1000), "[n, 6, 2000]"),
            ("imu", (1, 2000, 6), "[n, 6, 2000]"),
            ("imu", (1, 2, 6, 2000), "[n, 6, 2000]"),
        ],
    )
    def test_another_shape(
        self, whole: ImageBind, tower: str, shape: tuple[int, ...], expected: str
    ) -> None:
        with pytest.raises(EncodeFailed) as caught:
            whole({tower: torch.zeros(shape)})
        assert str(caught.value) == (
            f"{tower} input is float32{list(shape)}, expected float{expected}"
        )

    def test_a_text_that_is_no_batch_of_77(self, whole: ImageBind) -> None:
        for ids in (texts(3)[0], texts(3)[:, :20], texts(3)[:, None]):
            with pytest.raises(EncodeFailed, match=r"^text input is int64\[.* int64\[n, 77\]$"):
                whole({"text": ids})

    def test_another_dtype(self, whole: ImageBind) -> None:
        with pytest.raises(
            EncodeFailed, match=r"^text input is float32.*, expected int64\[n, 77\]$"
        ):
            whole({"text": texts(3).float()})
        with pytest.raises(EncodeFailed, match=r"^imu input is int64.*, expected float\["):
            whole({"imu": torch.zeros(1, 6, 2000, dtype=torch.int64)})

    def test_vectors_take_no_clips(self, whole: ImageBind) -> None:
        with pytest.raises(EncodeFailed, match=r"expected float\[n, 1, 128, 204\]$"):
            whole.vectors("audio", torch.zeros(1, 3, 1, 128, 204))
        with pytest.raises(EncodeFailed, match=r"^vision input is float32\[1, 3, 3, 2, 224, 224\]"):
            whole.vectors("vision", torch.zeros(1, 3, 3, 2, 224, 224))

    def test_a_tower_it_does_not_have(self) -> None:
        model = load(random_checkpoint(TINY, 5), ["imu", "depth"])
        with pytest.raises(EncodeFailed, match=r"^no text tower, expected one of imu, depth$"):
            model.vectors("text", texts(3))
        with pytest.raises(EncodeFailed, match=r"^no smell tower, expected one of imu, depth$"):
            model({"smell": texts(3)})


class TestTraining:
    """Fine-tuning starts from this model."""

    @pytest.mark.parametrize("tower", TOWERS)
    def test_gradients_reach_every_parameter(self, tower: str) -> None:
        model = load(random_checkpoint(TINY, 5), [tower])
        direction = torch.randn(TINY.out, generator=torch.Generator().manual_seed(1))
        with torch.enable_grad():
            (model({tower: items(tower, 2)})[tower] @ direction).sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().max() > 0, key

    def test_dropout_is_of_the_imu_in_training_only(self) -> None:
        model = load(random_checkpoint(TINY, 5))
        for tower in TOWERS:
            x = items(tower, 2)
            still = model.eval().vectors(tower, x)
            trained = model.train().vectors(tower, x)
            assert torch.equal(still, trained) == (tower != "imu")
            assert torch.equal(model.eval().vectors(tower, x), still)

    def test_a_step_changes_the_vectors_and_not_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "imu.safetensors"
        save_file(random_checkpoint(TINY, 5).tensors("imu"), path)
        (tmp_path / "config.json").write_text('{"imu_num_heads": 4}')
        before = path.read_bytes()
        model = load(open_checkpoint(path))
        x = items("imu", 2)
        old = model.vectors("imu", x)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        with torch.enable_grad():
            (old[0] @ model.vectors("imu", x)[1]).backward()
        optimiser.step()
        new = model.vectors("imu", x)
        assert old[0] @ new[1] < old[0] @ old[1]
        assert path.read_bytes() == before
