"""What a training reckons in, by what the machine has."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra 'bind'")

import torch

from encoders.bind.precision import half_type, training_device


def test_it_is_plain_on_a_cpu_and_a_gpu_is_taken_where_there_is_one() -> None:
    assert half_type(torch.device("cpu")) is None
    there = torch.cuda.is_available()
    assert training_device().type == ("cuda" if there else "cpu")
    assert (half_type(training_device()) is not None) == there


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_a_gpu_without_bfloat16_of_its_own_gets_float16(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation
    )
    assert half_type(torch.device("cuda")) is expected
