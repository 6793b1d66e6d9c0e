"""A plug-in's name to its class: a module here first, then the entry points of other packages."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from agent.errors import ConfigError
from agent.types import check_name

__all__ = ["find_plugin"]


def find_plugin(name: str, package: str, group: str, field: str) -> Any:
    """The object that `name` stands for: `PLUGIN` of module `package`.`name`, or an entry point.

    group: the entry-point group other distributions register in. field: what named it, for the
    error. Raises ConfigError where there is no such plug-in, or more than one.
    """
    check_name(name, field)
    found: list[tuple[str, Any]] = []
    if find_spec(f"{package}.{name}") is not None:
        plugin = getattr(import_module(f"{package}.{name}"), "PLUGIN", None)
        if plugin is not None:
            found.append((f"{package}.{name}", plugin))
    points = [point for point in entry_points(group=group) if point.name == name]
    if len(found) + len(points) > 1:
        places = [place for place, _ in found] + [point.value for point in points]
        raise ConfigError(f"{field}: {name!r} is given by {' and by '.join(places)}, expected one")
    if points:
        return points[0].load()
    if not found:
        raise ConfigError(
            f"{field}: {name!r} is unknown, expected a module of {package} with PLUGIN "
            f"or an entry point of the group {group}"
        )
    return found[0][1]
