"""YAML in, a checked Config out; a mistake is one line: file:line, field, value, expected.

Everything is checked here, before any device opens: syntax, unknown and repeated fields, types,
ranges, kinds of drivers and their own settings, names, and paths made absolute.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from agent import plugins
from agent.config import Config, ConfigFile, DriverConfig, DriverEntry, TowerConfig
from agent.errors import ConfigError
from agent.types import check_name

__all__ = ["build_config", "config_schema", "convert_section", "load_config"]

T = TypeVar("T")
Place = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as a text, for want of a dot; everybody means the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class _Source:
    """Where a config came from, to turn a field into "file:line: field"."""

    def __init__(self, name: str, base: Path) -> None:
        self.name, self.base = name, base
        self.lines: dict[Place, int] = {}

    def error(self, place: Place, text: str) -> ConfigError:
        line = next((self.lines[p] for p in _prefixes(place) if p in self.lines), None)
        where = self.name if line is None else f"{self.name}:{line}"
        return ConfigError(f"{where}: {_dotted(place)}{': ' if place else ''}{text}")


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
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML: {getattr(exc, 'problem', exc)}") from exc
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
    for override in overrides:
        _override(raw, override)
    # msgspec names the values of a dict `[...]`, so those are converted one by one.
    space = raw.get("space")
    if isinstance(space, dict) and isinstance(space.get("towers"), dict):
        for name, tower in space["towers"].items():
            _convert(tower, TowerConfig, ("space", "towers", name), source)
    file = _convert(raw, ConfigFile, (), source)
    drivers = tuple(_driver(name, dict(d), source) for name, d in file.drivers.items())
    _check_queries(file, source)
    digest = hashlib.sha256(json.dumps(raw, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return Config(file=file, drivers=drivers, digest=digest)


def convert_section(raw: Any, kind: type[T], name: str) -> T:
    """Check one part of a config that came over the control channel. Raises ConfigError."""
    return _convert(raw, kind, (), _Source(name, Path.cwd()))


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
    schema["$defs"]["ConfigFile"]["properties"]["drivers"]["additionalProperties"] = {
        "oneOf": choices
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
        raise source.error(place, str(exc)) from exc
    settings = _convert(raw, plugin.Config, place, source, also=DriverConfig.__struct_fields__)
    return DriverEntry(name, config, plugin, settings)


def _check_queries(file: ConfigFile, source: _Source) -> None:
    seen: set[str] = set()
    for number, query in enumerate(file.queries):
        name = query.id or query.label or query.text or ""
        if name and name in seen:
            raise source.error(("queries", number), f"{name!r} is there twice; give each an id")
        seen.add(name)


def _convert(raw: Any, kind: type[T], place: Place, source: _Source, also: Sequence[str] = ()) -> T:
    def path(wanted: type, value: Any) -> Any:
        if wanted is Path:
            if not isinstance(value, str) or not value:
                raise ValueError(f"Expected a path, got {value!r}")
            return source.base / Path(value).expanduser()
        raise NotImplementedError(wanted)  # msgspec's own signal: not a type of ours

    try:
        return msgspec.convert(raw, kind, dec_hook=path)
    except msgspec.ValidationError as exc:
        raise _explain(exc, raw, kind, place, source, also) from exc


def _explain(
    exc: msgspec.ValidationError,
    raw: Any,
    kind: type,
    place: Place,
    source: _Source,
    also: Sequence[str],
) -> ConfigError:
    text, _, at = str(exc).partition(" - at `$")
    inner = _parse(at.rstrip("`"), raw)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text)
    if unknown:
        fields = sorted({*_fields_at(kind, inner), *also})
        close = difflib.get_close_matches(unknown[1], fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(fields)}"
        return source.error((*place, *inner, unknown[1]), f"unknown field; {hint}")
    missing = re.fullmatch(r"Object missing required field `(.*)`", text)
    if missing:
        return source.error((*place, *inner), f"field {missing[1]!r} is missing")
    value = _value_at(raw, inner)
    wanted = re.fullmatch(r"Expected (.*), got .*", text)
    if wanted:
        return source.error(
            (*place, *inner), f"got {value!r}, expected {wanted[1].replace('`', '')}"
        )
    shown = "" if isinstance(value, dict | list) else f"got {value!r}: "
    return source.error((*place, *inner), f"{shown}{text[0].lower()}{text[1:].replace('`', '')}")


def _parse(path: str, raw: Any) -> Place:
    """msgspec's `.a[2].b[...]` -> ("a", 2, "b", key): the only key, or one with a bad value."""
    place: list[str | int] = []
    for name, index, dots in re.findall(r"\.(\w+)|\[(\d+)\]|\[(\.\.\.)\]", path):
        here = _value_at(raw, tuple(place))
        if dots and isinstance(here, dict) and here:
            place.append(next(iter(here)) if len(here) == 1 else "*")
        else:
            place.append(int(index) if index else name)
    return tuple(place)


def _value_at(raw: Any, place: Place) -> Any:
    for step in place:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _fields_at(kind: Any, place: Place) -> tuple[str, ...]:
    """Field names of the Struct at `place` below the Struct `kind`."""
    info: Any = msgspec.inspect.type_info(kind)
    for step in place:
        if isinstance(info, msgspec.inspect.StructType):
            info = next(f.type for f in info.fields if f.encode_name == step)
        elif isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
        elif isinstance(info, msgspec.inspect.ListType):
            info = info.item_type
        if isinstance(info, msgspec.inspect.UnionType):
            info = next(t for t in info.types if not isinstance(t, msgspec.inspect.NoneType))
    fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
    return tuple(f.encode_name for f in fields)


def _override(raw: dict[str, Any], override: str) -> None:
    """Apply one `a.b=c`; `c` is YAML, a number in the path counts in a list."""
    key, equals, text = override.partition("=")
    steps = key.split(".")
    if not equals or not all(steps):
        raise ConfigError(f"--set {override!r}: expected FIELD=VALUE, for example bus.score_hz=4")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as exc:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from exc
    here: Any = raw
    for step in steps[:-1]:
        if isinstance(here, list) and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
        elif isinstance(here, dict):
            here = here.setdefault(step, {})
        else:
            raise ConfigError(f"--set {override!r}: there is no {step!r} to go into")
    last = steps[-1]
    if isinstance(here, list) and last.isdigit() and int(last) < len(here):
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise ConfigError(f"--set {override!r}: there is no {last!r} to set")


def _locate(node: Any, place: Place, source: _Source) -> None:
    """Note the line of every field, and refuse one that is written twice."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            here = (*place, name)
            source.lines[here] = key.start_mark.line + 1
            if name in seen:
                raise source.error(here, "is written twice; the first would be lost")
            seen.add(name)
            _locate(value, here, source)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            item: Place = (*place, number)
            source.lines[item] = value.start_mark.line + 1
            _locate(value, item, source)


def _prefixes(place: Place) -> list[Place]:
    return [place[:n] for n in range(len(place), 0, -1)]


def _dotted(place: Place) -> str:
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in place).lstrip(".")


def _schema_hook(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "description": "a path, relative to the config file"}
    raise NotImplementedError(kind)  # msgspec's own signal: not a type of ours
