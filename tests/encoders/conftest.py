"""Fixtures for tests of encoders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.encoders.imagebind_golden import Golden


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """SENSEBIND_GOLDEN_DIR, or the one among the shared data; itself, or its only folder."""
    given = os.environ.get("SENSEBIND_GOLDEN_DIR")
    if not given:
        return Golden(request.getfixturevalue("shared_data") / "imagebind_golden" / "tiny")
    found = sorted(path.parent for path in Path(given).glob("**/state_dict.safetensors"))
    assert len(found) == 1, f"SENSEBIND_GOLDEN_DIR={given}: {len(found)} state_dict.safetensors"
    return Golden(found[0])
