"""A PulseAudio server in a process of its own: a microphone without a device."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from agent.clock import SystemClock
from agent.config_file import build_config
from agent.contracts import Driver
from agent.isolation.driver import make_driver
from tests.fakes.killable import Killable

__all__ = ["RATE_HZ", "PulseServer", "isolated_microphone", "why_not"]

RATE_HZ = 48_000
START_S = 20
# PulseAudio's names of what ALSA calls a device of four channels; with others it mixes them.
FOUR = "front-left,front-right,rear-left,rear-right"
# Writes a file of int16 at the pace of its rate, each 2 ms when the last tick of it is due, and
# says first when, by CLOCK_MONOTONIC in ns, its first tick is. PulseAudio takes what it has read
# to be captured just then, so larger pieces would be as much jitter of the source itself.
PACED = """
import sys, time
tick_bytes, rate_hz, path, fifo = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
sound, step = open(path, "rb").read(), rate_hz // 500 * tick_bytes
out = open(fifo, "wb", buffering=0)
start_ns = time.monotonic_ns()
print(start_ns, flush=True)
for number in range(len(sound) // step):
    left_ns = start_ns + (number + 1) * 2_000_000 - time.monotonic_ns()
    time.sleep(max(0, left_ns) / 1e9)
    out.write(sound[number * step : (number + 1) * step])
"""
APT = "libportaudio2 libasound2-plugins pulseaudio pulseaudio-utils"


def why_not() -> str | None:
    """What is missing here, for a skip; None where all is there."""
    try:
        import sounddevice  # noqa: F401  # whether it can be imported is the question
    except (ImportError, OSError) as exc:
        return f"no sounddevice ({exc}): pip install 'sensebind[microphone]'; apt install {APT}"
    missing = [name for name in ("pulseaudio", "pactl", "paplay") if shutil.which(name) is None]
    if not list(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
        missing.append("ALSA's pulse plugin")
    return f"no {', '.join(missing)}: apt install {APT}" if missing else None


def isolated_microphone(**fields: Any) -> Driver:
    """As the agent has it: in a process that can be killed when PortAudio cannot be ended."""
    raw = {"kind": "microphone", "read_timeout_s": 0.1, **fields}
    return make_driver(build_config({"drivers": {"mic": raw}}).drivers[0], SystemClock())


class PulseServer(Killable):
    """What is played to it is what its one input hears. `folder` holds its socket and settings.

    Programs find it by the environment, which `use` sets for this process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "xdg" / "pulse" / "native"

    def use(self, environment: pytest.MonkeyPatch) -> None:
        self._socket.parent.mkdir(mode=0o700, parents=True)
        (self._folder / ".asoundrc").write_text("pcm.!default { type pulse }\n")
        environment.setenv("HOME", str(self._folder))
        environment.setenv("XDG_RUNTIME_DIR", str(self._folder / "xdg"))
        environment.setenv("PULSE_SERVER", f"unix:{self._socket}")

    def start(self, fed_hz: int | None = None) -> None:
        """fed_hz: its one input is what `feed` gives, mono at this rate, and there is no sink.

        Raises TimeoutError where it cannot be reached within START_S.
        """
        # Without norewinds an idle sink gives its input in blocks of 2 s.
        made = f"module-null-sink sink_name=fake rate={RATE_HZ} channels=1 norewinds=1"
        source = "fake.monitor"
        (self._folder / "fifo").unlink(missing_ok=True)
        if fed_hz is not None:
            made = f"module-pipe-source {' '.join(self._source(fed_hz, 1))}"
            source = "fed"
        self._process = subprocess.Popen(
            [
                *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"),
                *("--use-pid-file=no", "--log-target=stderr", "--log-level=error"),
                *("-L", f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}"),
                *("-L", made),
            ],
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + START_S
        command = ["pactl", "set-default-source", source]
        while subprocess.run(command, capture_output=True, check=False).returncode:
            if time.monotonic() > until_s:
                self.stop()
                raise TimeoutError(f"PulseAudio did not start within {START_S} s")
            time.sleep(0.05)

    def unplug(self) -> None:
        """Take its one input away; the server lives."""
        command = ["pactl", "unload-module", "module-null-sink"]
        subprocess.run(command, check=True, capture_output=True)

    @contextmanager
    def feed(self, sound: np.ndarray, rate_hz: int) -> Iterator[int]:
        """Make another input the default one, and give it int16 (n, 1 or 4) at its pace.

        Yields when its first tick is due, by CLOCK_MONOTONIC in ns: what PulseAudio makes of the
        time is then to be held against the truth. On a busy machine the sound is late, but whole,
        where what `play` gives has holes.
        """
        fifo, path = self._folder / "fifo", self._folder / "sound.raw"
        path.write_bytes(sound.tobytes())
        channels = sound.shape[1]
        if not fifo.exists():
            made = self._source(rate_hz, channels)
            for command in (
                ["load-module", "module-pipe-source", *made],
                ["set-default-source", "fed"],
            ):
                subprocess.run(["pactl", *command], check=True, capture_output=True)
        tick_bytes = str(2 * channels)
        command = [sys.executable, "-c", PACED, tick_bytes, str(rate_hz), str(path), str(fifo)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            try:
                yield int(writer.stdout.readline())
            finally:
                writer.kill()

    def _source(self, rate_hz: int, channels: int) -> list[str]:
        """Of module-pipe-source, which makes the FIFO."""
        made = f"source_name=fed file={self._folder / 'fifo'} format=s16le rate={rate_hz}".split()
        made.append(f"channels={channels}")
        return [*made, f"channel_map={FOUR}"] if channels == 4 else made

    def play(self, sound: np.ndarray) -> None:
        """Play int16 (n, 1) at RATE_HZ to the end."""
        path = self._folder / "sound.wav"
        soundfile.write(path, sound, RATE_HZ)
        command = ["paplay", "-d", "fake", "--latency-msec=20", str(path)]
        subprocess.run(command, check=True, capture_output=True)
