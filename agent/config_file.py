"""YAML in, a checked Config out; a mistake is one line: file:line, field, value, expected.

Everything is checked here, before any device opens: syntax, unknown and repeated fields, types,
ranges, kinds of drivers and their own settings, names, and paths made absolute.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os.path
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from agent import plugins
from agent.config import Config, ConfigFile, DriverConfig, DriverEntry
from agent.errors import ConfigError
from agent.explain import Place, explain
from agent.redact import redact_text
from agent.types import NAME_PATTERN, check_name

__all__ = ["build_config", "config_schema", "convert_section", "load_config"]

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as a text, for want of a dot; everybody means the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class _Source:
    """Where a config came from, to say of a field which line or option set it."""

    def __init__(self, name: str, base: Path) -> None:
        self.name, self.base = name, base
        self._set_by: dict[Place, str] = {}

    def note_line(self, place: Place, line: int) -> None:
        self._set_by[place] = f"{self.name}:{line}"

    def note_option(self, place: Place, option: str) -> None:
        kept = {p: by for p, by in self._set_by.items() if p[: len(place)] != place}
        self._set_by = {**kept, place: option}

    def error(self, place: Place, text: str) -> ConfigError:
        prefixes = (place[:n] for n in range(len(place), 0, -1))
        setters = [self._set_by[p] for p in prefixes if p in self._set_by]
        # An option may have made a field that is only a part of its own place.
        setters += [by for p, by in self._set_by.items() if p[: len(place)] == place]
        where = setters[0] if setters else self.name
        field = f"{_dotted(place)}: " if place else ""
        return ConfigError(f"{where}: {field}{redact_text(text)}")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read `path`, apply `a.b=c` overrides, check everything. Raises ConfigError."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(f"{path}: no such config file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read as text: {exc}") from exc
    source = _Source(str(path), file.resolve().parent)
    try:
        node = yaml.compose(text, _Loader)
        _locate(node, (), source)
        raw = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as exc:  # ValueError: a date such as 2026-02-30
        mark = getattr(exc, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = " ".join(str(getattr(exc, "problem", exc)).split())
        raise ConfigError(f"{where}: not YAML: {problem}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{path}: nested too deep, or an alias that holds itself") from exc
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: the top is a {type(raw).__name__}, expected 'drivers:' and such"
        )
    return build_config(raw, overrides, source=source)


def build_config(
    raw: dict[str, Any], overrides: Sequence[str] = (), source: _Source | None = None
) -> Config:
    """Check a config that is already decoded; `source` says where to resolve paths and blame."""
    source = source or _Source("config", Path.cwd())
    raw = copy.deepcopy(raw)
    for override in overrides:
        _override(raw, override, source)
    _check_plain(raw, (), source)
    file = _convert(raw, ConfigFile, (), source)
    if not re.fullmatch(NAME_PATTERN, file.space.path):  # a bare name is a space that ships
        folder = source.base / os.path.expanduser(file.space.path)
        space = msgspec.structs.replace(file.space, path=str(folder))
        file = msgspec.structs.replace(file, space=space)
    drivers = tuple(_driver(name, dict(d), source) for name, d in file.drivers.items())
    _check_queries(file, source)
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return Config(file=file, drivers=drivers, digest=digest)


def convert_section(raw: Any, kind: type[T], name: str) -> T:
    """Check one part of a config that came over the control channel. Raises ConfigError."""
    source = _Source(name, Path.cwd())
    _check_plain(raw, (), source)
    return _convert(raw, kind, (), source)


def config_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a config with every installed driver's fields, for editors."""
    schema = msgspec.json.schema(ConfigFile, schema_hook=_schema_hook)
    choices = []
    for kind in sorted(plugins.find("drivers")):
        plugin = plugins.load("drivers", kind)
        parts = [
            msgspec.json.schema(t, schema_hook=_schema_hook) for t in (DriverConfig, plugin.Config)
        ]
        fields: dict[str, Any] = {}
        required = ["kind"]
        for part in parts:
            schema["$defs"].update(part.get("$defs", {}))
            own = part["$defs"][part["$ref"].rsplit("/", 1)[1]]
            fields |= own["properties"]
            required += [name for name in own.get("required", ()) if name != "kind"]
            schema["$defs"].pop(part["$ref"].rsplit("/", 1)[1])
        fields["kind"] = {"const": kind}
        choices.append(
            {
                "title": kind,
                "description": (plugin.__doc__ or "").strip().split("\n")[0],
                "type": "object",
                "properties": fields,
                "required": required,
                "additionalProperties": False,
            }
        )
    schema["$defs"]["ConfigFile"]["properties"]["drivers"] |= {
        "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
        "additionalProperties": {"oneOf": choices},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _driver(name: str, raw: dict[str, Any], source: _Source) -> DriverEntry:
    place: Place = ("drivers", name)
    try:
        check_name(name, "driver name")
    except ConfigError as exc:
        raise source.error(place, str(exc)) from exc
    common = {f: raw.pop(f) for f in DriverConfig.__struct_fields__ if f in raw}
    config = _convert(common, DriverConfig, place, source)
    try:
        plugin = plugins.load("drivers", config.kind)
    except ConfigError as exc:
        raise source.error((*place, "kind"), str(exc).removeprefix("kind: ")) from exc
    config = _convert(getattr(plugin, "defaults", {}) | common, DriverConfig, place, source)
    settings = _convert(raw, plugin.Config, place, source, also=DriverConfig.__struct_fields__)
    return DriverEntry(name, config, plugin, settings)


def _check_queries(file: ConfigFile, source: _Source) -> None:
    seen: set[str] = set()
    for number, query in enumerate(file.queries):
        name = query.named().id
        if name in seen:
            raise source.error(
                ("queries", number), f"id {name!r} is there twice; give each query an id of its own"
            )
        seen.add(name)


def _check_plain(raw: Any, place: Place, source: _Source) -> None:
    """Refuse what YAML can say and no field can mean: names that are no texts, .inf and .nan, and
    NUL in a text.
    """
    if isinstance(raw, dict):
        for key, value in raw.items():
            if not isinstance(key, str):
                raise source.error(
                    place, f"got the name {key!r}, expected a text; put it in quotes"
                )
            _check_plain(value, (*place, key), source)
    elif isinstance(raw, list):
        for number, value in enumerate(raw):
            _check_plain(value, (*place, number), source)
    elif isinstance(raw, float) and not math.isfinite(raw):
        raise source.error(place, f"got {raw}, expected a finite number")
    elif isinstance(raw, str) and "\0" in raw:  # which no file's name can have
        raise source.error(place, "got a text with a NUL in it, expected one without")


def _convert(raw: Any, kind: type[T], place: Place, source: _Source, also: Sequence[str] = ()) -> T:
    def path(wanted: type, value: Any) -> Any:
        if wanted is Path:
            if not isinstance(value, str) or not value:
                raise ValueError(f"Expected a path, got {value!r}")
            return source.base / os.path.expanduser(value)
        raise NotImplementedError(wanted)  # msgspec's own signal: not a type of ours

    def decode(part: Any) -> T:
        return msgspec.convert(part, kind, dec_hook=path)

    try:
        return decode(raw)
    except msgspec.ValidationError as exc:
        inner, message = explain(exc, raw, kind, decode, also)
        raise source.error((*place, *inner), message) from exc
    except ConfigError as exc:
        raise source.error(place, str(exc)) from exc


def _override(raw: dict[str, Any], override: str, source: _Source) -> None:
    """Apply one `a.b=c`; `c` is YAML, a number in the path counts in a list."""
    key, equals, text = override.partition("=")
    steps = key.split(".")
    option = redact_text(f"--set {override!r}")
    if not equals or not all(steps):
        raise ConfigError(f"{option}: expected FIELD=VALUE, for example bus.score_hz=4")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as exc:
        raise ConfigError(f"{option}: the value is not YAML") from exc
    here: Any = raw
    place: list[str | int] = []
    for number, step in enumerate(steps, 1):
        if isinstance(here, list) and step.isdigit() and int(step) < len(here):
            place.append(int(step))
        elif isinstance(here, dict):
            place.append(step)
            if here.get(step) is None:
                here[step] = {}
        else:
            raise ConfigError(f"{option}: there is no {step!r} to set")
        if number == len(steps):
            here[place[-1]] = value
        here = here[place[-1]]
    source.note_option(tuple(place), option)


def _locate(node: Any, place: Place, source: _Source) -> None:
    """Note the line of every field, and refuse one that is written twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            here = (*place, name)
            source.note_line(here, key.start_mark.line + 1)
            if name in seen:
                raise source.error(here, "is written twice; the first would be lost")
            seen.add(name)
            _locate(value, here, source)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            item: Place = (*place, number)
            source.note_line(item, value.start_mark.line + 1)
            _locate(value, item, source)


def _dotted(place: Place) -> str:
    names = (s if isinstance(s, int) or s.isprintable() else repr(s) for s in place)
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in names).lstrip(".")


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "description": "a path, relative to the config file"}
    raise NotImplementedError(kind)  # msgspec's own signal: not a type of ours
