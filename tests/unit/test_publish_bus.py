from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zmq
from zmq.auth import create_certificates

from agent.clock import SystemClock
from agent.config import BusConfig, CurveConfig
from agent.errors import BusError, ConfigError
from agent.publish.bus import Bus
from agent.publish.client import ClientKeys, Subscriber, request
from agent.publish.events import topic
from agent.publish.sockets import Sockets
from agent.wire import Event, Health, SensorStatus
from tests.fakes.running_bus import LOOPBACK, RunningBus, running_bus
from tests.fakes.wire_messages import event, health, score, sensor

ROOT = Path(__file__).parents[2]
EVENT, HEALTH = topic("hat", "event", "cat"), topic("hat", "health")
SCORE, SENSOR = topic("hat", "score", "cat"), topic("hat", "sensor", "camera")
PATIENCE_S = 20.0


def until(condition: Callable[[], object], every_s: float = 0.01) -> None:
    """Wait for `condition`; fail after a time that no healthy run comes near."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every_s)


def joined(running: RunningBus, subscriber: Subscriber) -> None:
    """Return once `subscriber`, which must subscribe to health, is heard by the bus."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        running.bus.send(HEALTH, health())
        received = subscriber.receive(0.05)
        if received is not None and isinstance(received[1], Health):
            return
        assert time.monotonic() < deadline, "the subscription never came into force"


def bus_of(config: BusConfig) -> Bus:
    return Bus(config, SystemClock(), (), lambda _request, _reply: None)


def test_ten_thousand_events_reach_another_process_in_order_without_gaps() -> None:
    count = 10_000
    config = BusConfig(events=LOOPBACK, control=None, hwm=2 * count)
    with running_bus(config) as running:
        command = [sys.executable, "-m", "tests.fakes.bus_subscriber"]
        with subprocess.Popen(
            [*command, running.events, "sensebind/v1/hat/event/", str(count)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            try:
                assert child.stdout is not None
                answer: list[str] = []
                reader = threading.Thread(target=lambda: answer.append(child.stdout.readline()))
                reader.start()
                while reader.is_alive():
                    running.bus.send(HEALTH, health())
                    reader.join(0.05)
                assert answer == ["ready\n"]
                for k in range(count):
                    running.bus.send(EVENT, event(f"E{k}"))
                got = json.loads(child.stdout.readline())
            finally:
                child.kill()
    assert got == [[k + 1, f"E{k}"] for k in range(count)]


def test_a_late_joiner_gets_the_open_events_and_the_last_status() -> None:
    with running_bus() as running:
        running.bus.send(SENSOR, sensor(state="online"))
        running.bus.send(SENSOR, sensor(state="offline", reason="unplugged"))
        running.bus.send(EVENT, event("open"))
        running.bus.send(EVENT, event("over"))
        running.bus.send(EVENT, event("over", phase="end", revision=2))
        running.bus.send(EVENT, event("open", phase="update", revision=2))
        until(lambda: len(running.sent) == 6)
        with Subscriber(running.events) as late:
            (sensor_topic, status), (event_topic, open_event) = (
                late.receive(PATIENCE_S),
                late.receive(PATIENCE_S),
            )
            assert (sensor_topic, event_topic) == (SENSOR, EVENT)
            assert isinstance(status, SensorStatus)
            assert (status.state, status.seq, status.retained) == ("offline", 2, True)
            assert isinstance(open_event, Event)
            assert (open_event.id, open_event.revision) == ("open", 2)
            assert (open_event.seq, open_event.retained) == (4, True)
            running.bus.send(EVENT, event("open", phase="end", revision=3))
            live = late.receive(PATIENCE_S)
            assert live is not None
            assert (live[1].seq, live[1].retained) == (5, False)
            assert late.gaps == {}


def test_a_subscription_gets_only_what_it_asked_for() -> None:
    with running_bus() as running:
        running.bus.send(SENSOR, sensor())
        running.bus.send(EVENT, event())
        until(lambda: len(running.sent) == 2)
        with Subscriber(running.events, [topic("hat", "event", "cat")]) as late:
            received = late.receive(PATIENCE_S)
            assert received is not None
            assert isinstance(received[1], Event)
            assert late.receive(0.3) is None


def test_each_late_joiner_is_told_even_of_a_prefix_that_others_have() -> None:
    with running_bus() as running:
        running.bus.send(EVENT, event())
        until(lambda: running.sent)
        with Subscriber(running.events) as first, Subscriber(running.events) as second:
            for late in (first, second):
                received = late.receive(PATIENCE_S)
                assert received is not None
                assert received[1].retained


def test_a_slow_subscriber_misses_messages_and_sees_it_and_delays_nobody() -> None:
    big = "x" * 100_000
    count = 2000  # 200 MB: more than the socket buffers and both HWMs of the slow one can hold
    config = BusConfig(events=LOOPBACK, control=None, hwm=10)
    with running_bus(config) as running:
        with zmq.Context() as context, context.socket(zmq.SUB) as slow:
            slow.set(zmq.RCVHWM, 10)
            slow.connect(running.events)
            slow.subscribe("sensebind/")
            while not slow.poll(50):
                running.bus.send(HEALTH, health())
            for k in range(count):
                running.bus.send(EVENT, event(f"E{k}", reason=big))
            until(lambda: sum(isinstance(m, Event) for m, _ in running.sent) == count)
            running.bus.send(EVENT, event("last", phase="end"))
            seqs = []
            while slow.poll(500):
                name, body = slow.recv_multipart()
                if name.decode() == EVENT:
                    seqs.append(json.loads(body)["seq"])
        assert running.bus.drops["bus.events"] == 0
    assert seqs == sorted(set(seqs))
    assert 0 < len(seqs) < count


def test_the_client_counts_gaps_per_topic_and_starts_anew_with_the_agent() -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.linger = 0
        port = publisher.bind_to_random_port("tcp://127.0.0.1")

        def publish(seq: int, boot_id: str = "boot1", retained: bool = False) -> None:
            message = msgspec.structs.replace(event(boot_id=boot_id), seq=seq, retained=retained)
            publisher.send_multipart([EVENT.encode(), msgspec.json.encode(message)])

        with Subscriber(f"tcp://127.0.0.1:{port}") as subscriber:
            while subscriber.receive(0.05) is None:
                publish(1)
            while subscriber.receive(0.05):
                pass
            for seq in (2, 3, 7):
                publish(seq)
            publish(5, retained=True)
            publish(8)
            publish(1, boot_id="boot2")
            publish(3, boot_id="boot2")
            for _ in range(7):
                assert subscriber.receive(PATIENCE_S) is not None
            assert subscriber.gaps == {EVENT: 4}
            publisher.send_multipart([EVENT.encode(), b"{}"])
            with pytest.raises(BusError, match="not a message"):
                subscriber.receive(PATIENCE_S)
            publisher.send_multipart([b"sensebind/v1/hat/smell/nose/", b"{}"])
            assert subscriber.receive(0.3) is None


def test_attachments_go_out_on_the_bulk_socket() -> None:
    config = BusConfig(events=LOOPBACK, control=None, bulk=LOOPBACK)
    with (
        running_bus(config) as running,
        zmq.Context() as context,
        context.socket(zmq.SUB) as socket,
    ):
        socket.connect(running.bus.endpoints["bus.bulk"])
        socket.subscribe("sensebind/v1/hat/preview/")
        while not socket.poll(50):
            running.bus.send(topic("hat", "preview", "camera"), score(), [b"jpeg"])
        frames = socket.recv_multipart()
    assert frames[0] == b"sensebind/v1/hat/preview/camera/"
    assert frames[2:] == [b"jpeg"]


def test_bulk_messages_go_nowhere_where_bulk_is_off() -> None:
    with running_bus() as running, Subscriber(running.events) as subscriber:
        joined(running, subscriber)
        running.bus.send(topic("hat", "preview", "camera"), score(), [b"jpeg"])
        running.bus.send(EVENT, event())
        until(lambda: any(isinstance(m, Event) for m, _ in running.sent))
        running.bus.send(EVENT, event(phase="end"))
        until(lambda: sum(isinstance(m, Event) for m, _ in running.sent) == 2)
        assert {type(m) for m, _ in running.sent} == {Event, Health}


def test_on_sent_is_told_the_message_and_the_time() -> None:
    clock = SystemClock()
    before = clock.now_ns()
    with running_bus() as running:
        running.bus.send(EVENT, event())
        until(lambda: running.sent)
    ((message, sent_ns),) = running.sent
    assert (message.seq, isinstance(message, Event)) == (1, True)
    assert abs(sent_ns - before) < PATIENCE_S * 1e9


@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_an_address_in_use_is_one_clear_line(scheme: str, tmp_path: Path) -> None:
    first = LOOPBACK if scheme == "tcp" else f"ipc://{tmp_path}/bus"
    with running_bus(BusConfig(events=first, control=None)) as running:
        second = bus_of(BusConfig(events=LOOPBACK, control=running.events))
        with pytest.raises(BusError, match=rf"^bus\.control: {scheme}://\S+ is in use: stop"):
            second.open()
        second.close()
    # A path that a dead agent left behind is no obstacle.
    again = bus_of(BusConfig(events=first, control=None))
    again.open()
    again.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("tcp://no_such_interface:5556", "is not an address of this machine"),
        ("tcp://203.0.113.7:5556", "is not an address of this machine"),
        ("ipc:///no/such/folder/bus", "cannot be bound: No such file"),
        ("ipc://" + "x" * 200, "has a path longer than 107 characters"),
    ],
)
def test_an_address_that_cannot_be_bound_is_named(address: str, says: str) -> None:
    bus = bus_of(BusConfig(events=address, control=None, insecure=True))
    with pytest.raises(BusError, match=rf"^bus\.events: {address} {says}"):
        bus.open()
    bus.close()


def test_an_exposed_address_is_refused_and_insecure_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ConfigError, match=r"bus\.events"):
        bus_of(BusConfig(events="tcp://0.0.0.0:*", control=None)).open()
    with caplog.at_level(logging.WARNING):
        bus = bus_of(BusConfig(events="tcp://0.0.0.0:*", control=None, insecure=True))
        bus.open()
        bus.close()
    assert "bus.events: open to every machine" in caplog.text


def test_run_needs_open() -> None:
    with pytest.raises(BusError, match="before open"):
        bus_of(BusConfig()).run(threading.Event())


def test_what_is_queued_at_stop_is_still_sent() -> None:
    with running_bus() as running, Subscriber(running.events) as subscriber:
        joined(running, subscriber)
        for k in range(500):
            running.bus.send(EVENT, event(f"E{k}"))
        running.stop.set()
        seqs = []
        while len(seqs) < 500:
            received = subscriber.receive(PATIENCE_S)
            assert received is not None
            seqs += [received[1].seq] if isinstance(received[1], Event) else []
        assert seqs == list(range(1, 501))
        until(lambda: running.bus._outbox._closed)
        running.bus.send(EVENT, event("too late"))
        assert running.bus.drops["bus.events"] == 1


def test_stop_before_the_first_step_still_sends_all() -> None:
    running = RunningBus(BusConfig(events=LOOPBACK, control=None))
    running.bus.open()
    for _ in range(100):
        running.bus.send(EVENT, event())
    running.stop.set()
    running.bus.run(running.stop)
    assert [m.seq for m, _ in running.sent] == list(range(1, 101))


def test_an_idle_bus_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    wait = Sockets.wait
    monkeypatch.setattr(Sockets, "wait", lambda s, ms: (waits.append(ms), wait(s, ms)))
    with running_bus() as running:
        running.bus.send(EVENT, event())
        until(lambda: running.sent)
        waits.clear()
        time.sleep(0.5)
        assert len(waits) < 50


def test_a_bus_leaves_no_descriptor_and_no_thread_behind() -> None:
    def held() -> tuple[int, int]:
        gc.collect()  # what earlier tests left goes now, and not in the middle of this one
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    def one_life() -> None:
        with running_bus() as running, Subscriber(running.events) as subscriber:
            joined(running, subscriber)
            assert request(running.control, "status", PATIENCE_S).ok

    one_life()
    before = held()
    for _ in range(5):
        one_life()
    until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


def test_close_is_idempotent_and_open_cleans_up_after_itself() -> None:
    bus = bus_of(BusConfig(events=LOOPBACK, control=LOOPBACK))
    bus.close()
    bus = bus_of(BusConfig(events=LOOPBACK, control=LOOPBACK))
    bus.open()
    bus.close()
    bus.close()
    bus.send(EVENT, event())


# Control, over real sockets


def test_a_request_is_answered_and_the_same_id_runs_once() -> None:
    with running_bus() as running:
        for _ in range(2):
            reply = request(running.control, "query.put", PATIENCE_S, request_id="r1", text="a cat")
            assert (reply.ok, reply.id, reply.result) == (True, "r1", {"text": "a cat"})
        assert len(running.asked) == 1
        refused = request(running.control, "reboot", PATIENCE_S)
        assert refused.error is not None
        assert refused.error.code == "unknown_op"


def test_req_clients_are_served_too_and_a_large_request_is_refused() -> None:
    with running_bus() as running, zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        socket.connect(running.control)
        for body, ok in [
            (b'{"op": "status", "id": "1"}', True),
            (b"rubbish", False),
            (b'"' + b"x" * (1 << 20) + b'"', False),
            (b'{"op": "status", "id": "2"}', True),
        ]:
            socket.send(body)
            assert socket.poll(PATIENCE_S * 1000)
            assert json.loads(socket.recv())["ok"] is ok


def test_a_client_that_comes_back_under_its_name_is_served_at_once() -> None:
    with (
        running_bus() as running,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as before,
        context.socket(zmq.DEALER) as again,
    ):
        for number, socket in enumerate((before, again)):
            socket.linger = 0
            socket.set(zmq.ROUTING_ID, b"robot")
            socket.connect(running.control)
            socket.send(msgspec.json.encode({"op": "status", "id": str(number)}))
            assert socket.poll(PATIENCE_S * 1000)
            assert json.loads(socket.recv())["id"] == str(number)


def test_a_huge_request_is_cut_off_and_the_agent_lives_on() -> None:
    with running_bus() as running:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(running.control)
            socket.send(bytes(8 << 20))
            assert not socket.poll(300)
        assert request(running.control, "status", PATIENCE_S).ok


def test_no_agent_means_no_answer_in_time() -> None:
    with pytest.raises(BusError, match=r"no answer to status within 0\.2 s"):
        request("tcp://127.0.0.1:9", "status", 0.2)
    with pytest.raises(BusError, match="cannot connect"):
        request("nowhere", "status", 0.2)


# CURVE


@pytest.fixture
def keys(tmp_path: Path) -> tuple[CurveConfig, ClientKeys, ClientKeys]:
    """The server's settings, a client that is let in and one that is not."""
    (tmp_path / "clients").mkdir()
    public, secret = create_certificates(tmp_path, "agent")
    _, robot = create_certificates(tmp_path / "clients", "robot")
    _, stranger = create_certificates(tmp_path, "stranger")
    return (
        CurveConfig(server_key=Path(secret), clients=tmp_path / "clients"),
        ClientKeys(own=Path(robot), server=Path(public)),
        ClientKeys(own=Path(stranger), server=Path(public)),
    )


def test_curve_lets_in_known_clients_only_and_counts_the_others(
    keys: tuple[CurveConfig, ClientKeys, ClientKeys], caplog: pytest.LogCaptureFixture
) -> None:
    curve, robot, stranger = keys
    config = BusConfig(events="tcp://0.0.0.0:*", control="tcp://0.0.0.0:*", curve=curve)
    with caplog.at_level(logging.DEBUG), running_bus(config) as running:
        events = running.events.replace("0.0.0.0", "127.0.0.1")
        control = running.control.replace("0.0.0.0", "127.0.0.1")
        with Subscriber(events, keys=robot) as subscriber:
            joined(running, subscriber)
        assert request(control, "status", PATIENCE_S, keys=robot).ok
        assert running.bus.rejected == 0

        wrong_server = ClientKeys(own=robot.own, server=robot.own)
        for bad in (stranger, wrong_server, None):
            seen = running.bus.rejected
            with Subscriber(events, keys=bad) as subscriber:
                until(lambda seen=seen: running.bus.rejected > seen)
                running.bus.send(HEALTH, health())
                assert subscriber.receive(0.2) is None
            with pytest.raises(BusError, match="no answer"):
                request(control, "status", 0.3, keys=bad)
        assert len(running.asked) == 1
        assert request(control, "status", PATIENCE_S, keys=robot).ok
    assert "a client was refused" in caplog.text
    for key_file in (curve.server_key, robot.own):
        secret = key_file.read_text().rsplit('"', 2)[1]
        assert len(secret) == 40
        assert secret not in caplog.text


def test_a_bad_key_file_is_a_config_error_before_anything_is_bound(
    keys: tuple[CurveConfig, ClientKeys, ClientKeys],
) -> None:
    curve, _, _ = keys
    curve.server_key.write_text("no key\n")
    bus = bus_of(BusConfig(events=LOOPBACK, control=None, curve=curve))
    with pytest.raises(ConfigError, match=r"bus\.curve\.server_key"):
        bus.open()
    assert bus.endpoints == {}
