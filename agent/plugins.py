"""From a kind in the config to a class, by one rule.

`kind: media` is the module `drivers.media`, whose `PLUGIN` is the class; failing that, the entry
point `media` of the group `sensebind.drivers` in an installed package. The same kind in both, or
in two packages, is an error: which one ran would depend on the order of installation.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from agent.contracts import RuntimeOptions, Space
from agent.errors import ConfigError

__all__ = ["find", "list_spaces", "load", "open_space"]

GROUPS = ("drivers", "encoders")


def find(group: str) -> dict[str, str]:
    """Kinds of `group` ("drivers" or "encoders") -> where each comes from; raises on a clash."""
    package = importlib.import_module(group)
    own = {
        name: f"{group}.{name}"
        for _, name, _ in pkgutil.iter_modules(package.__path__)
        if hasattr(importlib.import_module(f"{group}.{name}"), "PLUGIN")
    }
    return own | {kind: point.value for kind, point in _entry_points(group, own).items()}


def load(group: str, kind: str) -> Any:
    """The class of a kind. Raises ConfigError for an unknown or ambiguous kind."""
    known = find(group)
    if kind not in known:
        raise ConfigError(f"kind: got {kind!r}, expected one of {', '.join(sorted(known))}")
    if known[kind] == f"{group}.{kind}":
        return importlib.import_module(known[kind]).PLUGIN
    point = _entry_points(group, {})[kind]
    try:
        return point.load()
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"kind: {kind!r} of {point.value} cannot be loaded: {exc}") from exc


def open_space(path: str, options: RuntimeOptions) -> Space:
    """Open a model folder, or the space of that name that ships with the project."""
    space: Space = importlib.import_module("encoders.space").open_space(path, options)
    return space


def list_spaces() -> list[Space]:
    """The spaces that ship with the project, opened but not loaded."""
    models = importlib.import_module("encoders.models")
    names = [name for _, name, is_package in pkgutil.iter_modules(models.__path__) if is_package]
    return [open_space(name, RuntimeOptions()) for name in sorted(names)]


def _entry_points(group: str, own: dict[str, str]) -> dict[str, EntryPoint]:
    points = list(entry_points(group=f"sensebind.{group}"))
    count = Counter([*own, *(point.name for point in points)])
    for kind, times in count.items():
        if times > 1:
            places = [own[kind]] if kind in own else []
            places += [point.value for point in points if point.name == kind]
            raise ConfigError(
                f"kind {kind!r} is offered by {', '.join(places)}; uninstall all but one"
            )
    return {point.name: point for point in points}
