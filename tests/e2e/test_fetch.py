"""Downloading weights from a real HTTP server: resumed, checked, refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from agent.errors import ConfigError, ModelMismatch, ModelMissing
from tests.e2e.commands import refused, run
from tests.fakes.range_server import RangeServer, serving
from tools.fetch import Weights, download

CONTENT = np.random.default_rng(1).bytes(3_000_000)
QUIET = Console(quiet=True)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with serving(CONTENT) as running:
        yield running


def weights(server: RangeServer, content: bytes = CONTENT) -> Weights:
    return Weights(server.url, len(content), hashlib.sha256(content).hexdigest(), "any")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_download_is_checked_and_named(server: RangeServer, tmp_path: Path) -> None:
    path = download(weights(server), tmp_path / "new", QUIET)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "new") == ["weights.bin"]


def test_a_broken_download_is_gone_on_with(server: RangeServer, tmp_path: Path) -> None:
    server.stop_after = 1_200_000
    with pytest.raises(ModelMissing, match=r"ended after 1200000 of 3000000 bytes; run it again"):
        download(weights(server), tmp_path, QUIET)
    assert names(tmp_path) == ["weights.bin.part"]
    server.stop_after = None
    path = download(weights(server), tmp_path, QUIET)
    assert path.read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1200000-"]


def test_a_server_without_ranges_starts_over(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "weights.bin.part").write_bytes(CONTENT[:1_000_000])
    server.ranges = False
    assert download(weights(server), tmp_path, QUIET).read_bytes() == CONTENT


def test_a_finished_file_asks_nothing_of_the_server(server: RangeServer, tmp_path: Path) -> None:
    download(weights(server), tmp_path, QUIET)
    (tmp_path / "weights.bin").rename(tmp_path / "weights.bin.part")
    download(weights(server), tmp_path, QUIET)
    download(weights(server), tmp_path, QUIET)
    assert server.asked == [""]


def test_other_content_is_refused_and_removed(server: RangeServer, tmp_path: Path) -> None:
    wanted = weights(server, b"something else" * 10)
    with pytest.raises(ModelMismatch, match=r"sha256 is \w{12} \(\d+ bytes\), expected"):
        download(wanted, tmp_path, QUIET)
    assert names(tmp_path) == []


def test_a_wrong_file_that_is_there_is_kept_and_told(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"mine")
    with pytest.raises(ModelMismatch, match=r"weights\.bin: sha256 is"):
        download(weights(server), tmp_path, QUIET)
    assert (tmp_path / "weights.bin").read_bytes() == b"mine"


def test_an_error_of_the_server_is_told(server: RangeServer, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(ModelMissing, match=r"weights\.bin: Not Found; 0 bytes are kept"):
        download(weights(server), tmp_path, QUIET)


def test_nobody_listens(server: RangeServer, tmp_path: Path) -> None:
    wanted = weights(server)
    server.shutdown()
    server.server_close()
    with pytest.raises(ModelMissing, match="refused"):
        download(wanted, tmp_path, QUIET)


def test_a_disk_that_is_too_small_is_told_first(server: RangeServer, tmp_path: Path) -> None:
    huge = Weights(server.url, 1 << 60, "0" * 64, "any")
    with pytest.raises(ConfigError, match=r"GB free, expected 1152921504.61"):
        download(huge, tmp_path, QUIET)
    assert server.asked == []


def test_a_folder_that_is_a_file(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="expected a folder to write in"):
        download(weights(server), tmp_path / "file", QUIET)


def test_the_command_shows_the_licence_and_wants_it_accepted(tmp_path: Path) -> None:
    result = run("tools.fetch", "imagebind-huge", "--out", tmp_path)
    assert result.returncode == 2
    assert "CC BY-NC-SA 4.0" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: --accept-licence: not given")


def test_the_command_refuses_a_mirror_of_something_else(
    server: RangeServer, tmp_path: Path
) -> None:
    result = run(
        "tools.fetch", "imagebind-huge", "--accept-licence", "--url", server.url, "--out", tmp_path
    )
    assert result.returncode == 3
    assert "ended after 3000000 of 4803584173 bytes" in result.stderr.splitlines()[-1]


def test_an_unknown_name_is_refused() -> None:
    result = run("tools.fetch", "imagebind-small")
    assert result.returncode == 2
    assert "imagebind-huge" in result.stderr


def test_refusal_is_one_line_once_the_licence_is_known(tmp_path: Path) -> None:
    result = run(
        "tools.fetch", "imagebind-huge", "--accept-licence", "--url", "nowhere", "--out", tmp_path
    )
    result.stderr = result.stderr.splitlines()[-1]
    refused(result, 3, "nowhere")
