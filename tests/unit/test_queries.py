"""QuerySet: ids, revisions, and when a vector is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import GateConfig, QueryConfig
from agent.errors import ConfigError
from agent.match.meaning import Meaning
from agent.match.queries import QuerySet
from tests.fakes.space import embed_query
from tests.fakes.streams import stream


class Counting:
    """`embed_query`, counted; a file is embedded as the text that it holds."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, config: QueryConfig) -> Meaning:
        self.calls += 1
        file = config.audio or config.image
        return embed_query(QueryConfig(text=file.read_text()) if file else config)


@pytest.fixture
def embed() -> Counting:
    return Counting()


@pytest.fixture
def queries(embed: Counting) -> QuerySet:
    return QuerySet(embed, GateConfig(enter=0.9))


def test_an_id_is_made_of_the_text(queries: QuerySet) -> None:
    query = queries.put(QueryConfig(text="glass"))
    assert (query.ref.id, query.ref.label) == ("glass", "glass")
    assert queries.put(QueryConfig(text="glass", label="A Broken Glass!")).ref.id == (
        "a_broken_glass"
    )
    assert queries.put(QueryConfig(text="glass", id="g")).ref.id == "g"
    assert [query.ref.id for query in queries.all()] == ["glass", "a_broken_glass", "g"]
    assert len(queries) == 3


def test_the_gate_is_its_own_or_the_default(queries: QuerySet) -> None:
    own = GateConfig(enter=0.6)
    assert queries.put(QueryConfig(text="glass")).gate == GateConfig(enter=0.9)
    assert queries.put(QueryConfig(text="dog", gate=own)).gate == own


def test_the_same_query_changes_nothing(queries: QuerySet, embed: Counting) -> None:
    first = queries.put(QueryConfig(text="glass"))
    version = queries.version
    assert queries.put(QueryConfig(text="glass")) is first
    assert queries.version == version
    assert embed.calls == 1


def test_a_changed_query_is_another_revision(queries: QuerySet, embed: Counting) -> None:
    first = queries.put(QueryConfig(id="q", text="glass"))
    second = queries.put(QueryConfig(id="q", text="glass", senses=["audio"]))
    assert second.ref.rev != first.ref.rev
    assert len(queries) == 1
    assert embed.calls == 2


def test_switching_off_and_on_keeps_revision_and_vector(queries: QuerySet, embed: Counting) -> None:
    first = queries.put(QueryConfig(text="glass"))
    off = queries.enable("glass", False)
    assert (off.key, off.meaning) == (first.key, first.meaning)
    assert queries.enabled() == []
    version = queries.version
    queries.enable("glass", True)
    assert queries.version > version
    assert [query.ref.id for query in queries.enabled()] == ["glass"]
    assert embed.calls == 1


def test_a_file_counts_by_its_content_and_name(
    queries: QuerySet, embed: Counting, tmp_path: Path
) -> None:
    here, there = tmp_path / "here" / "a.wav", tmp_path / "there" / "a.wav"
    for file in (here, there):
        file.parent.mkdir()
        file.write_text("glass")
    first = queries.put(QueryConfig(audio=here))
    assert (first.ref.id, first.ref.label) == ("a", "a")
    moved = queries.put(QueryConfig(audio=there))
    assert moved.ref.rev == first.ref.rev
    assert moved.config.audio == there
    assert embed.calls == 1
    there.write_text("dog")
    changed = queries.put(QueryConfig(audio=there))
    assert changed.ref.rev != first.ref.rev
    assert embed.calls == 2


def test_what_cannot_be_embedded_changes_nothing(queries: QuerySet, tmp_path: Path) -> None:
    queries.put(QueryConfig(id="q", text="glass"))
    version = queries.version
    with pytest.raises(ConfigError, match="no word of 'xyzzy' is known"):
        queries.put(QueryConfig(id="q", text="xyzzy"))
    with pytest.raises(ConfigError, match=r"query missing: .*missing\.wav: No such file"):
        queries.put(QueryConfig(audio=tmp_path / "missing.wav"))
    assert queries.get("q").config.text == "glass"
    assert queries.version == version


def test_an_unknown_id_is_said_with_those_that_there_are(queries: QuerySet) -> None:
    with pytest.raises(ConfigError, match="got 'dog', expected one of: none"):
        queries.remove("dog")
    queries.put(QueryConfig(text="glass"))
    with pytest.raises(ConfigError, match="got 'dog', expected one of: glass"):
        queries.enable("dog", True)
    queries.remove("glass")
    assert len(queries) == 0


@pytest.mark.parametrize(
    ("streams", "senses", "answers"),
    [
        (None, None, True),
        (["mic"], None, True),
        (["cam"], None, False),
        (None, ["audio"], True),
        (None, ["image"], False),
        (["mic"], ["image"], False),
        ([], None, False),
    ],
)
def test_a_query_listens_to_its_streams_and_senses(
    queries: QuerySet, streams: list[str] | None, senses: list[str] | None, answers: bool
) -> None:
    query = queries.put(QueryConfig(text="glass", streams=streams, senses=senses))
    assert query.may_answer(stream("mic", "audio")) is answers
