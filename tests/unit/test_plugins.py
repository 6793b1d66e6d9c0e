"""plugins: one kind, one class, and an error where that is not so."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

from agent import plugins
from agent.errors import ConfigError
from tests.fakes.driver import FakePlugin

GROUP = "sensebind.drivers"
FAKE = EntryPoint("fake", "tests.fakes.driver:FakePlugin", GROUP)


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    def entry_points(group: str) -> list[EntryPoint]:
        return [point for point in points if point.group == group]

    monkeypatch.setattr(plugins, "entry_points", entry_points)


def test_our_own_kinds_are_the_modules_with_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    found = plugins.find("drivers")
    assert found["synthetic"] == "drivers.synthetic"
    assert not any(kind.startswith("_") for kind in found)
    assert plugins.load("drivers", "synthetic") is sys.modules["drivers.synthetic"].PLUGIN


def test_a_package_may_bring_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FAKE)
    assert plugins.find("drivers")["fake"] == "tests.fakes.driver:FakePlugin"
    assert "fake" not in plugins.find("encoders"), "each group has its own"
    assert plugins.load("drivers", "fake") is FakePlugin


@pytest.mark.parametrize(
    ("points", "places"),
    [
        ([FAKE, EntryPoint("fake", "other:Driver", GROUP)], "tests.*FakePlugin, other:Driver"),
        ([EntryPoint("synthetic", "other:Driver", GROUP)], "drivers.synthetic, other:Driver"),
    ],
)
def test_a_kind_offered_twice_is_refused(
    points: list[EntryPoint], places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, *points)
    with pytest.raises(ConfigError, match=f"is offered by {places}; uninstall all but one"):
        plugins.find("drivers")


def test_an_unknown_kind_is_said_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FAKE)
    with pytest.raises(ConfigError, match=r"kind: got 'fakd', expected one of .*fake.*synthetic"):
        plugins.load("drivers", "fakd")


@pytest.mark.parametrize("value", ["no_such_package:Driver", "tests.fakes.driver:NoSuchDriver"])
def test_a_broken_package_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, EntryPoint("broken", value, GROUP))
    with pytest.raises(ConfigError, match=f"kind: 'broken' of {value} cannot be loaded: .*No"):
        plugins.load("drivers", "broken")
