"""The benchmark's yardstick does what the published model does, or a ratio to it says nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'export'")
pytest.importorskip("safetensors", reason="needs the extra 'export'")

import torch
from PIL import Image

from encoders.imagebind.checkpoint import open_checkpoint
from encoders.imagebind.dims import HUGE, TOWERS
from tests.encoders.imagebind_golden import Golden
from tools.benches.imagebind_figures import gflop
from tools.benches.plain_imagebind import plain_forward, plain_log_mel, plain_picture

# GFLOP of one item at the published size, by torch's own counter.
COUNTED = {"vision": 335.0, "text": 47.1, "audio": 40.9, "thermal": 35.0, "depth": 9.1, "imu": 10.3}


@pytest.mark.parametrize("tower", TOWERS)
def test_plain_forward_gives_the_golden_outputs(golden: Golden, tower: str) -> None:
    cases = golden.of(tower)
    if not cases:
        pytest.skip(f"{golden.folder}: no input of {tower}")
    checkpoint = open_checkpoint(golden.checkpoint)
    tensors, dims = checkpoint.tensors(tower), checkpoint.dims.towers[tower]
    for name, (given, wanted) in cases.items():
        found = plain_forward(tower, tensors, dims, torch.from_numpy(given))
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2e-5, err_msg=name)


def test_plain_log_mel_gives_the_golden_ones(shared_data: Path) -> None:
    folder = shared_data / "imagebind_golden" / "preprocess"
    with (
        np.load(folder / "audio_waveforms_16k.npz") as waveforms,
        np.load(folder / "audio_melspec.npz") as wanted,
    ):
        for name in waveforms.files:
            found = plain_log_mel(torch.from_numpy(waveforms[name]))
            np.testing.assert_allclose(found.numpy(), wanted[name], atol=2e-3, err_msg=name)


def test_plain_picture_gives_the_golden_ones(shared_data: Path) -> None:
    folder = shared_data / "imagebind_golden" / "preprocess"
    with np.load(folder / "image_tensors.npz") as wanted:
        for name in wanted.files:
            with Image.open(folder / f"{Path(name).stem}.png") as picture:
                found = plain_picture(np.asarray(picture.convert("RGB")))
            np.testing.assert_allclose(found.numpy(), wanted[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("tower", TOWERS)
def test_gflop_is_what_was_counted(tower: str) -> None:
    assert round(gflop(tower, HUGE.towers[tower], HUGE.out), 1) == COUNTED[tower]


def test_gflop_of_a_short_text_and_of_a_pooled_last_block() -> None:
    text, imu = HUGE.towers["text"], HUGE.towers["imu"]
    whole = gflop("text", text, HUGE.out)
    assert gflop("text", text, HUGE.out, tokens=8) == pytest.approx(whole * 8 / 77, rel=0.02)
    saved = 1 - gflop("imu", imu, HUGE.out, pooled_last=True) / gflop("imu", imu, HUGE.out)
    assert saved == pytest.approx(0.14, abs=0.01)  # 5/6 of one block's weights, of six blocks
