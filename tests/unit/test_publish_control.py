from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.publish.control import (
    MAX_PENDING,
    MAX_REQUEST_BYTES,
    REPLY_CACHE,
    Control,
    parse_request,
)
from agent.wire import Reply, Request, RequestError

OPS = ("status", "query.put")
Pending = list[tuple[Request, Callable[[Reply], None]]]


def body(request_id: str = "1", op: str = "status", **args: object) -> bytes:
    return msgspec.json.encode({"op": op, "id": request_id, **args})


def decoded(frames: list[bytes] | None) -> Reply:
    assert frames is not None
    return msgspec.json.decode(frames[-1], type=Reply)


@pytest.fixture
def pending() -> Pending:
    return []


@pytest.fixture
def control(pending: Pending) -> Control:
    return Control(OPS, lambda request, reply: pending.append((request, reply)), lambda: None)


def test_arguments_stand_flat_beside_op_and_id() -> None:
    request = parse_request(body("7", "query.put", text="a cat", enter=0.7), OPS)
    assert request == Request(op="query.put", id="7", args={"text": "a cat", "enter": 0.7})


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"", "bad_request", "not JSON"),
        (b"\xff\xfe", "bad_request", "not JSON"),
        (b'"\xff"', "bad_request", "not JSON"),
        (b"[" * 100_000, "bad_request", "not JSON"),
        (b"[1]", "bad_request", "object"),
        (b"{}", "bad_request", "id:"),
        (b'{"id": 1, "op": "status"}', "bad_request", "id:"),
        (b'{"id": "", "op": "status"}', "bad_request", "id:"),
        (b'{"id": "' + b"x" * 129 + b'"}', "bad_request", "id:"),
        (b'{"id": "1"}', "bad_request", "op:"),
        (b'{"id": "1", "op": ["status"]}', "bad_request", "op:"),
        (b'{"id": "1", "op": "reboot"}', "unknown_op", "query.put, status"),
        (b'"' + b"x" * MAX_REQUEST_BYTES + b'"', "bad_request", "at most 1048576"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(data: bytes, code: str, says: str) -> None:
    reply = parse_request(data, OPS)
    assert isinstance(reply, Reply)
    assert reply.error is not None
    assert not reply.ok
    assert reply.error.code == code
    assert says in reply.error.message
    assert "\n" not in reply.error.message
    assert len(reply.error.message) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)
requests = st.fixed_dictionaries(
    {}, optional={"op": json_values | st.sampled_from(OPS), "id": json_values, "x": json_values}
)


def json_bytes(value: object) -> bytes:
    return json.dumps(value).encode()


@given(
    st.lists(
        st.binary(max_size=300) | requests.map(json_bytes) | json_values.map(json_bytes),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_anything_gets_one_answer_or_is_passed_on(frames: list[bytes], delimiter: bool) -> None:
    passed: Pending = []
    control = Control(OPS, lambda request, reply: passed.append((request, reply)), lambda: None)
    message = [b"client", *([b""] if delimiter else []), *frames]
    answer = control.receive(message)
    assert (answer is None) == (len(passed) == 1)
    if answer is not None:
        reply = decoded(answer)
        assert answer[0] == b"client"
        assert not reply.ok
        assert reply.error is not None
        assert reply.error.code in ("bad_request", "unknown_op")


@pytest.mark.parametrize("envelope", [[b"req", b""], [b"dealer"]])
def test_the_reply_has_the_envelope_of_its_request(
    control: Control, pending: Pending, envelope: list[bytes]
) -> None:
    assert control.receive([*envelope, body()]) is None
    pending[0][1](Reply(id="1", ok=True, result={"up": 1}))
    (frames,) = control.replies()
    assert frames[:-1] == envelope
    assert decoded(frames).result == {"up": 1}
    assert list(control.replies()) == []


def test_a_request_of_several_frames_is_refused_to_a_req_and_to_a_dealer(control: Control) -> None:
    for envelope in ([b"req", b""], [b"dealer"]):
        answer = control.receive([*envelope, body(), b"more"])
        assert answer is not None
        assert answer[:-1] == envelope
        assert "2 frames" in decoded(answer).error.message


def test_the_same_id_runs_once_and_is_answered_again(control: Control, pending: Pending) -> None:
    assert control.receive([b"c", body()]) is None
    assert control.receive([b"c", body()]) is None  # still running
    assert len(pending) == 1
    pending[0][1](Reply(id="1", ok=True, result=1))
    (first,) = control.replies()
    assert control.receive([b"c", b"", body()]) == [b"c", b"", first[-1]]
    assert len(pending) == 1


def test_ids_belong_to_their_client(control: Control, pending: Pending) -> None:
    control.receive([b"one", body()])
    control.receive([b"two", body()])
    assert len(pending) == 2


def test_an_answer_is_remembered_for_so_many_requests(control: Control, pending: Pending) -> None:
    for k in range(REPLY_CACHE + 1):
        control.receive([b"c", body(str(k))])
        pending[-1][1](Reply(id=str(k), ok=True))
        list(control.replies())
    assert control.receive([b"c", body("1")]) is not None
    assert control.receive([b"c", body("0")]) is None


def test_too_many_at_once_are_told_busy_and_may_try_again(
    control: Control, pending: Pending
) -> None:
    for k in range(MAX_PENDING):
        assert control.receive([b"c", body(str(k))]) is None
    answer = decoded(control.receive([b"c", body("late")]))
    assert answer.error.code == "busy"
    assert answer.id == "late"
    pending[0][1](Reply(id="0", ok=True))
    list(control.replies())
    assert control.receive([b"c", body("late")]) is None


def test_busy_from_the_application_is_not_remembered(control: Control, pending: Pending) -> None:
    control.receive([b"c", body()])
    pending[0][1](Reply(id="1", ok=False, error=RequestError(code="busy", message="later")))
    list(control.replies())
    assert control.receive([b"c", body()]) is None
    assert len(pending) == 2


def test_only_the_first_reply_to_a_request_counts(control: Control, pending: Pending) -> None:
    control.receive([b"c", body()])
    pending[0][1](Reply(id="1", ok=True, result="first"))
    pending[0][1](Reply(id="1", ok=True, result="second"))
    assert [decoded(f).result for f in control.replies()] == ["first"]
