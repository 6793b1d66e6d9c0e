"""Fusion and Matcher, with a space of unit axes: embeddings in, events out."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S, ManualClock
from agent.config import GateConfig, MatchConfig, QueryConfig
from agent.errors import SpaceMismatch
from agent.match.calibrated import Calibration
from agent.match.matcher import EventContext, Matcher
from agent.match.queries import QuerySet
from agent.types import Region, StreamInfo, Views
from agent.wire import ClockState, Event, Evidence, Model
from tests.fakes.space import FakeSpace, embed_query, seen
from tests.fakes.streams import stream

HOP_NS = NS_PER_S // 2
LOUD, QUIET = 0.9, 0.05
GATE = {
    "enter": 0.7, "exit": 0.4, "min_duration_s": 0.0,
    "hold_s": 1.0, "cool_down_s": 0.0, "update_s": 1.0,
}  # fmt: skip
MIC = stream("mic", "audio")
CAM = stream("cam", "image", frame_id="head")


class Rig:
    def __init__(
        self,
        *queries: QueryConfig,
        streams: tuple[StreamInfo, ...] = (MIC, CAM),
        gate: dict[str, float] | None = None,
        calibration: Calibration | None = None,
        **match: Any,
    ) -> None:
        self.clock = ManualClock()
        config = MatchConfig(gate=GateConfig(**(GATE | (gate or {}))), **match)
        self.queries = QuerySet(embed_query, config.gate)
        for query in queries:
            self.queries.put(query)
        context = EventContext(
            agent="test",
            boot_id="1",
            clock=self.clock,
            clock_state=lambda: ClockState(
                domain="log", offset_ns=0, uncertainty_ns=0, replay=True
            ),
            model=lambda: Model(space="fake@1", precision="fp32", provider="none"),
            drops=lambda: {"mic": 3},
        )
        space: Any = FakeSpace()  # the part of a Space that matching uses
        self.matcher = Matcher(config, self.queries, space, context, calibration)
        for info in streams:
            self.matcher.add_stream(info, HOP_NS)

    def at(self, t_s: float, stream: str = "mic", **cosines: float) -> list[Event]:
        end_ns = round(t_s * NS_PER_S)
        self.clock.advance_to_ns(end_ns + 5_000_000)
        return self.matcher.observe(seen(stream, end_ns, cosines))

    def tick(self, t_s: float) -> list[Event]:
        self.clock.advance_to_ns(round(t_s * NS_PER_S))
        return self.matcher.tick(round(t_s * NS_PER_S))


def text(word: str, **fields: Any) -> QueryConfig:
    return QueryConfig(text=word, **fields)


def brief(events: list[Event]) -> list[tuple[str, str, int, float, float]]:
    """(query, phase, revision, start in s, end in s)."""
    return [
        (e.query.id, e.phase, e.revision, e.start_time.ns / 1e9, e.end_time.ns / 1e9)
        for e in events
    ]


def test_an_event_from_its_start_to_its_end() -> None:
    rig = Rig(text("glass"))
    assert rig.at(1.0, glass=QUIET) == []
    (start,) = rig.at(1.5, glass=LOUD)
    assert brief([start]) == [("glass", "start", 0, 1.0, 1.5)]
    assert rig.at(2.0, glass=LOUD) == []
    (update,) = rig.at(2.5, glass=0.8)
    assert rig.at(3.0, glass=QUIET) == []
    (end,) = rig.at(3.5, glass=QUIET)
    assert brief([update, end]) == [
        ("glass", "update", 1, 1.0, 2.5),
        ("glass", "end", 2, 1.0, 2.5),
    ]
    assert start.id == update.id == end.id
    assert (start.reason, update.reason, end.reason) == ("", "", "quiet")
    assert start.drops == {"mic": 3}
    assert start.score.kind == "z_logistic"
    assert start.score.threshold == 0.7
    assert end.score.value >= start.score.value > 0.7
    assert rig.matcher.open_events == 0


def test_latencies_are_counted_from_the_window_to_the_vector_to_the_event() -> None:
    (start,) = Rig(text("glass")).at(1.5, glass=LOUD)
    latency = start.latency_ms
    assert (latency.capture_to_embed, latency.embed_to_event, latency.total) == (3.0, 2.0, 5.0)


def test_the_score_is_the_logistic_of_z() -> None:
    rig = Rig(text("glass"), z_mid=4.0, z_scale=0.7)
    rig.at(1.0, glass=0.4)
    (message,) = rig.matcher.scores(NS_PER_S)
    assert message.score.value == 0.5, "0.4 is four deviations of 0.1"
    (heard, looked) = message.evidence
    assert (heard.stream, heard.status, heard.cosine, heard.z) == ("mic", "ok", 0.4, 4.0)
    assert heard.window is not None
    assert heard.window.end.ns == NS_PER_S
    assert (looked.stream, looked.status, looked.cosine) == ("cam", "missing", None)


def test_evidence_says_what_is_stale_and_how_old() -> None:
    rig = Rig(text("glass"), max_age_s=2.0)
    rig.at(1.0, "cam", glass=0.5)
    (start,) = rig.at(3.0, "mic", glass=LOUD)
    assert [(e.stream, e.status, e.age_ms) for e in start.evidence] == [
        ("mic", "ok", None),
        ("cam", "ok", None),
    ]
    (message,) = rig.matcher.scores(3 * NS_PER_S + 1)
    stale = message.evidence[1]
    assert (stale.stream, stale.status, stale.age_ms) == ("cam", "stale", 2000.0)
    assert stale.frame_id == "head"


def test_evidence_is_used_up_to_its_age_and_not_beyond() -> None:
    rig = Rig(text("glass"), max_age_s=2.0)
    rig.at(1.0, glass=LOUD)
    assert rig.tick(3.0) == []
    (end,) = rig.tick(3.1)
    assert brief([end]) == [("glass", "end", 1, 0.5, 1.0)]
    assert end.reason == "stale"
    assert {e.status for e in end.evidence} == {"stale", "missing"}
    assert rig.tick(3.2) == []


def test_stale_evidence_ends_an_event_that_nothing_else_could() -> None:
    """With an exit of 0 every score holds an event open; no score at all does not."""
    rig = Rig(text("glass"), gate={"exit": 0.0})
    rig.at(1.0, glass=LOUD)
    assert [e.phase for e in rig.at(2.5, glass=0.0)] == ["update"]
    assert rig.tick(4.5) == []
    assert [e.phase for e in rig.tick(4.6)] == ["end"]


def test_silence_is_no_evidence_that_a_score_holds() -> None:
    rig = Rig(text("glass"), gate={"min_duration_s": 5.0})
    assert rig.at(1.0, glass=LOUD) == rig.tick(3.1) == []
    assert rig.at(6.0, glass=LOUD) == [], "the five seconds begin again"


def test_another_sense_does_not_lengthen_an_event() -> None:
    """A loud second in the microphone, and a camera that sees nothing of it, ten times as often."""
    rig = Rig(text("glass"))
    events = rig.at(1.0, "mic", glass=LOUD)
    for n in range(1, 50):
        if n % 5 == 0:
            events += rig.at(1.0 + n / 10, "mic", glass=QUIET)
        events += rig.at(1.0 + n / 10, "cam", glass=0.0)
    assert [row[1:] for row in brief(events)] == [("start", 0, 0.5, 1.0), ("end", 1, 0.5, 1.0)]


def test_held_evidence_is_no_duration() -> None:
    rig = Rig(text("glass"), gate={"min_duration_s": 0.4}, max_age_s=2.0)
    events = rig.at(1.0, "mic", glass=LOUD)
    for n in range(1, 5):
        events += rig.at(1.0 + n / 10, "cam", glass=0.0)
    assert events == []
    assert [e.phase for e in rig.at(1.5, "mic", glass=LOUD)] == ["start"]


def test_two_senses_hold_one_event() -> None:
    rig = Rig(text("glass"), gate={"update_s": 60.0})
    (start,) = rig.at(1.0, "mic", glass=LOUD)
    assert rig.at(1.2, "cam", glass=0.8) == rig.at(1.5, "mic", glass=QUIET) == []
    assert rig.at(1.7, "cam", glass=QUIET) == []
    (end,) = rig.at(2.2, "mic", glass=QUIET)
    assert brief([start, end]) == [("glass", "start", 0, 0.5, 1.0), ("glass", "end", 1, 0.5, 1.2)]


def test_an_event_begins_a_hop_of_its_own_stream_before_its_end() -> None:
    rig = Rig(text("glass"), streams=(), gate={"min_duration_s": 0.1})
    rig.matcher.add_stream(MIC, 100_000_000)
    rig.matcher.add_stream(CAM, 900_000_000)
    rig.at(1.0, "mic", glass=LOUD)
    (start,) = rig.at(1.1, "mic", glass=LOUD)
    assert start.start_time.ns == 900_000_000


def test_a_stream_that_may_not_answer_says_nothing() -> None:
    rig = Rig(text("glass", senses=["image"]), text("dog", streams=["mic"]))
    assert rig.at(1.0, "mic", glass=LOUD) == []
    (start,) = rig.at(1.1, "cam", glass=0.7, dog=0.7)
    assert start.query.id == "glass"
    assert [e.stream for e in start.evidence] == ["cam"]


def test_vectors_of_another_space_are_refused() -> None:
    rig = Rig(text("glass"))
    with pytest.raises(SpaceMismatch, match=r"stream mic: embedded in other@2, .* in fake@1"):
        rig.matcher.observe(seen("mic", NS_PER_S, {"glass": LOUD}, space="other@2"))


def test_an_agent_without_queries_has_no_events() -> None:
    rig = Rig()
    assert rig.at(1.0, glass=LOUD) == rig.tick(2.0) == rig.matcher.close() == []
    assert rig.matcher.scores(0) == []


def test_closing_ends_what_is_open_once() -> None:
    rig = Rig(text("glass"), text("dog"))
    rig.at(1.0, glass=LOUD)
    (end,) = rig.matcher.close()
    assert brief([end]) == [("glass", "end", 1, 0.5, 1.0)]
    assert end.reason == "shutdown"
    assert rig.matcher.close() == []
    assert rig.matcher.open_events == 0


@pytest.mark.parametrize("change", ["remove", "disable", "replace"])
def test_a_query_that_changes_ends_its_event(change: str) -> None:
    rig = Rig(text("glass", id="q"))
    (start,) = rig.at(1.0, glass=LOUD)
    if change == "remove":
        rig.queries.remove("q")
    elif change == "disable":
        rig.queries.enable("q", False)
    else:
        rig.queries.put(text("dog", id="q"))
    (end,) = rig.at(1.5, glass=LOUD)
    assert (end.phase, end.reason, end.id) == ("end", "query_changed", start.id)
    assert end.query == start.query, "its own revision, not the new one's"
    assert rig.matcher.open_events == 0


def test_a_query_switched_on_again_goes_on() -> None:
    rig = Rig(text("glass"))
    rig.queries.enable("glass", False)
    assert rig.at(1.0, glass=LOUD) == []
    rig.queries.enable("glass", True)
    assert [e.phase for e in rig.at(1.5, glass=LOUD)] == ["start"]


def test_one_query_cannot_have_two_events_of_one_id() -> None:
    rig = Rig(text("glass"), gate={"hold_s": 0.0})
    events = []
    for n in range(40):
        events += rig.at(1.0 + n * 0.1, glass=LOUD if n % 2 else QUIET)
    starts = [e for e in events if e.phase == "start"]
    assert len({e.id for e in starts}) == len(starts) > 5


script = st.lists(
    st.tuples(
        st.sampled_from(["mic", "cam"]),
        st.sampled_from([0.0, QUIET, 0.3, 0.45, 0.6, LOUD]),
        st.sampled_from([0.0, 0.2, 0.4]),
    ),
    min_size=5,
    max_size=60,
)


def play(script: list[Any], changes: dict[int, Any], *queries: QueryConfig) -> list[Event]:
    rig = Rig(*queries, prior_windows=4, memory_windows=50, gate={"hold_s": 0.3})
    events = []
    for n, (name, glass, dog) in enumerate(script):
        changes.get(n, lambda queries: None)(rig.queries)
        events += rig.tick(0.2 * n)
        events += rig.at(0.2 * n + 0.1, name, glass=glass, dog=dog)
    return events + rig.matcher.close()


@given(script=script, when=st.integers(0, 20), how=st.sampled_from(["put", "remove", "enable"]))
def test_a_change_of_one_query_leaves_the_others_nulls_and_gates_alone(
    script: list[Any], when: int, how: str
) -> None:
    def change(queries: QuerySet) -> None:
        if how == "put":
            queries.put(text("fall"))
        elif how == "remove":
            queries.remove("dog")
        else:
            queries.enable("dog", False)

    undisturbed = play(script, {}, text("dog"), text("glass"))
    disturbed = play(script, {when: change}, text("dog"), text("glass"))
    assert [e for e in disturbed if e.query.id == "glass"] == [
        e for e in undisturbed if e.query.id == "glass"
    ]


@given(script=script)
def test_the_same_embeddings_give_the_same_events_byte_for_byte(script: list[Any]) -> None:
    queries = (text("dog"), text("glass"))
    assert play(script, {}, *queries) == play(script, {}, *queries)


@given(script=script)
def test_events_are_whole(script: list[Any]) -> None:
    """start (update)* end of one id, revisions from 0, seen through several queries at once."""
    open_: dict[str, Event] = {}
    for event in play(script, {}, text("dog"), text("glass")):
        before = open_.pop(event.query.id, None)
        if event.phase == "start":
            assert before is None
            assert event.revision == 0
        else:
            assert before is not None
            assert (event.id, event.revision) == (before.id, before.revision + 1)
            assert event.end_time.ns >= before.end_time.ns
        if event.phase != "end":
            open_[event.query.id] = event
        assert event.start_time.ns <= event.end_time.ns
        assert len(event.id) == 26
    assert open_ == {}


@given(script=script, seed=st.integers(0, 100))
def test_the_order_of_queries_does_not_matter(script: list[Any], seed: int) -> None:
    queries = [text("dog"), text("glass"), text("fall")]
    shuffled = random.Random(seed).sample(queries, 3)
    key = lambda event: (event.query.id, event.start_time.ns, event.revision)  # noqa: E731 - a sort key
    assert sorted(play(script, {}, *queries), key=key) == sorted(
        play(script, {}, *shuffled), key=key
    )


@given(script=script)
def test_a_stream_that_may_not_answer_changes_nothing(script: list[Any]) -> None:
    query = text("glass", streams=["mic"])
    without = [step if step[0] == "mic" else ("cam", 0.0, 0.0) for step in script]

    def bare(events: list[Event]) -> list[Any]:
        return [(e.id, e.phase, e.start_time, e.end_time, e.score.value) for e in events]

    assert bare(play(script, {}, query)) == bare(play(without, {}, query))


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({"label": "a glass that breaks"}, True),
        ({"gate": GateConfig(enter=0.9)}, True),
        ({"streams": ["mic"]}, True),
        ({"text": "dog"}, False),
        ({"against": ["dog"]}, False),
    ],
)
def test_what_was_learned_of_a_query_hangs_on_what_is_asked_for(
    changed: dict[str, Any], kept: bool
) -> None:
    rig = Rig(text("glass", id="q"))
    for n in range(10):
        rig.at(1.0 + n / 2, glass=QUIET)
    (before,) = rig.matcher.scores(0)
    fields = {"text": "glass", "id": "q"} | changed
    assert rig.queries.put(QueryConfig(**fields)).ref.rev != before.query.rev
    (after,) = rig.matcher.scores(0)
    assert before.score.quiet_hours > 0
    assert (after.score.quiet_hours == before.score.quiet_hours) is kept
    assert (after.score.quiet_hours == 0) is not kept


def test_an_ulid_tells_its_time() -> None:
    """The first ten characters are the milliseconds of the start, in Crockford's base 32."""
    (start,) = Rig(text("glass")).at(1_700_000_000.0, glass=LOUD)
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    number = 0
    for letter in start.id[:10]:
        number = number * 32 + alphabet.index(letter)
    assert number == start.start_time.ns // 1_000_000


def test_quiet_windows_are_learned_and_an_events_are_not() -> None:
    rig = Rig(text("glass"), prior_windows=3)
    for n in range(3):
        (message,) = rig.matcher.scores(0)
        assert message.score.calibration == "prior"
        rig.at(1.0 + n / 2, glass=QUIET)
    (message,) = rig.matcher.scores(0)
    assert message.score.calibration == "learning"
    assert message.score.quiet_hours == pytest.approx(1.5 / 3600, abs=1e-4)
    for n in range(4):
        rig.at(3.0 + n / 2, glass=LOUD)
    (again,) = rig.matcher.scores(0)
    assert again.score.quiet_hours == message.score.quiet_hours


def parts(*cosines: float) -> Views:
    """Views whose cosines with "glass" are as given, side by side from the left."""
    width = 1 / len(cosines)
    vectors = np.stack([seen("cam", 0, {"glass": cosine}).vector for cosine in cosines])
    return Views(vectors, tuple(Region(i * width, 0.0, width, 1.0) for i in range(len(cosines))))


def look(rig: Rig, whole: float, *cosines: float) -> Evidence:
    """What the camera's evidence for "glass" is of a frame and its parts."""
    rig.clock.advance_to_ns(NS_PER_S)
    frame = seen("cam", NS_PER_S, {"glass": whole})
    rig.matcher.observe(replace(frame, views=parts(*cosines)) if cosines else frame)
    (message,) = rig.matcher.scores(NS_PER_S)
    return next(evidence for evidence in message.evidence if evidence.stream == "cam")


def test_the_best_part_of_a_frame_answers_with_the_whole_and_is_told() -> None:
    evidence = look(Rig(text("glass")), 0.2, 0.1, 0.6, 0.3)
    assert evidence.cosine == 0.4, "the mean of the whole's 0.2 and the best part's 0.6"
    assert evidence.z == 4.0
    assert evidence.region == Region(1 / 3, 0.0, 1 / 3, 1.0)


def test_each_query_has_the_part_that_answers_it() -> None:
    rig = Rig(text("glass"), text("dog"))
    rig.clock.advance_to_ns(NS_PER_S)
    both = [seen("cam", 0, {word: 0.8}).vector for word in ("glass", "dog")]
    regions = (Region(0, 0, 0.5, 1), Region(0.5, 0, 0.5, 1))
    frame = seen("cam", NS_PER_S, {"glass": 0.4, "dog": 0.4})
    (started, other) = rig.matcher.observe(replace(frame, views=Views(np.stack(both), regions)))
    assert (started.query.id, other.query.id) == ("glass", "dog")
    assert started.evidence[0].region == regions[0]
    assert other.evidence[0].region == regions[1]


@given(
    whole=st.floats(-0.9, 0.9),
    cosines=st.lists(st.floats(-0.9, 0.9), min_size=1, max_size=5),
)
def test_parts_never_make_a_frame_further_away(whole: float, cosines: list[float]) -> None:
    plain = look(Rig(text("glass")), whole)
    assert plain.region is None
    viewed = look(Rig(text("glass")), whole, *cosines)
    assert plain.cosine is not None
    assert viewed.cosine is not None
    assert viewed.cosine >= plain.cosine
    if max(cosines) <= whole:
        assert viewed == plain, "nothing is nearer than the whole"


def test_what_a_stream_learns_counts_its_views() -> None:
    """Else a tower with views would seem to see something in every ordinary frame."""
    rig = Rig(text("glass"), prior_windows=5)
    for number in range(1, 200):
        rig.clock.advance_to_ns(number * HOP_NS)
        frame = seen("cam", number * HOP_NS, {"glass": 0.0})
        rig.matcher.observe(replace(frame, views=parts(0.2, 0.0)))
    (message,) = rig.matcher.scores(number * HOP_NS)
    (camera,) = (evidence for evidence in message.evidence if evidence.stream == "cam")
    assert camera.cosine == 0.1
    assert camera.z is not None
    assert abs(camera.z) < 0.2, "0.1 is one deviation of what the prior has"
