"""The control socket's rules, without the socket: frames of a request in, frames of a reply out."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec

from agent.wire import Reply, Request, RequestError, encode

__all__ = ["MAX_PENDING", "MAX_REQUEST_BYTES", "REPLY_CACHE", "Control", "parse_request"]

MAX_REQUEST_BYTES = 1 << 20
MAX_ID_LENGTH = 128
# Requests that may wait for the application at once; the next one is told "busy".
MAX_PENDING = 64
# Replies kept for a client that asks again with the same id.
REPLY_CACHE = 256

# (the client's identity, the request's id)
_Key = tuple[bytes, str]


def _refusal(request_id: str, code: str, message: str) -> Reply:
    return Reply(id=request_id, ok=False, error=RequestError(code=code, message=message))


def parse_request(body: bytes, ops: Collection[str]) -> Request | Reply:
    """A Request, or the Reply that refuses it: `bad_request` or `unknown_op`. Never raises.

    body: one JSON object, {"op": str, "id": str of 1..128 characters, ...arguments}, at most
    `MAX_REQUEST_BYTES`.
    """
    if len(body) > MAX_REQUEST_BYTES:
        return _refusal(
            "",
            "bad_request",
            f"the request has {len(body)} bytes, expected at most {MAX_REQUEST_BYTES}",
        )
    try:
        fields = msgspec.json.decode(body)
    except (ValueError, RecursionError) as exc:  # ValueError: bad JSON and bad UTF-8
        return _refusal("", "bad_request", f"the request is not JSON: {exc}")
    if not isinstance(fields, dict):
        return _refusal("", "bad_request", 'the request must be an object {"op", "id", ...}')
    request_id, op = fields.pop("id", None), fields.pop("op", None)
    if not isinstance(request_id, str) or not 1 <= len(request_id) <= MAX_ID_LENGTH:
        return _refusal("", "bad_request", f"id: must be a string of 1..{MAX_ID_LENGTH} characters")
    if not isinstance(op, str):
        return _refusal(request_id, "bad_request", "op: must be a string")
    if op not in ops:
        known = ", ".join(sorted(ops))
        return _refusal(request_id, "unknown_op", f"op: {op[:64]!r} is not one of: {known}")
    return Request(op=op, id=request_id, args=fields)


class Control:
    """Requests to `on_request`, each id once; replies back to whom they belong.

    `receive` and `replies` are called by the bus thread only. `on_request(request, reply)` is
    called by it too and must not block; `reply(Reply)` may be called from any thread, later, and
    must be called once for every request. wake: called, from that thread, when one is ready.
    """

    def __init__(
        self,
        ops: Collection[str],
        on_request: Callable[[Request, Callable[[Reply], None]], None],
        wake: Callable[[], None],
    ) -> None:
        self._ops = frozenset(ops)
        self._on_request = on_request
        self._wake = wake
        self._pending: dict[_Key, Sequence[bytes]] = {}  # -> the envelope to answer with
        self._answered: OrderedDict[_Key, bytes] = OrderedDict()
        self._ready: deque[tuple[_Key, bytes, bool]] = deque()

    def receive(self, frames: Sequence[bytes]) -> list[bytes] | None:
        """Take one message of a ROUTER; the frames to answer with at once, or None."""
        identity, *rest = frames
        # A REQ client puts an empty frame before the body, a DEALER need not.
        envelope = [identity, b""] if len(rest) > 1 and rest[0] == b"" else [identity]
        body = rest[len(envelope) - 1 :]
        if len(body) != 1:
            wrong = f"the request has {len(body)} frames, expected 1"
            return [*envelope, encode(_refusal("", "bad_request", wrong))]
        request = parse_request(body[0], self._ops)
        if isinstance(request, Reply):
            return [*envelope, encode(request)]
        key = (identity, request.id)
        if (answer := self._answered.get(key)) is not None:
            return [*envelope, answer]
        if key in self._pending:
            self._pending[key] = envelope
            return None
        if len(self._pending) >= MAX_PENDING:
            busy = f"{MAX_PENDING} requests are waiting, try again"
            return [*envelope, encode(_refusal(request.id, "busy", busy))]
        self._pending[key] = envelope

        def reply(answer: Reply) -> None:
            # "busy" is the one answer that asking again may change.
            final = answer.error is None or answer.error.code != "busy"
            self._ready.append((key, encode(answer), final))
            self._wake()

        self._on_request(request, reply)
        return None

    def replies(self) -> Iterator[list[bytes]]:
        """The frames of every reply that has become ready."""
        while self._ready:
            key, answer, final = self._ready.popleft()
            envelope = self._pending.pop(key, None)
            if envelope is None:
                continue
            if final:
                self._answered[key] = answer
                if len(self._answered) > REPLY_CACHE:
                    self._answered.popitem(last=False)
            yield [*envelope, answer]
