from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from agent.errors import ConfigError
from encoders import registry
from encoders.registry import find_plugin
from encoders.table import TextTable
from encoders.tower import OnnxTower

GROUP = "sensebind.encoders"


def points(monkeypatch: pytest.MonkeyPatch, *found: EntryPoint) -> None:
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [p for p in found if p.group == group]
    )


def find(name: str) -> object:
    return find_plugin(name, "encoders", GROUP, "towers.imu.kind")


def test_own_modules() -> None:
    assert find("tower") is OnnxTower
    assert find("table") is TextTable


def test_entry_point_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    points(
        monkeypatch,
        EntryPoint("smell", "collections:Counter", GROUP),
        EntryPoint("tower", "collections:Counter", "another.group"),
    )
    from collections import Counter

    assert find("smell") is Counter
    assert find("tower") is OnnxTower


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tower", [EntryPoint("tower", "other:Tower", GROUP)]),
        ("smell", [EntryPoint("smell", "a:A", GROUP), EntryPoint("smell", "b:B", GROUP)]),
    ],
)
def test_two_of_a_name_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, found: list[EntryPoint]
) -> None:
    points(monkeypatch, *found)
    with pytest.raises(ConfigError, match=f"towers.imu.kind: '{name}' is given by .* and by "):
        find(name)


@pytest.mark.parametrize("name", ["smell", "registry", "preprocess", "a.b", "../x", ""])
def test_unknown_or_impossible_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"towers\.imu\.kind: "):
        find(name)
