"""Fixtures for every test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("agent", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agent")

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The recordings and training data that are not committed: SENSEBIND_DATA, or beside us."""
    folder = Path(os.environ.get("SENSEBIND_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}: set SENSEBIND_DATA to the shared data folder")
    return folder
