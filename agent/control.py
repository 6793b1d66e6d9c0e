"""What control messages do: each operation, run by the agent's main thread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.config import QueryConfig
from agent.config_file import convert_section
from agent.core import Core
from agent.errors import AgentError
from agent.match.queries import Query
from agent.redact import redact_text
from agent.teaching import TeachConfig, teach_query
from agent.types import Settings
from agent.wire import Reply, Request, RequestError

__all__ = ["CHANGING", "MAX_MESSAGE", "OPS", "Operations"]

OPS = (
    "status",
    "config.get",
    "query.put",
    "query.teach",
    "query.list",
    "query.get",
    "query.remove",
    "query.enable",
    "record.start",
    "record.stop",
)
# Written to the log, so that a replay does them again at the same time.
CHANGING = ("query.put", "query.remove", "query.enable")
MAX_MESSAGE = 1000  # characters of why a request is refused


class _RecordStart(Settings, frozen=True, kw_only=True):
    path: Path


class Operations:
    """Requests to replies; a refused request changes nothing and says why in its reply."""

    def __init__(
        self,
        core: Core,
        status: Callable[[], dict[str, Any]],
        record_start: Callable[[Path], dict[str, Any]],
        record_stop: Callable[[], dict[str, Any]],
        on_change: Callable[[Request], None],
    ) -> None:
        """on_change: told of each of CHANGING that was carried out, as it is to be done again."""
        self._core, self._on_change = core, on_change
        self._status, self._record_start, self._record_stop = status, record_start, record_stop

    def handle(self, request: Request) -> Reply:
        """Carry out one request. Never raises for what a client sent."""
        try:
            result = self._do(request.op, dict(request.args), request.id)
            if request.op in CHANGING:
                self._on_change(request)
            return Reply(id=request.id, ok=True, result=result)
        except AgentError as exc:
            code, message = type(exc).__name__, " ".join(str(exc).split())
            if len(message) > MAX_MESSAGE:  # it may repeat what was asked
                message = f"{message[: MAX_MESSAGE - 3]}..."
            return Reply(id=request.id, ok=False, error=RequestError(code=code, message=message))

    def _do(self, op: str, args: dict[str, Any], request_id: str) -> Any:
        queries = self._core.queries
        if op == "query.put":
            query = queries.put(convert_section(args.get("query", args), QueryConfig, "query"))
            return {"id": query.ref.id, "rev": query.ref.rev}
        if op == "query.teach":
            return self._teach(args, request_id)
        if op == "query.get":
            return _shown(queries.get(_query_id(args)))
        if op == "query.remove":
            return {"id": queries.remove(_query_id(args)).ref.id}
        if op == "query.enable":
            enabled = args.get("enabled", True) is True
            return {"id": queries.enable(_query_id(args), enabled).ref.id}
        if op == "query.list":
            return [
                {name: value for name, value in _shown(query).items() if name != "query"}
                for query in queries.all()
            ]
        if op == "record.start":
            return self._record_start(convert_section(args, _RecordStart, "record.start").path)
        if op == "record.stop":
            return self._record_stop()
        if op == "config.get":
            text = msgspec.json.encode(self._core.config.file, enc_hook=str).decode()
            return msgspec.json.decode(redact_text(text))
        return self._status()

    def _teach(self, args: dict[str, Any], request_id: str) -> dict[str, Any]:
        config, report = teach_query(self._core, convert_section(args, TeachConfig, "query.teach"))
        query = self._core.queries.put(config)
        # What was learned, not what from: files may be gone, and a replay's windows differ.
        put = {"query": msgspec.to_builtins(config)}
        self._on_change(Request(op="query.put", id=request_id, args=put))
        return {"id": query.ref.id, "rev": query.ref.rev, **report}


def _shown(query: Query) -> dict[str, Any]:
    """What query.list and query.get tell of it."""
    return {
        "id": query.ref.id,
        "rev": query.ref.rev,
        "label": query.ref.label,
        "enabled": query.config.enabled,
        "query": query.config.said(),
    }


def _query_id(args: dict[str, Any]) -> str:
    """`id` is the request's own, so a query is named by `query_id` (or `query`)."""
    return str(args.get("query_id", args.get("query")))
