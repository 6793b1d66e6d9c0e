"""Fixtures for tests of encoders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.encoders.imagebind_golden import Golden


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Golden:
    """SENSEBIND_GOLDEN_DIR, or the one among the shared data."""
    folder = os.environ.get("SENSEBIND_GOLDEN_DIR")
    if folder:
        return Golden(Path(folder))
    return Golden(request.getfixturevalue("shared_data") / "imagebind_golden" / "tiny")
