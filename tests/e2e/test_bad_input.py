"""Bad input, through the real commands: one clear line, the right exit code, nothing written."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from mcap.writer import Writer

from tests.e2e.commands import ROOT, refused, run

GOOD = """\
drivers:
  eye: {kind: synthetic, streams: {eye: {modality: image, rate_hz: 10}}}
bus: {enabled: false}
queries:
  - text: a dog
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def test_the_good_config_is_good(config: Path) -> None:
    result = run("agent", "--config", config, "--check")
    assert result.returncode == 0, result.stderr
    assert "1 drivers, 1 queries" in result.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spaec: {path: compact}\n", ("bad.yaml:1", "spaec", "unknown field", "'space'")),
        ("match:\n  max_age_s: soon\n", ("bad.yaml:2", "match.max_age_s", "'soon'", "float")),
        ("bus: {hwm: 0}\n", ("bad.yaml:1", "bus.hwm", "0", ">= 1")),
        ("drivers:\n  cam: {kind: camcorder}\n", ("bad.yaml:2", "camcorder", "synthetic")),
        ("drivers:\n  cam: {speed: 1}\n", ("bad.yaml:2", "drivers.cam", "'kind' is missing")),
        ("agent: a\nagent: b\n", ("bad.yaml:2", "agent", "written twice")),
        ("queries:\n  - {text: a, image: b.png}\n", ("bad.yaml:2", "exactly one of")),
        ("queries:\n  - {audio: nowhere.wav}\n", ("nowhere.wav", "No such file")),
        ("queries:\n  - {text: a dog, senses: [smell]}\n", ("queries[0]", "'smell'", "audio")),
        ("queries:\n  - {text: a dog, streams: [eyes]}\n", ("queries.a_dog", "'eyes'", "eye")),
        ("space: {path: nowhere}\n", ("nowhere",)),
        ("space: {providers: [AbacusExecutionProvider]}\nqueries: [{text: a}]\n", ("Abacus",)),
        ("bus: {events: 'tcp://*:5556'}\n", ("bus.events", "tcp://*:5556", "insecure")),
        ("drivers: [\n", ("bad.yaml:", "not YAML")),
    ],
)
def test_a_bad_config_is_refused_in_one_line(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    if "drivers" not in text:
        path.write_text(
            text + "drivers: {eye: {kind: synthetic, streams: {eye: {modality: image}}}}\n"
        )
    result = run("agent", "--config", path, "--duration", "1")
    refused(result, 3 if "nowhere}" in text else 2, *words)


def test_missing_config_file(tmp_path: Path) -> None:
    refused(run("agent", "--config", tmp_path / "no.yaml"), 2, "no.yaml", "no such config file")


def test_bad_override(config: Path) -> None:
    refused(run("agent", "--config", config, "--set", "bus.hwm"), 2, "bus.hwm", "FIELD=VALUE")
    refused(run("agent", "--config", config, "--set", "bus.hmw=3"), 2, "hmw", "hwm")


def test_an_altered_tower_is_refused(config: Path, tmp_path: Path) -> None:
    space = tmp_path / "space"
    shutil.copytree(ROOT / "encoders" / "models" / "compact", space)
    tower = space / "image.int8.onnx"
    data = bytearray(tower.read_bytes())
    data[len(data) // 2] ^= 1
    tower.write_bytes(data)
    result = run("agent", "--config", config, "--set", f"space.path={space}", "--duration", "1")
    refused(result, 3, "image.int8.onnx", "sha256")
    tower.unlink()
    result = run("agent", "--config", config, "--set", f"space.path={space}", "--duration", "1")
    refused(result, 3, "image.int8.onnx")


def test_a_port_in_use(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        result = run(
            "agent", "--config", config, "--set", f"bus={{events: '{address}', control: null}}"
        )
    refused(result, 4, "bus.events", address, "in use")


def test_a_source_that_is_no_media_file(tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("these are notes\n" * 50)
    config = tmp_path / "media.yaml"
    for source, word in (("notes.mp4", "notes.mp4"), ("gone.mp4", "no such file")):
        config.write_text(
            f"drivers: {{film: {{kind: media, path: {source}}}}}\nbus: {{enabled: false}}\n"
        )
        refused(run("agent", "--config", config), 2, source, word)


def test_a_log_with_no_known_stream(tmp_path: Path) -> None:
    log = tmp_path / "words.mcap"
    with log.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("words.Word", "jsonschema", b'{"type": "object"}')
        channel = writer.register_channel("/words", "json", schema)
        for n in range(3):
            writer.add_message(channel, n * 10**9, b'{"word": "hello"}', n * 10**9)
        writer.finish()
    result = run(
        "tools.replay", "--log", log, "--query", "a dog", "--events", tmp_path / "out.jsonl"
    )
    refused(result, 2, "words.mcap", "/words", "image")
    assert not (tmp_path / "out.jsonl").exists()
    # Counting it is not a mistake.
    result = run("tools.replay", "--log", log, "--summary", tmp_path / "out.json")
    assert result.returncode == 0, result.stderr


def test_a_log_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "log.mcap").write_text("not a log")
    for name in ("log.mcap", "gone.mcap"):
        refused(run("tools.replay", "--log", tmp_path / name), 2, name)
    refused(run("tools.replay", "--log", tmp_path / "log.mcap", "--speed", "fast"), 2, "'fast'")


def test_a_recording_is_never_overwritten(config: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.mcap"
    kept.write_text("precious")
    refused(run("agent", "--config", config, "--record", kept), 5, "kept.mcap", "exists")
    assert kept.read_text() == "precious"
    missing = tmp_path / "no" / "log.mcap"
    refused(run("agent", "--config", config, "--record", missing), 5, "log.mcap")
