"""tools.watch --scores beside a running agent, each in a process of its own."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.e2e.commands import ROOT, run
from tests.e2e.test_live import agent

CONFIG = ROOT / "configs" / "synthetic.yaml"
QUERIES = (
    "queries=[{id: always, text: a room, senses: [audio], gate: {enter: 0.0, exit: 0.0}},"
    " {id: never, text: a siren, streams: [camera, microphone], gate: {enter: 1.0}}]"
)


def test_what_an_agent_hears_now() -> None:
    with agent("--config", CONFIG, "--set", QUERIES, "--set", "bus.score_hz=4") as running:
        result = run("tools.watch", "--scores", "--address", running.events, "--duration", "8")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    times = [float(line.split("s ")[0]) for line in lines]
    assert len(lines) >= 2, result.stderr
    assert min(b - a for a, b in pairwise(times)) >= 0.99
    told = r'\d\.\d\d\*? "a (room|siren)" (microphone|camera) [+-]\d+\.\d'
    assert re.fullmatch(rf"\d+\.\ds {told}, {told}", lines[-1]), lines[-1]
    assert re.search(r'\* "a room" microphone', lines[-1])
    assert '* "a siren"' not in result.stdout


def test_an_agent_that_sends_none_is_told_how_to() -> None:
    with agent("--config", CONFIG, "--set", QUERIES, "--set", "bus.score_hz=0") as running:
        result = run("tools.watch", "--scores", "--address", running.events, "--duration", "5")
    assert (result.returncode, result.stdout) == (0, "")
    assert "--set bus.score_hz=2" in result.stderr
    assert len(result.stderr.splitlines()) == 1
