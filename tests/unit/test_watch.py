from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from agent.publish.client import Message
from agent.publish.events import topic
from tests.fakes.running_bus import running_bus
from tests.fakes.wire_messages import (
    ORIGIN_NS,
    event,
    evidence,
    health,
    score,
    sensor,
    stream_health,
)
from tools import watch
from tools.watch_view import WatchView

ROOT = Path(__file__).parents[2]


def text_of(view: WatchView, width: int = 110) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(view.render())
    return console.export_text()


def fed(*messages: Message) -> WatchView:
    view = WatchView(ORIGIN_NS)
    for message in messages:
        view.feed(message)
    return view


def line_with(text: str, part: str) -> str:
    (line,) = [line for line in text.splitlines() if part in line]
    return line


def test_an_empty_view_says_what_it_waits_for() -> None:
    text = text_of(WatchView())
    for note in ("none heard of yet", "nothing has happened yet", "no health message yet"):
        assert note in text


def test_sensors_show_state_reason_rate_and_losses() -> None:
    text = text_of(
        fed(
            sensor("camera"),
            sensor("imu", "offline", "unplugged", modality="imu"),
            health(streams=[stream_health(rate_hz=29.97, lost=7, age_ms=33.4)]),
        )
    )
    camera = line_with(text, "camera")
    assert [*camera.split()] == ["camera", "image", "online", "30", "Hz", "7", "33", "ms"]
    assert "offline  unplugged" in line_with(text, "imu")


def test_a_newer_status_is_not_hidden_by_an_older_health() -> None:
    view = fed(health(streams=[stream_health(state="online")]))
    view.feed(sensor("camera", "degraded", "frozen"))
    assert "degraded  frozen" in line_with(text_of(view), "camera")


def test_a_sensor_in_doubt_says_why() -> None:
    text = text_of(fed(health(streams=[stream_health(doubt="has hardly changed for 7 min")])))
    assert "online  has hardly changed for 7 min" in line_with(text, "camera")


def test_a_live_score_is_a_bar_with_its_threshold() -> None:
    bar = line_with(text_of(fed(score(0.5))), "a cat")
    assert "█" * 10 + "░" * 4 + "|" + "░" * 5 + " 0.50" in bar
    assert "quiet" in bar
    full = line_with(text_of(fed(score(1.0))), "a cat")
    assert "█" * 14 + "|" + "█" * 5 + " 1.00" in full


def test_a_query_fires_from_start_to_end() -> None:
    view = fed(event(start_s=2.0, end_s=2.5))
    assert "FIRING since 2.0s" in text_of(view)
    view.feed(event(phase="update", revision=2, start_s=2.0, end_s=4.0, value=0.97))
    assert "FIRING since 2.0s" in text_of(view)
    view.feed(event(phase="end", revision=3, start_s=2.0, end_s=5.5, reason="quiet"))
    text = text_of(view)
    assert "FIRING" not in text
    recent = line_with(text, "ended")
    assert [*recent.split()] == ["2.0s", "a", "cat", "ended", "camera", "0.93", "3.5s"]


def test_a_retained_copy_is_nothing_new() -> None:
    view = fed(event(revision=2))
    assert not view.feed(event(revision=2))
    assert not view.feed(event(revision=1))
    assert view.feed(event(revision=3, phase="end"))
    assert view.feed(sensor())
    assert not view.feed(sensor())


def test_only_the_newest_events_are_listed_newest_first() -> None:
    view = fed(*(event(f"E{k}", start_s=k, end_s=k, phase="end") for k in range(20)))
    text = text_of(view)
    times = [line.split()[0] for line in text.splitlines() if "ended" in line]
    assert times == [f"{k}.0s" for k in range(19, 11, -1)]
    assert line_with(text, "quiet").split()[-1] == "20"


def test_a_restarted_agent_leaves_nothing_open() -> None:
    view = fed(event(), sensor("imu"))
    view.feed(event("other", query="dog", label="a dog", phase="end", boot_id="boot2"))
    text = text_of(view)
    assert "FIRING" not in text
    assert "imu" not in text


def test_health_is_one_line_in_plain_words() -> None:
    line = line_with(text_of(fed(health())), "Agent")
    assert "cpu 41%" in line
    assert "memory 312 MB" in line
    assert "slowest step: total, p50 21 ms, p95 38 ms" in line


def test_markup_in_a_label_is_shown_as_it_is() -> None:
    view = fed(event(label="[red]a [cat]", seen=[evidence("[b]", "image")]))
    assert "[red]a [cat]" in text_of(view)


def test_without_an_origin_time_starts_at_the_first_message() -> None:
    view = WatchView()
    view.feed(event(start_s=5.0))
    assert view.elapsed_s(ORIGIN_NS + 7_000_000_000) == 2.0


def test_plain_is_one_line_an_event() -> None:
    with (
        running_bus() as running,
        subprocess.Popen(
            [sys.executable, "-m", "tools.watch", "--address", running.events],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        try:
            assert child.stdout is not None
            running.bus.send(topic("hat", "sensor", "camera"), sensor())
            running.bus.send(topic("hat", "event", "cat"), event(start_s=12.5, end_s=12.5))
            lines = [child.stdout.readline() for _ in range(2)]
            running.bus.send(
                topic("hat", "event", "cat"),
                event(start_s=12.5, end_s=14.0, phase="update", revision=2),
            )
            running.bus.send(
                topic("hat", "sensor", "camera"), sensor("camera", "offline", "unplugged", 13.0)
            )
            running.bus.send(
                topic("hat", "event", "cat"),
                event(start_s=12.5, end_s=15.25, phase="end", revision=3),
            )
            lines += sorted(child.stdout.readline() for _ in range(2))
        finally:
            child.kill()
    assert lines == [
        "0.0s online camera\n",
        '12.5s start "a cat" camera 0.93\n',
        "13.0s offline camera: unplugged\n",
        '15.2s end "a cat" camera 0.93\n',
    ]


def test_no_agent_is_said_once_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert watch.main(["--address", "tcp://127.0.0.1:9", "--duration", "0.7"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "no agent at tcp://127.0.0.1:9 yet, waiting (Ctrl-C to leave)\n"


def test_ctrl_c_is_the_ordinary_way_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "_watch_plain", interrupted)
    assert watch.main(["--plain"]) == 0


def test_a_bad_address_or_key_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert watch.main(["--address", "nowhere"]) == 4
    key = str(tmp_path / "none")
    assert watch.main(["--key", key, "--server-key", key]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(":")[:2] for line in errors] == [
        ["error", " nowhere"],
        ["error", " client key"],
    ]
    with pytest.raises(SystemExit, match="2"):
        watch.main(["--key", key])


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        watch.main(["--help"])
    assert "python -m tools.watch --plain" in capsys.readouterr().out
