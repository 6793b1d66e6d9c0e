"""msgspec's validation errors in our words: which field, what it got, what was expected."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from agent.redact import redact_text

__all__ = ["Place", "explain"]

Place = tuple[str | int, ...]


def explain(
    error: msgspec.ValidationError,
    raw: Any,
    kind: type,
    decode: Callable[[Any], Any],
    also: Sequence[str] = (),
) -> tuple[Place, str]:
    """(place below `raw`, one line) of what `decode(raw)` to the Struct `kind` has raised.

    also: fields beside those of `kind` that may stand at the top of `raw`.
    """
    place, value, text = _blame(str(error), raw, decode)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    if unknown:
        fields = sorted({*_fields_at(kind, place), *(() if place else also)})
        close = difflib.get_close_matches(unknown[1], fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(fields)}"
        return (*place, unknown[1]), f"unknown field; {hint}"
    missing = re.fullmatch(r"Object missing required field `(.*)`", text)
    if missing:
        return place, f"field {missing[1]!r} is missing"
    wanted = re.fullmatch(r"Expected (.*?)(, got .*)?", text)
    if wanted:
        return place, f"got {_shown(value)}, expected {wanted[1].replace('`', '')}"
    got = "" if isinstance(value, dict | list) else f"got {_shown(value)}: "
    return place, f"{got}{text[0].lower()}{text[1:].replace('`', '')}"


def _blame(message: str, raw: Any, decode: Callable[[Any], Any]) -> tuple[Place, Any, str]:
    """(place, value there, what is wrong with it) of a message of msgspec about `raw`.

    msgspec writes `$.a[2].b[...]`, where [...] is some value of a dict, and "`key` in `$.a`" for
    some key of one: which, is found by decoding again with that key alone.
    """
    text, _, at = message.partition(" - at ")
    is_key = at.startswith("`key` in ")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]|\[(\.\.\.)\]", at) + [("", "", "...")] * is_key
    place: list[str | int] = []
    for name, index, some in steps:
        here = _value_at(raw, place)
        if not some or not isinstance(here, dict):
            place.append(int(index) if index else name)
            continue
        for key in here:
            alone = _with(raw, place, {key: here[key]})
            try:
                decode(alone)
            except msgspec.ValidationError as exc:
                if str(exc) == message:
                    raw = alone
                    place.append(key)
                    break
        else:
            return tuple(place), here, text
    return tuple(place), place[-1] if is_key else _value_at(raw, place), text


def _value_at(raw: Any, place: Sequence[str | int]) -> Any:
    for step in place:
        raw = raw[step]
    return raw


def _with(raw: Any, place: Sequence[str | int], value: Any) -> Any:
    """A copy of `raw` with `value` at `place`."""
    if not place:
        return value
    out = copy.copy(raw)
    out[place[0]] = _with(raw[place[0]], place[1:], value)
    return out


def _shown(value: Any) -> str:
    text = redact_text(repr(value))  # before it is cut: half a URL looks like no URL
    return text if len(text) <= 80 else f"{text[:77]}..."


def _fields_at(kind: Any, place: Place) -> tuple[str, ...]:
    """Field names of the Struct at `place` below the Struct `kind`."""
    info: Any = msgspec.inspect.type_info(kind)
    for step in place:
        if isinstance(info, msgspec.inspect.StructType):
            info = next((f.type for f in info.fields if f.encode_name == step), None)
        elif isinstance(info, msgspec.inspect.DictType):
            info = info.value_type
        elif isinstance(info, msgspec.inspect.ListType):
            info = info.item_type
        if isinstance(info, msgspec.inspect.UnionType):
            parts = [t for t in info.types if not isinstance(t, msgspec.inspect.NoneType)]
            structs = (t for t in parts if isinstance(t, msgspec.inspect.StructType))
            info = next(structs, parts[0])
    fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
    return tuple(f.encode_name for f in fields)
