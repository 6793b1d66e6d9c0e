"""Fixtures for tests of drivers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.fakes.portaudio import FakeSounddevice
from tests.fakes.pulse import PulseServer


@pytest.fixture(scope="module")
def pulse_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulseServer]:
    """A sound server that this process would find; it does not run."""
    server = PulseServer(tmp_path_factory.mktemp("pulse"))
    with pytest.MonkeyPatch.context() as environment:
        server.use(environment)
        yield server
        server.stop()


@pytest.fixture
def pulse(pulse_home: PulseServer) -> Iterator[PulseServer]:
    """The same, running."""
    pulse_home.start()
    yield pulse_home
    pulse_home.stop()


@pytest.fixture
def sd(monkeypatch: pytest.MonkeyPatch) -> FakeSounddevice:
    """A made-up PortAudio in place of the real one."""
    fake = FakeSounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake
