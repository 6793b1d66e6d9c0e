"""docs/wire-contract.md and docs/wire-schema.json say what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from agent import wire
from agent.config import CurveConfig
from agent.control import OPS
from agent.health import HOPS
from agent.publish.security import server_keys
from agent.wire import Event, Health, ScoreMessage, SensorStatus, WireStruct
from tests.fakes.running_bus import running_bus
from tests.fakes.wire_messages import embedding, event, health, preview, score, sensor

DOCS = Path(__file__).parents[2] / "docs"
CONTRACT = (DOCS / "wire-contract.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", CONTRACT, re.DOTALL)


def schema_of(name: str) -> dict[str, Any]:
    schemas = json.loads((DOCS / "wire-schema.json").read_text())
    return {**schemas["messages"][name], "$defs": schemas["$defs"]}


def test_the_schema_is_what_its_command_makes() -> None:
    written = json.loads((DOCS / "wire-schema.json").read_text())
    assert written == wire.json_schemas()
    assert "json.dumps(w.json_schemas(), indent=2)" in code_blocks("sh")[0]


@pytest.mark.parametrize("message", [event(), score(), sensor(), health(), embedding(), preview()])
def test_a_message_fits_its_schema_and_reads_back_the_same(message: WireStruct) -> None:
    body = wire.encode(message)
    Draft202012Validator(schema_of(type(message).__name__)).validate(json.loads(body))
    assert msgspec.json.decode(body, type=type(message)) == message


@pytest.mark.parametrize(
    "kind",
    [
        Event,
        ScoreMessage,
        SensorStatus,
        Health,
        wire.StreamHealth,
        wire.EmbeddingMessage,
        wire.Preview,
        wire.Attachment,
    ],
)
def test_the_contract_names_every_field(kind: type[WireStruct]) -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", CONTRACT))
    assert {field.name for field in msgspec.structs.fields(kind)} - named == set()


def test_the_contract_names_every_part_of_a_score_and_of_evidence() -> None:
    named = set(re.findall(r"`([a-z0-9_]+)`", CONTRACT))
    for kind in (wire.Score, wire.Evidence, wire.Latency, wire.ClockState, wire.Model):
        assert {field.name for field in msgspec.structs.fields(kind)} - named == set()
    assert {*HOPS} - named == set()


def test_the_contract_names_every_operation() -> None:
    section = CONTRACT[CONTRACT.index("## Control") :]
    assert set(re.findall(r"^\| `([a-z.]+)`", section, re.MULTILINE)) == set(OPS)


def test_the_ten_line_subscriber_works() -> None:
    example = next(code for code in code_blocks("python") if "socket.subscribe" in code)
    assert len([line for line in example.splitlines() if line.strip()]) == 10
    with running_bus() as running:
        running.bus.send("sensebind/v1/hat/event/cat/", event())
        code = example.replace("tcp://127.0.0.1:5556", running.events)
        assert code != example
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        ) as child:
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "start a cat 0.93\n"
            finally:
                child.kill()


def test_the_control_example_works(capsys: pytest.CaptureFixture[str]) -> None:
    example = next(code for code in code_blocks("python") if "query.put" in code)
    with running_bus() as running:
        exec(example.replace("tcp://127.0.0.1:5557", running.control), {})
    assert capsys.readouterr().out == "True {'text': 'a dog barking'}\n"


def test_the_key_commands_make_what_the_agent_takes(tmp_path: Path) -> None:
    commands = next(code for code in code_blocks("sh") if "create_certificates" in code)
    commands = commands.replace("python -c", f"{sys.executable} -c")
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True, timeout=60)
    keys = tmp_path / "keys"
    server_keys(CurveConfig(server_key=keys / "agent.key_secret", clients=keys / "clients"))
    assert [p.name for p in (keys / "clients").iterdir()] == ["robot.key"]
    assert (keys / "agent.key_secret").stat().st_mode & 0o077 == 0
