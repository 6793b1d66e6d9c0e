from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BusError, ConfigError
from agent.publish import events
from agent.publish.events import Outbox, Retained, Sequencer, topic, topic_kind
from agent.wire import Event, ScoreMessage
from tests.fakes.wire_messages import event, health, score, sensor

CAT = topic("hat", "event", "cat")


def test_topic_ends_in_a_slash_and_says_its_kind() -> None:
    assert topic("hat", "event", "cat") == "sensebind/v1/hat/event/cat/"
    assert topic("hat", "health") == "sensebind/v1/hat/health/"
    assert topic_kind(topic("hat", "health")) == "health"
    assert topic_kind("sensebind/v1") == ""


@pytest.mark.parametrize("level", ["", "Cat", "a/b", "a b", "*"])
def test_topic_refuses_what_is_no_level(level: str) -> None:
    with pytest.raises(ConfigError, match="topic level"):
        topic("hat", "event", level)


@given(st.lists(st.sampled_from(["a", "b", "c"])))
def test_seq_counts_each_topic_from_one(names: list[str]) -> None:
    sequencer = Sequencer()
    seen: dict[str, list[int]] = {}
    for name in names:
        seen.setdefault(name, []).append(sequencer.number(name, event()).seq)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in seen.values())


def test_retained_gives_open_events_and_last_status_as_sent() -> None:
    retained = Retained()
    camera, microphone = topic("hat", "sensor", "camera"), topic("hat", "sensor", "microphone")
    retained.keep(camera, sensor(state="online"))
    retained.keep(camera, sensor(state="offline", reason="unplugged"))
    retained.keep(microphone, sensor("microphone"))
    retained.keep(CAT, event("A"))
    retained.keep(CAT, event("B"))
    retained.keep(CAT, event("A", phase="update", revision=2))
    retained.keep(CAT, event("B", phase="end", revision=2))
    retained.keep(topic("hat", "score", "cat"), score())
    retained.keep(topic("hat", "health"), health())

    everything = retained.matching(["sensebind/"])
    assert [name for name, _ in everything] == [camera, microphone, CAT]
    assert all(message.retained for _, message in everything)
    assert everything[0][1].state == "offline"
    assert (everything[2][1].id, everything[2][1].revision) == ("A", 2)
    assert retained.matching([microphone]) == everything[1:2]
    assert retained.matching(["sensebind/v1/other/"]) == []
    assert retained.matching([""]) == everything


@given(
    st.lists(
        st.tuples(st.sampled_from("ABC"), st.sampled_from(["start", "update", "end"])), max_size=30
    )
)
def test_retained_holds_exactly_the_open_events_in_order_of_sending(
    history: list[tuple[str, str]],
) -> None:
    retained, sequencer = Retained(), Sequencer()
    expected: dict[str, int] = {}
    for event_id, phase in history:
        message = sequencer.number(CAT, event(event_id, phase=phase))
        retained.keep(CAT, message)
        expected.pop(event_id, None)
        if phase != "end":
            expected[event_id] = message.seq
    kept = [(m.id, m.seq) for _, m in retained.matching([CAT])]
    assert kept == list(expected.items())
    assert [seq for _, seq in kept] == sorted(seq for _, seq in kept)


def test_live_messages_give_way_oldest_first_and_are_counted() -> None:
    outbox = Outbox(live_limit=3)
    name = topic("hat", "score", "cat")
    for k in range(10):
        outbox.put(name, score(k / 10))
        outbox.put(CAT, event(f"E{k}"))
    waiting = outbox.take()
    events_kept = [item.message for item in waiting if isinstance(item.message, Event)]
    scores_kept = [item.message for item in waiting if isinstance(item.message, ScoreMessage)]
    assert [m.seq for m in events_kept] == list(range(1, 11))
    assert [m.seq for m in scores_kept] == [8, 9, 10]
    assert outbox.drops == {"bus.events": 0, "bus.live": 7, "bus.bulk": 0}
    assert outbox.take() == []


def test_bulk_has_a_queue_of_its_own() -> None:
    outbox = Outbox(live_limit=2)
    outbox.put(topic("hat", "preview", "camera"), score(), [b"jpeg"])
    outbox.put(topic("hat", "health"), health())
    bulk = [item for item in outbox.take() if item.bulk]
    assert [item.attachments for item in bulk] == [(b"jpeg",)]


def test_events_that_nobody_sends_end_the_agent_instead_of_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(events, "EVENTS_LIMIT", 5)
    outbox = Outbox(live_limit=1)
    for _ in range(5):
        outbox.put(CAT, event())
    with pytest.raises(BusError, match=r"bus\.events: 5 messages wait"):
        outbox.put(CAT, event())


def test_a_closed_outbox_counts_what_it_refuses() -> None:
    outbox = Outbox(live_limit=1)
    outbox.close()
    outbox.put(CAT, event())
    assert outbox.take() == []
    assert outbox.drops["bus.events"] == 1


def test_replay_can_number_messages_without_zmq() -> None:
    code = (
        "import sys, agent.publish.events, agent.publish.bus, agent.publish.control;"
        "sys.exit('zmq' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
