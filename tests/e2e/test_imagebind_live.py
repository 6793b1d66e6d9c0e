"""ImageBind's machinery end to end: exported from random weights, then run live by the agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.config_file import load_config
from agent.publish.client import Subscriber
from agent.wire import EmbeddingMessage, Health
from encoders.imagebind.dims import TINY
from tests.e2e.commands import ROOT, refused, run
from tests.e2e.test_live import agent

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
STREAMS = {
    "camera": "image",
    "second_camera": "image",
    "microphone": "audio",
    "depth": "depth",
    "thermal": "thermal",
    "imu": "imu",
}
CONFIG = """\
agent: six
space:
  path: ./tiny
  threads: 1
  towers: {imu: {hop_s: 0.5}}
drivers:
  senses:
    kind: synthetic
    streams:
      camera: {modality: image, rate_hz: 30, size: [640, 480]}
      second_camera: {modality: image, rate_hz: 15, size: [320, 240]}
      microphone: {modality: audio, rate_hz: 48000}
      depth: {modality: depth, rate_hz: 15}
      thermal: {modality: thermal, rate_hz: 9}
      imu: {modality: imu, rate_hz: 100}
queries:
  - text: a dog barking
  - text: someone fell
    senses: [imu]
bus:
  bulk: tcp://127.0.0.1:*
  preview_hz: 0
match: {max_age_s: 5}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config beside a folder that the real command has exported."""
    pytest.importorskip("torch")
    made = tmp_path_factory.mktemp("imagebind")
    result = run(
        "tools.export", "imagebind", "--random", "--dims", "tiny", "--seed", "1",
        "--out", made / "tiny",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (made / "six.yaml").write_text(CONFIG)
    return made


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_ships_is_valid(path: Path) -> None:
    load_config(path)


@pytest.mark.parametrize("name", ["jetson", "desktop_cuda"])
def test_a_config_for_a_gpu_says_that_nobody_ran_it(name: str) -> None:
    assert "UNTESTED ON HARDWARE" in (ROOT / "configs" / f"{name}.yaml").read_text()
    model = "../models/imagebind"
    result = run("agent", "--config", f"configs/{name}.yaml", "--check")
    refused(result, 3, model)


def test_the_exported_folder_is_checked(folder: Path) -> None:
    result = run("agent", "--config", folder / "six.yaml", "--check")
    assert result.returncode == 0, result.stderr


def test_six_streams_live_through_six_towers(folder: Path) -> None:
    vectors: dict[str, list[bytes]] = {name: [] for name in STREAMS}
    with agent("--config", folder / "six.yaml") as running:
        assert running.process.stdout is not None
        name, bulk = running.process.stdout.readline().split()
        assert name == "bus.bulk"
        with Subscriber(bulk) as bus:
            for _, told in bus.messages(20.0):
                # The IMU's first window is ten seconds long, but the others do not wait for it.
                assert isinstance(told, EmbeddingMessage)
                assert told.modality == STREAMS[told.stream]
                vectors[told.stream] += bus.attachments
                if min(map(len, vectors.values())) >= 3:
                    break
        with Subscriber(running.events) as bus:
            health = next(m for _, m in bus.messages(10.0) if isinstance(m, Health))
    assert health.model.space.startswith("imagebind@")
    assert {s.stream: s.modality for s in health.streams} == STREAMS
    assert {s.state for s in health.streams} == {"online"}
    assert not any(s.lost or s.bad for s in health.streams)
    assert not [name for name in health.drops if name.endswith(".encode")]
    assert min(map(len, vectors.values())) >= 3, {n: len(seen) for n, seen in vectors.items()}
    for name, seen in vectors.items():
        values = np.stack([np.frombuffer(vector, "<f2") for vector in seen]).astype(np.float32)
        assert values.shape[1] == TINY.out, name
        np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=2e-3)
