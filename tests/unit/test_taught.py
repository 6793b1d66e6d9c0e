"""A taught query's file and the last minutes of a stream: what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from agent.config import GateConfig, MatchConfig, QueryConfig, Taught
from agent.errors import ConfigError, SpaceMismatch
from agent.match.fusion import Fusion
from agent.match.queries import QuerySet
from agent.match.recent import HISTORY_S, Recent
from agent.match.taught import arrays_of, read_taught, taught_embedding
from tests.fakes.space import FakeSpace, axis, embed_query, seen
from tests.fakes.streams import stream
from tools.npz import write_npz

TAUGHT = Taught(
    space=FakeSpace.identity,
    modality="audio",
    vector=axis(1).astype("<f4").tobytes(),
    method="ridge",
    ordinary=(0.1, 0.05),
    source="--example 'my dog.wav'",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_dog.npz"
    write_npz(path, arrays_of(TAUGHT))
    return path


@pytest.fixture
def queries() -> QuerySet:
    return QuerySet(embed_query, GateConfig())


def test_a_file_holds_all_of_it(file: Path) -> None:
    assert read_taught(file) == TAUGHT


def test_it_goes_through_json_unchanged() -> None:
    config = QueryConfig(id="dog", taught=TAUGHT)
    text = msgspec.json.encode(config)
    assert msgspec.json.decode(text, type=QueryConfig) == config


def test_a_query_of_a_file_is_read_once_and_may_move(
    queries: QuerySet, file: Path, tmp_path: Path
) -> None:
    query = queries.put(QueryConfig(vector=file))
    assert (query.ref.id, query.ref.label) == ("my_dog", "my_dog")
    assert query.config.taught == TAUGHT
    np.testing.assert_array_equal(query.meaning.parts[0].embedding.vector, axis(1))
    moved = tmp_path / "elsewhere.npz"
    file.rename(moved)
    assert queries.enable("my_dog", False).ref.rev == query.ref.rev
    again = queries.put(QueryConfig(id="my_dog", label="my_dog", vector=moved))
    assert again.ref.rev == query.ref.rev


def test_it_is_for_the_sense_of_its_examples_unless_said(queries: QuerySet, file: Path) -> None:
    mic, cam = stream("mic", "audio"), stream("cam", "image")
    own = queries.put(QueryConfig(vector=file))
    assert (own.may_answer(mic), own.may_answer(cam)) == (True, False)
    said = queries.put(QueryConfig(vector=file, senses=["image"]))
    assert (said.may_answer(mic), said.may_answer(cam)) == (False, True)
    named = queries.put(QueryConfig(vector=file, streams=["cam"]))
    assert (named.may_answer(mic), named.may_answer(cam)) == (False, True)


def test_other_queries_keep_the_revision_that_they_had(queries: QuerySet) -> None:
    """Of before there were taught ones: what was learned by revision still counts."""
    assert queries.put(QueryConfig(text="glass")).ref.rev == "fcfc453e1bd7"


def test_its_null_starts_from_what_was_measured_with_it(queries: QuerySet) -> None:
    query = queries.put(QueryConfig(id="dog", taught=TAUGHT))
    fusion = Fusion(MatchConfig(), FakeSpace(), [query], {"mic": (stream("mic", "audio"), 1)})
    fusion.observe(seen("mic", NS_PER_S, {"dog": 0.6}))
    (evidence,) = fusion.evidence(0, NS_PER_S)
    assert evidence.z == pytest.approx((0.6 - 0.1) / 0.05, abs=1e-4)


def test_one_of_another_space_says_how_to_teach_it_again() -> None:
    with pytest.raises(SpaceMismatch) as told:
        taught_embedding(TAUGHT, "compact@2", FakeSpace.dim)
    assert str(told.value) == (
        "vector: was taught in fake@1, expected compact@2; teach it again: python -m tools.teach "
        "--space compact --example 'my dog.wav' --out FILE.npz"
    )
    marked = msgspec.structs.replace(TAUGHT, source="")
    with pytest.raises(SpaceMismatch, match=r"teach it again: query\.teach or tools\.teach"):
        taught_embedding(marked, "compact@2", FakeSpace.dim)


@pytest.mark.parametrize(
    "vector", [b"", b"abc", np.ones(4, "<f4").tobytes(), np.eye(5, dtype="<f4")[0].tobytes()]
)
def test_a_vector_that_is_none(vector: bytes) -> None:
    with pytest.raises(ConfigError, match="vector: "):
        embed_query(QueryConfig(id="it", taught=msgspec.structs.replace(TAUGHT, vector=vector)))


def test_files_that_are_none(queries: QuerySet, tmp_path: Path, file: Path) -> None:
    whole = file.read_bytes()
    for name, content in {
        "empty": b"",
        "text": b"not an archive",
        "cut": whole[: len(whole) // 2],
        "damaged": whole.replace(b"NUMPY", b"NUMPI"),
    }.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"query {name}: .*{name}\.npz: not a taught query"):
            queries.put(QueryConfig(vector=path))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.save(tmp_path / "lone.npy", np.zeros(3))
    write_npz(tmp_path / "odd.npz", arrays_of(TAUGHT) | {"method": np.array("guess")})
    write_npz(tmp_path / "nan.npz", arrays_of(TAUGHT) | {"ordinary": np.array([0, np.nan])})
    for name in ("other.npz", "lone.npy", "odd.npz", "nan.npz"):
        with pytest.raises(ConfigError, match=f"{name}: not a taught query"):
            read_taught(tmp_path / name)
    with pytest.raises(ConfigError, match="no such file, expected one that tools"):
        queries.put(QueryConfig(vector=tmp_path / "missing.npz"))
    assert len(queries) == 0


class TestRecent:
    def ended(self, recent: Recent, *seconds: float, name: str = "mic") -> None:
        for end_s in seconds:
            recent.add(seen(name, round(end_s * NS_PER_S), {"dog": 0.5}))  # each is 1 s long

    def test_a_mark_takes_the_whole_windows_inside_it(self) -> None:
        recent = Recent()
        self.ended(recent, 1, 1.5, 2, 2.5, 3)
        ends = [e.end_ns / NS_PER_S for e in recent.mark("mic", 2.0, 0.0)]
        assert ends == [2, 2.5, 3]
        ends = [e.end_ns / NS_PER_S for e in recent.mark("mic", 1.0, 0.5)]
        assert ends == [2.5]

    @given(st.lists(st.integers(1, 400), min_size=1, max_size=60))
    def test_the_last_minutes_are_kept_and_no_more(self, steps: list[int]) -> None:
        recent, ends = Recent(), np.cumsum(steps)
        self.ended(recent, *ends.tolist())
        kept = [e.end_ns // NS_PER_S for e in recent.mark("mic", 1e5, 0.0)]
        assert kept == [end for end in ends if end >= ends[-1] - HISTORY_S]

    @pytest.mark.parametrize(
        ("name", "seconds", "ago_s", "message"),
        [
            ("cam", 1.0, 0.0, "stream: got 'cam', expected one that gives vectors: mic"),
            ("mic", 0.5, 0.0, "no whole window in the 0.5 s .* expected at least 1 s"),
            ("mic", 2.0, 60.0, "that ended 60 s ago, .* of the last 2 s"),
        ],
    )
    def test_what_it_does_not_have(
        self, name: str, seconds: float, ago_s: float, message: str
    ) -> None:
        recent = Recent()
        self.ended(recent, 1, 2)
        with pytest.raises(ConfigError, match=message):
            recent.mark(name, seconds, ago_s)

    def test_nothing_yet(self) -> None:
        with pytest.raises(ConfigError, match="expected one that gives vectors: none yet"):
            Recent().mark("mic", 1.0, 0.0)
