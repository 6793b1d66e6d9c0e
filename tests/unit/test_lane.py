"""Lane: batches over streams, in order; one bad window costs one window."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from agent.clock import ManualClock
from agent.config import TowerConfig
from agent.errors import EncodeFailed
from agent.stream.lane import Lane
from agent.stream.ring import Ring
from agent.stream.turns import Turns
from agent.stream.windows import Windows
from agent.supervise import ThreadGroup
from agent.types import Embedding, Window, WindowSpec
from tests.fakes.streams import block, stream

MS = 1_000_000


class FakeEncoder:
    """Vectors that name their window; a window with a tick of `poison` fails its batch."""

    modality, space, window = "audio", "fake@1", WindowSpec(0.1, 0.1)

    def __init__(self, poison: Sequence[int] = ()) -> None:
        self.poison = set(poison)
        self.batches: list[list[tuple[int, str]]] = []

    def load(self) -> None: ...

    def close(self) -> None: ...

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        self.batches.append([(w.end_ns // MS, w.stream.name) for w in windows])
        for window in windows:
            if self.poison & set(window.t_ns.tolist()):
                raise EncodeFailed(f"{window.stream.name}: will not go in")
        vector = np.array([1.0, 0.0], np.float32)
        return [
            Embedding(self.space, vector, "audio", w.stream.name, w.start_ns, w.end_ns)
            for w in windows
        ]


def lane_of(
    encoder: FakeEncoder,
    *names: str,
    ticks: int = 21,
    clock: ManualClock | None = None,
    max_backlog: int | None = None,
    config: TowerConfig | None = None,
) -> Lane:
    """Each stream has ticks at 0, 10, ... ms in one block: windows end at 100 and 200 ms."""
    lane = Lane(encoder, clock or ManualClock(), config)
    for name in names:
        info = stream(name)
        ring = Ring(info, 100)
        ring.push(block(info, 0, [n * 10 * MS for n in range(ticks)]))
        lane.add(Windows(ring, lane.spec, max_backlog=max_backlog))
    return lane


def ends(embeddings: Sequence[Embedding]) -> list[tuple[int, str]]:
    return [(e.end_ns // MS, e.stream) for e in embeddings]


def test_what_is_due_is_one_batch_in_order_of_time_and_stream() -> None:
    encoder = FakeEncoder()
    lane = lane_of(encoder, "right", "left")
    expected = [(100, "left"), (100, "right"), (200, "left"), (200, "right")]
    assert ends(lane.step(0)) == expected
    assert encoder.batches == [expected]
    assert lane.step(0) == []
    assert len(encoder.batches) == 1, "the encoder is not asked for nothing"


def test_a_window_that_cannot_be_encoded_costs_only_itself() -> None:
    encoder = FakeEncoder(poison=[110 * MS])
    lane = lane_of(encoder, "left", ticks=31)
    assert ends(lane.step(0)) == [(100, "left"), (300, "left")]
    assert lane.failed == 1
    assert [len(batch) for batch in encoder.batches] == [3, 1, 1, 1]


def test_a_lane_of_bad_windows_goes_on() -> None:
    encoder = FakeEncoder(poison=[50 * MS])
    lane = lane_of(encoder, "left", ticks=11)
    assert lane.step(0) == []
    assert lane.failed == 1
    ring = lane.windows[0].ring
    ring.push(block(ring.stream, 11, [200 * MS]))
    assert ends(lane.step(0)) == [(200, "left")]


def test_embeddings_say_when_they_were_ready_and_latencies_are_told() -> None:
    encoder = FakeEncoder()
    clock = ManualClock(250 * MS)
    lane = lane_of(encoder, "left", "right", clock=clock)
    told: list[tuple[str, float]] = []
    lane.on_latency = lambda hop, latency_s: told.append((hop, latency_s))
    assert {e.encoded_ns for e in lane.step(0)} == {250 * MS}
    assert told == [("window", 0.05)] * 4 + [("encode", 0.0)]


def test_a_running_lane_gives_what_comes_until_it_is_stopped() -> None:
    stop, got = threading.Event(), []
    lane = lane_of(FakeEncoder(), "left")

    def put(embedding: Embedding) -> None:
        got.append(embedding)
        if len(got) == 2:
            stop.set()

    lane.wake()
    lane.run(stop, Turns(1, ManualClock()), put)
    assert ends(got) == [(100, "left"), (200, "left")]


class Slow(FakeEncoder):
    """Each batch takes 250 ms, in which each stream goes on by 25 ticks."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.lane: Lane

    def encode(self, windows: Sequence[Window]) -> list[Embedding]:
        self.clock.advance_to_ns(self.clock.now_ns() + 250 * MS)
        for each in self.lane.windows:
            grow(each, 25)
        return super().encode(windows)


def grow(windows: Windows, ticks: int) -> None:
    ring = windows.ring
    ring.push(block(ring.stream, ring.head, [(ring.head + n) * 10 * MS for n in range(ticks)]))


def test_what_is_encoded_is_the_newest_there_is_when_the_lane_has_its_turn() -> None:
    """The lane waits for its turn while the stream goes on."""
    clock, stop, got = ManualClock(), threading.Event(), []
    lane = lane_of(FakeEncoder(), "left", ticks=11, clock=clock, max_backlog=1)
    turns = Turns(1, clock)

    def put(embedding: Embedding) -> None:
        got.append(embedding)
        stop.set()

    turns.ask("image")
    assert turns.try_start("image")
    lane.wake()
    with ThreadGroup() as group:
        group.start("lane", lambda _: lane.run(stop, turns, put))
        while not turns.waiting:
            stop.wait(0.001)
        grow(lane.windows[0], 30)
        turns.done("image")
        assert stop.wait(60)
    assert ends(got) == [(400, "left")]
    assert lane.windows[0].counts.skipped == 3


def test_a_lane_that_is_too_slow_is_never_more_than_a_hop_behind() -> None:
    clock = ManualClock()
    encoder = Slow(clock)
    encoder.lane = lane = lane_of(encoder, "left", "right", ticks=1, clock=clock, max_backlog=1)
    for each in lane.windows:
        grow(each, 10)
    clock.advance_to_ns(100 * MS)
    for _ in range(20):
        now = clock.now_ns()
        for embedding in lane.step(now):
            assert now - embedding.end_ns < 100 * MS
    taken = lane.windows[0].counts.taken
    assert taken == 20
    assert lane.windows[0].counts.skipped == (100 + 19 * 250) // 100 - taken
