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
from agent.redact import redact_text
from agent.wire import Reply, Request, RequestError

__all__ = ["CHANGING", "OPS", "Operations"]

OPS = (
    "status",
    "config.get",
    "query.put",
    "query.list",
    "query.remove",
    "query.enable",
    "record.start",
    "record.stop",
)
# Written to the log, so that a replay does them again at the same time.
CHANGING = ("query.put", "query.remove", "query.enable")


class Operations:
    """Requests to replies; a refused request changes nothing and says why in its reply."""

    def __init__(
        self,
        core: Core,
        status: Callable[[], dict[str, Any]],
        record_start: Callable[[Path], dict[str, Any]],
        record_stop: Callable[[], dict[str, Any]],
    ) -> None:
        self._core = core
        self._status, self._record_start, self._record_stop = status, record_start, record_stop

    def handle(self, request: Request) -> Reply:
        """Carry out one request. Never raises for what a client sent."""
        try:
            return Reply(id=request.id, ok=True, result=self._do(request.op, dict(request.args)))
        except AgentError as exc:
            code = type(exc).__name__
            return Reply(id=request.id, ok=False, error=RequestError(code=code, message=str(exc)))

    def _do(self, op: str, args: dict[str, Any]) -> Any:
        queries = self._core.queries
        if op == "query.put":
            query = queries.put(convert_section(args.get("query", args), QueryConfig, "query"))
            return {"id": query.ref.id, "rev": query.ref.rev}
        if op == "query.remove":
            return {"id": queries.remove(_query_id(args)).ref.id}
        if op == "query.enable":
            enabled = args.get("enabled", True) is True
            return {"id": queries.enable(_query_id(args), enabled).ref.id}
        if op == "query.list":
            return [
                {
                    "id": query.ref.id,
                    "rev": query.ref.rev,
                    "label": query.ref.label,
                    "enabled": query.config.enabled,
                }
                for query in queries.all()
            ]
        if op == "record.start":
            return self._record_start(Path(str(args.get("path", ""))))
        if op == "record.stop":
            return self._record_stop()
        if op == "config.get":
            text = msgspec.json.encode(self._core.config.file, enc_hook=str).decode()
            return msgspec.json.decode(redact_text(text))
        return self._status()


def _query_id(args: dict[str, Any]) -> str:
    """`id` is the request's own, so a query is named by `query_id` (or `query`)."""
    return str(args.get("query_id", args.get("query")))
