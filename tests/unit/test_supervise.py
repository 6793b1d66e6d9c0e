"""ThreadGroup: lives and dies together, and loses no error."""

from __future__ import annotations

import sys
import threading

import pytest

from agent.errors import AgentError, DeviceLost, RecordError
from agent.supervise import ThreadGroup

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

PATIENCE_S = 30.0  # a bound on a hang, not a measure


def until_stopped(stop: threading.Event) -> None:
    assert stop.wait(PATIENCE_S), "nobody stopped us"


def fail(error: BaseException) -> None:
    raise error


def test_leaving_the_block_stops_and_joins_everything() -> None:
    ended = []

    def run(stop: threading.Event) -> None:
        until_stopped(stop)
        ended.append(threading.current_thread().name)

    with ThreadGroup() as group:
        group.start("one", run)
        group.start("two", run)
        group.start("done at once", lambda stop: None)
        assert not group.failed
        assert ended == []
    assert sorted(ended) == ["one", "two"]


def test_the_first_failure_stops_all_and_comes_out_as_itself() -> None:
    ended, error = [], DeviceLost("unplugged")

    def run(stop: threading.Event) -> None:
        until_stopped(stop)
        ended.append("run")

    def scene() -> None:
        with ThreadGroup() as group:
            group.start("well", run)
            group.start("bad", lambda stop: fail(error))
            until_stopped(group.stop)
            assert group.failed

    with pytest.raises(DeviceLost) as caught:
        scene()
    assert caught.value is error
    assert ended == ["run"]


def test_several_failures_all_come_out() -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)
    errors = [DeviceLost("unplugged"), RecordError("disk full")]

    def run(error: Exception) -> None:
        both.wait()
        raise error

    def scene() -> None:
        with ThreadGroup() as group:
            for error in errors:
                group.start("bad", lambda stop, error=error: run(error))

    with pytest.raises(ExceptionGroup) as caught:
        scene()
    assert set(caught.value.exceptions) == set(errors)


def test_an_error_of_the_block_comes_out_beside_those_of_threads() -> None:
    ours, theirs = ValueError("ours"), DeviceLost("unplugged")

    def scene() -> None:
        with ThreadGroup() as group:
            group.start("bad", lambda stop: fail(theirs))
            until_stopped(group.stop)
            raise ours

    with pytest.raises(ExceptionGroup) as caught:
        scene()
    assert caught.value.exceptions == (ours, theirs)


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()])
def test_an_error_of_the_block_alone_comes_out_as_itself_and_stops_all(
    error: BaseException,
) -> None:
    ended = threading.Event()

    def run(stop: threading.Event) -> None:
        until_stopped(stop)
        ended.set()

    def scene() -> None:
        with ThreadGroup() as group:
            group.start("well", run)
            raise error

    with pytest.raises(type(error)) as caught:
        scene()
    assert caught.value is error
    assert ended.is_set()


def test_a_threads_error_is_not_lost_to_a_keyboard_interrupt() -> None:
    def scene() -> None:
        with ThreadGroup() as group:
            group.start("bad", lambda stop: fail(DeviceLost("unplugged")))
            until_stopped(group.stop)
            raise KeyboardInterrupt

    with pytest.raises(DeviceLost) as caught:
        scene()
    assert isinstance(caught.value.__context__, KeyboardInterrupt)


def test_even_what_is_no_exception_is_carried_to_whoever_joins() -> None:
    with pytest.raises(SystemExit), ThreadGroup() as group:
        group.start("exits", lambda stop: fail(SystemExit(3)))


def test_a_stuck_thread_is_named() -> None:
    release = threading.Event()

    def hang(stop: threading.Event) -> None:
        assert release.wait(PATIENCE_S)

    def scene() -> None:
        with ThreadGroup(join_timeout_s=0.01) as group:
            group.start("camera sdk", hang)

    try:
        with pytest.raises(AgentError, match=r"^threads did not stop: camera sdk$"):
            scene()
    finally:
        release.set()


def test_a_thread_that_cannot_be_started_leaves_the_others_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = threading.Event()

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def run(stop: threading.Event) -> None:
        until_stopped(stop)
        ended.set()

    def scene() -> None:
        with ThreadGroup() as group:
            group.start("well", run)
            monkeypatch.setattr(threading.Thread, "start", start)
            group.start("too many", run)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        scene()
    assert ended.is_set()
