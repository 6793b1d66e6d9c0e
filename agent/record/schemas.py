"""What the agent's own messages declare in a log: JSON Schemas, and events as foxglove.Event."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from foxglove import messages as fox

from agent import wire
from agent.codecs import Block, Schema
from agent.errors import RecordError

__all__ = ["BLOCK_SCHEMA", "EVENT_SCHEMA", "foxglove_event", "json_schema"]


def _schema(name: str, document: dict[str, Any]) -> Schema:
    return Schema(f"sensebind.{name}", "jsonschema", msgspec.json.encode(document), "json")


def _block_schema() -> Schema:
    (_,), parts = msgspec.json.schema_components((Block,), ref_template="#/$defs/{name}")
    return _schema("Block", parts["Block"])


BLOCK_SCHEMA = _block_schema()

_event = fox.Event.get_schema()
EVENT_SCHEMA = Schema(_event.name, _event.encoding, _event.data, "protobuf")


@cache
def json_schema(name: str) -> Schema:
    """The schema of a type of agent.wire by its name; of any other name, a plain JSON object."""
    parts: dict[str, Any] = wire.json_schemas()["$defs"]
    document = parts.get(name, {"title": name, "type": "object"})
    rest = {key: value for key, value in parts.items() if key != name}
    return _schema(name, {**document, "$defs": rest} if name in parts else document)


def foxglove_event(payload: bytes) -> bytes:
    """An encoded wire.Event as an encoded foxglove.Event: its span, and the rest as key and value.

    Raises RecordError where the payload is no Event.
    """
    try:
        event = msgspec.json.decode(payload, type=wire.Event)
    except msgspec.DecodeError as exc:
        raise RecordError(f"log topic /events: not an Event: {exc}") from exc
    pairs = {
        "id": event.id,
        "revision": event.revision,
        "phase": event.phase,
        "query": event.query.id,
        "label": event.query.label,
        "score": f"{event.score.value:.4f}",
        "threshold": f"{event.score.threshold:.4f}",
        "streams": " ".join(e.stream for e in event.evidence if e.status == "ok"),
        "reason": event.reason,
        "agent": event.agent,
    }
    return fox.Event(
        start_time=fox.Timestamp(event.start_time.sec, event.start_time.nsec),
        end_time=fox.Timestamp(event.end_time.sec, event.end_time.nsec),
        metadata=[fox.KeyValuePair(key=k, value=str(v)) for k, v in pairs.items()],
    ).encode()
