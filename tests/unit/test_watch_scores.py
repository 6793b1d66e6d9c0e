from __future__ import annotations

import io
import select
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.publish.client import Message
from agent.publish.events import topic
from agent.wire import Evidence, Health, ScoreMessage
from tests.fakes.running_bus import running_bus
from tests.fakes.wire_messages import event, evidence, health, score
from tools import watch
from tools.watch_scores import ScoresView

ROOT = Path(__file__).parents[2]
WATCH = (sys.executable, "-m", "tools.watch")
MISSING = Evidence(stream="camera", modality="image", status="missing")


def text_of(view: ScoresView, width: int = 110) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(view.render())
    return console.export_text()


def fed(*messages: Message, top: int = 10) -> ScoresView:
    view = ScoresView(top)
    for message in messages:
        view.feed(message)
    return view


def at_most(message: ScoreMessage, per_hour: float | None, how: str) -> ScoreMessage:
    changed = msgspec.structs.replace(message.score, far_per_hour=per_hour, calibration=how)
    return msgspec.structs.replace(message, score=changed)


def asked(count: int) -> Health:
    return msgspec.structs.replace(health(), queries=count)


def rows(view: ScoresView) -> list[list[str]]:
    """What is looked for, and the other words of its row."""
    return [line.split() for line in text_of(view).splitlines()[2:]]


def test_a_row_says_all_that_decides() -> None:
    heard = msgspec.structs.replace(
        at_most(score(0.5), 0.5, "ready"), evidence=[evidence("microphone", "audio"), MISSING]
    )
    (row,) = text_of(fed(heard)).splitlines()[2:]
    assert "█" * 10 + "░" * 4 + "|" + "░" * 5 + " 0.50" in row
    assert row.split()[:2] == ["a", "cat"]
    assert row.split()[-6:] == ["0.70", "0.5", "microphone", "+5.2", "camera", "missing"]


@pytest.mark.parametrize(
    ("per_hour", "how", "told"),
    [
        (None, "prior", "-"),
        (1.0, "learning", "~1"),
        (0.00123, "ready", "0.0012"),
        (1234.5, "ready", "1234"),
    ],
)
def test_how_often_and_whether_that_is_known(per_hour: float | None, how: str, told: str) -> None:
    ((*_, often, _, _),) = rows(fed(at_most(score(), per_hour, how)))
    assert often == told


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 12))
def test_the_highest_come_first_and_no_more_than_top(values: list[float], top: int) -> None:
    view = fed(*(score(v, f"q{n}", f"label{n}") for n, v in enumerate(values)), top=top)
    got = [int(row[0].removeprefix("label")) for row in rows(view)]
    assert [values[n] for n in got] == sorted(values, reverse=True)[:top]
    assert ("--top" in text_of(view)) == (len(values) > top)


def test_a_query_that_is_no_longer_scored_goes_after_a_few_rounds() -> None:
    view = fed(score(query="cat", time_s=1.0), score(query="dog", label="a dog", time_s=1.0))
    for time_s in (1.5, 2.0):
        view.feed(score(query="cat", time_s=time_s))
        assert "a dog" in text_of(view), "a message may be lost on its way"
    view.feed(score(query="cat", time_s=2.5))
    assert "a dog" not in text_of(view)


def test_a_when_is_there_while_it_is_on() -> None:
    said = [msgspec.structs.replace(evidence("microphone", "audio"), query="bark")]
    view = fed(score(0.1), event(query="alarm", label="bark then cat", seen=said))
    assert "bark: microphone +5.2" in text_of(view)
    assert view.line().startswith('0.0s 0.93* "bark then cat" bark: microphone +5.2, 0.10 "a cat"')
    view.feed(event(query="alarm", phase="end", revision=2, seen=said))
    assert view.line() == '0.0s 0.10 "a cat" camera +5.2'


def test_of_an_agent_that_was_restarted_nothing_holds() -> None:
    view = fed(score(), event())
    view.feed(event("other", query="dog", label="a dog", phase="end", boot_id="boot2"))
    assert "a cat" not in text_of(view)


def test_why_there_are_none_is_said_once_that_is_known() -> None:
    assert fed(asked(3)).note == ""
    assert "bus.score_hz=2" in fed(asked(3), asked(3)).note
    assert "tools.query add" in fed(asked(3), asked(0)).note
    assert "no score yet" in text_of(ScoresView(1))


@pytest.mark.parametrize("width", [70, 200])
def test_a_long_label_costs_no_line(width: int) -> None:
    view = fed(*(score(0.5, f"q{n}", "[red]somebody " * 9) for n in range(3)))
    lines = text_of(view, width).splitlines()
    assert len([line for line in lines if "[red]" in line]) == 3
    assert max(map(len, lines)) <= width


def test_plain_is_one_line_a_second_of_whole_rounds() -> None:
    """The command in another process, fed over ZeroMQ twice a second by the scores' own time."""
    with (
        running_bus() as running,
        subprocess.Popen(
            [*WATCH, "--address", running.events, "--scores", "--top", "2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        try:
            assert child.stdout is not None
            # It is kept for whoever comes late, as scores are not.
            running.bus.send(topic("hat", "event", "b"), event(query="b", label="b", start_s=0))
            lines: list[str] = []
            for half in range(1, 1000):
                for number, name in enumerate("abc"):
                    told = score((half % 7 + number) / 10, name, name, time_s=half / 2)
                    running.bus.send(topic("hat", "score", name), told)
                if select.select([child.stdout], [], [], 0.02)[0]:
                    lines.append(child.stdout.readline())
                if len(lines) == 4:
                    break
        finally:
            child.kill()
    at_s = [float(line.split("s ")[0]) for line in lines]
    assert [b - a for a, b in pairwise(at_s)] == [1.0] * 3
    for seconds, line in list(zip(at_s, lines, strict=True))[1:]:  # it may join in mid-round
        low = round(seconds * 2) % 7 / 10
        b, c = f'{low + 0.1:.2f}* "b" camera +5.2', f'{low + 0.2:.2f} "c" camera +5.2'
        assert line == f"{seconds:.1f}s {c}, {b}\n"


def test_no_scores_and_a_bad_top_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with running_bus() as running:
        running.bus.send(topic("hat", "event", "cat"), event())
        args = ["--address", running.events, "--scores", "--plain", "--duration", "0.5"]
        assert watch.main(args) == 0
    assert capsys.readouterr() == ("", "")
    assert watch.main(["--scores", "--address", "tcp://127.0.0.1:9", "--duration", "0.7"]) == 0
    assert "no agent at" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        watch.main(["--scores", "--top", "0"])
    assert "--top: got 0, expected 1 or more" in capsys.readouterr().err
