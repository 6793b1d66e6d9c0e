"""The list of devices, with kinds that a package brings: each is asked in a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent import cli
from agent.clock import SystemClock
from agent.config_file import load_config
from agent.contracts import Device
from tests.e2e.commands import ROOT, run
from tests.fakes.package import install
from tests.fakes.pulse import PulseServer, why_not
from tools import device_search
from tools.device_config import without_doubles
from tools.device_search import Found, kinds, search
from tools.devices import main

MODULE = '''
from dataclasses import replace
import os

from agent.contracts import Device
from agent.errors import BadData, ConfigError, DeviceNotFound
from drivers.synthetic import SyntheticDriver

class Driver(SyntheticDriver):
    @staticmethod
    def discover():
        """Patterns made for a test,
        in no place at all.

        And more, that is not for the list.
        """
{discover}

{more}
'''
CONFIGS = ROOT / "configs"
STREAMS = {"it": {"modality": "imu", "rate_hz": 100}}

Bring = Callable[..., None]


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Install a package that offers one kind: the body of its `discover`, and of its class."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(folder), str(ROOT))))

    def bring(kind: str, *discover: str, more: str = "") -> None:
        lines = "\n".join(f"        {line}" for line in discover)
        inside = "\n".join(f"    {line}" for line in more.splitlines())
        (folder / f"kind_{kind}.py").write_text(MODULE.format(discover=lines, more=inside))
        install(folder, kind, f"kind_{kind}:Driver")

    return bring


def device(identity: str, kind: str = "fake", **fields: Any) -> str:
    """Source of a Device, whose settings are those of the synthetic driver."""
    settings = fields.pop("settings", {"streams": STREAMS})
    told = {"kind": kind, "name": "Pattern 3000", "identity": identity, "settings": settings}
    return f"Device(**{told | fields!r})"


def listed(capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    code = main([*args, "--json"])
    assert code in (0, 1)
    return json.loads(capsys.readouterr().out)


def test_devices_are_listed_in_order_with_their_block(
    bring: Bring, capsys: pytest.CaptureFixture[str]
) -> None:
    modes = ("100 Hz", "[bold]200 Hz[/bold]")
    bring("fake", f"return [{device('serial:2')}, {device('serial:1', modes=modes)}]")
    assert main(["--kind", "fake"]) == 0
    out = capsys.readouterr().out
    assert (
        out
        == """\
fake: 2 found
  Pattern 3000
    serial:1
    gives 100 Hz, [bold]200 Hz[/bold]
      fake:
        kind: fake
        streams:
          it:
            modality: imu
            rate_hz: 100
  Pattern 3000
    serial:2
      fake_2:
        kind: fake
        streams:
          it:
            modality: imu
            rate_hz: 100
"""
    )


def test_nothing_found_says_what_was_looked_for(
    bring: Bring, capsys: pytest.CaptureFixture[str]
) -> None:
    bring("fake", "return []")
    assert main(["--kind", "fake"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == (
        "fake: none found; looked for: Patterns made for a test, in no place at all"
    )
    assert "configs/synthetic.yaml" in out


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            "raise ConfigError('package \\'x\\' is not installed: run  pip install it')",
            "package 'x' is not installed: run  pip install it",
        ),
        ("import ctypes; ctypes.string_at(0)", "crashed (SIGSEGV)"),
        ("raise KeyError('a bug')", "failed: KeyError: 'a bug'"),
        ("os._exit(0)", "failed"),
        ("raise DeviceNotFound('rtsp://u:hunter2@door/1: no')", "rtsp://door/1: no"),
    ],
)  # fmt: skip
def test_a_kind_that_fails_costs_one_line(
    body: str, problem: str, bring: Bring, capsys: pytest.CaptureFixture[str]
) -> None:
    bring("fails", body)
    noise = "print('ALSA lib pcm.c: cannot'); os.write(1, b'more of it')"
    bring("works", noise, f"return [{device('serial:1', 'works')}]")
    fails, works = listed(capsys, "--kind", "works", "--kind", "fails")
    assert (fails["kind"], fails["problem"], fails["devices"]) == ("fails", problem, [])
    assert [found["identity"] for found in works["devices"]] == ["serial:1"]
    assert main(["--kind", "fails"]) == 0
    assert f"fails: could not look: {problem}" in capsys.readouterr().out.splitlines()


def test_a_kind_that_hangs_is_stopped(bring: Bring) -> None:
    bring("hangs", "import time; time.sleep(600)")
    (found,) = search({"hangs": "what hangs"}, SystemClock(), limit_s=1.0)
    assert found.problem == "no answer within 1 s; it was stopped"
    assert psutil.Process().children() == []


def test_a_device_that_hangs_is_stopped(
    bring: Bring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device_search, "CONNECT_LIMIT_S", 1.0)
    more = "def connect(self):\n    import time; time.sleep(600)"
    bring("fake", f"return [{device('serial:1')}]", more=more)
    assert main(["--kind", "fake", "--probe", "--seconds", "0.5"]) == 1
    assert "tried: no answer within 2 s; it was stopped" in capsys.readouterr().out
    assert psutil.Process().children() == []


def test_a_package_that_cannot_be_imported_costs_one_line(
    bring: Bring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring("broken", "return []")
    (tmp_path / "site" / "kind_broken.py").write_text("import no_such_package\n")
    (found,) = listed(capsys, "--kind", "broken")
    assert "No module named 'no_such_package'" in found["problem"]


def test_a_probe_measures_what_comes(bring: Bring, capsys: pytest.CaptureFixture[str]) -> None:
    """A device 5 s behind, 100 Hz in blocks of 5, of which each 10th is lost and one is bad."""
    more = """
reads = 0
@property
def streams(self):
    return tuple(replace(info, clock="device") for info in super().streams)
def read(self, timeout_s):
    samples = super().read(timeout_s)
    self.reads += 1
    if self.reads % 40 == 39:
        raise BadData("it: unreadable")
    return [replace(s, device_t_ns=s.t_ns - 5_000_000_000) for s in samples]
"""
    settings = {"streams": STREAMS, "drop_every": 10, "jitter_ms": 2}
    bring("fake", f"return [{device('serial:1', settings=settings)}]", more=more)
    (found,) = listed(capsys, "--kind", "fake", "--probe", "--seconds", "3")
    told = found["devices"][0]["probe"]
    assert told["problem"] == ""
    (stream,) = told["streams"]
    assert (stream["stream"], stream["modality"], stream["shape"]) == ("it", "imu", [6])
    assert stream["nominal_hz"] == 100
    assert 100 < stream["ticks"] < 290, "a tenth is missing"
    assert 80 < stream["rate_hz"] < 95, "of what comes, not of what should"
    assert stream["lost"] >= 10
    assert stream["bad"] >= 1
    assert stream["interval_p99_ms"] >= 10
    assert 0 <= stream["latency_p50_ms"] <= stream["latency_p99_ms"]
    assert stream["clock"] == "device"
    assert 5 <= stream["clock_offset_s"] < 6
    assert stream["clock_drift_ppm"] is None, "not in three seconds"
    assert main(["--kind", "fake", "--probe", "--seconds", "0.5"]) == 0
    out = capsys.readouterr().out
    assert " of 100 " in out
    assert "it: its clock + 5.0" in out


@pytest.mark.parametrize(
    ("more", "settings", "problem"),
    [
        ("def connect(self): raise DeviceNotFound('no such thing')", {}, "no such thing"),
        ("def connect(self): import ctypes; ctypes.string_at(0)", {}, "crashed (SIGSEGV)"),
        ("", {"streams": {"it": {"modality": "imu", "rate_hz": 0.1}}}, "nothing came of it"),
        ("", {"colour": 1}, "config: drivers.fake.colour: unknown field"),
    ],
)
def test_a_device_that_does_not_work_is_said(
    more: str,
    settings: dict[str, Any],
    problem: str,
    bring: Bring,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = {"streams": STREAMS} | settings
    bring("fake", f"return [{device('serial:1', settings=settings)}]", more=more)
    assert main(["--kind", "fake", "--probe", "--seconds", "0.5"]) == 1
    assert f"tried: {problem}" in capsys.readouterr().out


def test_a_config_is_written_and_is_good(
    bring: Bring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = "may not be opened; join its group: sudo usermod -aG video $USER"
    found = [
        device("serial:1", modes=("100 Hz",), name="Löwe #1:\n{x}"),
        device("by-path:usb-0:1", by_port=True),
        device("serial:3", problem=group),
    ]
    bring("fake", f"return [{', '.join(found)}]")
    path = tmp_path / "mine.yaml"
    assert main(["--kind", "fake", "--probe", "--seconds", "0.5", "--write", str(path)]) == 0
    told = capsys.readouterr()
    assert f"not usable: {group}" in told.out
    assert f"left out: fake Pattern 3000: {group}" in told.err
    assert f"{path}: written, with fake, fake_2" in told.err
    config = load_config(path)
    assert [entry.name for entry in config.drivers] == ["fake", "fake_2"]
    assert not any(entry.config.required for entry in config.drivers)
    text = path.read_text()
    assert "# Left out: may not be opened" in text
    assert "# Löwe #1: {x}, serial:1" in text
    assert "# Measured: it 100.00 Hz." in text
    assert "  # fake_3:\n" in text
    assert cli.main(["--config", str(path), "--check"]) == 0
    assert "good: 2 drivers" in capsys.readouterr().out
    before = path.read_bytes()
    assert main(["--kind", "fake", "--write", str(path)]) == 2
    assert "mine.yaml: is there already, expected a new file" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.yaml", "site"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            [device("by-path:a", by_port=True), device("by-path:b", by_port=True)],
            "fake 'Pattern 3000': by-path:a and by-path:b are identical",
        ),
        (
            [device("serial:0000"), device("serial:0000")],
            "fake 'Pattern 3000': serial:0000 and serial:0000 are identical",
        ),
        ([device("serial:1", problem="no")], "mine.yaml: not written: found 1 devices of which"),
        ([], "mine.yaml: not written: found 0 devices of which none can be used"),
        ([device("serial:1", settings={"streams": {}})], "drivers.fake.streams"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(
    found: list[str],
    expected: str,
    bring: Bring,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bring("fake", f"return [{', '.join(found)}]")
    assert main(["--kind", "fake", "--write", str(tmp_path / "mine.yaml")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if expected in line and line.startswith("error: ")]
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


def test_twins_are_listed_as_such_and_others_are_none(
    bring: Bring, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        device("by-path:a", by_port=True),
        device("by-path:b", by_port=True),
        device("by-path:c", by_port=True, name="Another"),
        device("serial:1"),
    ]
    bring("fake", f"return [{', '.join(found)}]")
    assert main(["--kind", "fake"]) == 0
    out = capsys.readouterr().out
    assert "by-path:a (of the port alone)" in out
    assert "not to be told apart but by their ports: by-path:a and by-path:b\n" in out


def test_of_devices_that_only_a_name_tells_one_is_written(
    bring: Bring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [device(f"name:{name}", name=name) for name in ("card", "default", "pulse")]
    bring("fake", f"return [{', '.join(names)}]")
    path = tmp_path / "mine.yaml"
    assert main(["--kind", "fake", "--write", str(path)]) == 0
    assert [entry.name for entry in load_config(path).drivers] == ["fake_2"]
    told = capsys.readouterr()
    assert (
        "left out: fake pulse: only a name tells it, and it may be the same as fake_2" in told.err
    )
    assert "not usable" not in told.out, "the list is of what there is"


def test_a_name_alone_is_not_written_beside_a_serial_number(bring: Bring, tmp_path: Path) -> None:
    names = [device("name:default", name="default"), device("serial:1"), device("serial:2")]
    bring("fake", f"return [{', '.join(names)}]")
    path = tmp_path / "mine.yaml"
    assert main(["--kind", "fake", "--write", str(path)]) == 0
    assert [entry.name for entry in load_config(path).drivers] == ["fake_2", "fake_3"]


@pytest.mark.parametrize(
    ("name", "kind", "double"),
    [
        ("Intel(R) RealSense(TM) Depth Ca", "realsense", True),
        ("Intel(R) RealSense(TM) Depth Ca", "imu", False),
        ("PureThermal (fw:v1.3.0)", "flir", True),
        ("HD Pro Webcam C920", "realsense", False),
    ],
)
def test_a_camera_that_has_a_kind_of_its_own_is_not_written_twice(
    name: str, kind: str, double: bool
) -> None:
    camera = Found("camera", Device("camera", name, "serial:1"))
    other = Found("other", Device(kind, "By its SDK", "serial:2"))
    told = [each.device.problem for each in without_doubles([camera, other])]
    assert told == ["it is the same as other" if double else "", ""]
    unusable = replace(other, device=replace(other.device, problem="not allowed"))
    assert without_doubles([camera, unusable]) == [camera, unusable]


def test_a_folder_that_is_not_there_is_said(
    bring: Bring, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bring("fake", f"return [{device('serial:1')}]")
    assert main(["--kind", "fake", "--write", str(tmp_path / "none" / "mine.yaml")]) == 2
    error = capsys.readouterr().err
    assert "none/mine.yaml: cannot be written (No such file or directory), expected" in error


def test_the_command_line_itself() -> None:
    told = run("tools.devices", "--help")
    assert told.returncode == 0
    assert "python -m tools.devices --write mine.yaml" in told.stdout
    for wrong in (("--kind", "toaster"), ("--seconds", "0"), ("--seconds", "nan")):
        result = run("tools.devices", *wrong)
        assert result.returncode == 2
        assert wrong[0] in result.stderr


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_a_real_microphone_is_found_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = PulseServer(tmp_path / "pulse")
    server.use(monkeypatch)
    server.start()
    path = tmp_path / "mine.yaml"
    try:
        (found,) = listed(capsys, "--kind", "microphone", "--probe", "--write", str(path))
    finally:
        server.stop()
    by_name = {device["name"]: device for device in found["devices"]}
    (stream,) = by_name["default"]["probe"]["streams"]
    assert stream["modality"] == "audio"
    assert stream["rate_hz"] == pytest.approx(stream["nominal_hz"], rel=0.05)
    assert stream["ticks"] > stream["nominal_hz"], "of two seconds"
    assert 0 <= stream["latency_p50_ms"] <= stream["latency_p99_ms"]
    (entry,) = load_config(path).drivers
    assert (entry.config.kind, entry.settings.device) == ("microphone", "default")


@pytest.mark.parametrize("name", ["laptop", "wearable"])
def test_a_config_for_devices_is_good_without_them(name: str) -> None:
    result = run("agent", "--config", f"configs/{name}.yaml", "--check")
    assert result.returncode == 0, result.stderr


def test_the_config_for_a_jetson_has_all_five_kinds() -> None:
    kinds_there = [entry.config.kind for entry in load_config(CONFIGS / "jetson.yaml").drivers]
    assert kinds_there == ["camera", "microphone", "realsense", "flir", "imu"]


def test_every_kind_says_what_it_looks_for() -> None:
    found = kinds()
    assert "synthetic" not in found, "there is nothing to find"
    assert all(told for told in found.values())
