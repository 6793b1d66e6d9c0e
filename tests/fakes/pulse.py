"""A PulseAudio server with one input, in a process of its own: a microphone without a device."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

__all__ = ["RATE_HZ", "PulseServer", "why_not"]

RATE_HZ = 48_000
START_S = 20
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


class PulseServer:
    """What is played to it is what its one input hears. `folder` holds its socket and settings.

    Programs find it by the environment, which `use` sets for this process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "xdg" / "pulse" / "native"
        self._process: subprocess.Popen[bytes] | None = None

    def use(self, environment: pytest.MonkeyPatch) -> None:
        self._socket.parent.mkdir(mode=0o700, parents=True)
        (self._folder / ".asoundrc").write_text("pcm.!default { type pulse }\n")
        environment.setenv("HOME", str(self._folder))
        environment.setenv("XDG_RUNTIME_DIR", str(self._folder / "xdg"))
        environment.setenv("PULSE_SERVER", f"unix:{self._socket}")

    def start(self) -> None:
        """Raises TimeoutError where it cannot be reached within START_S."""
        self._process = subprocess.Popen(
            [
                *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1"),
                *("--use-pid-file=no", "--log-target=stderr", "--log-level=error"),
                *("-L", f"module-native-protocol-unix auth-anonymous=1 socket={self._socket}"),
                # Without norewinds an idle sink gives its input in blocks of 2 s.
                *("-L", f"module-null-sink sink_name=fake rate={RATE_HZ} channels=1 norewinds=1"),
            ],
            stderr=subprocess.DEVNULL,
        )
        until_s = time.monotonic() + START_S
        command = ["pactl", "set-default-source", "fake.monitor"]
        while subprocess.run(command, capture_output=True, check=False).returncode:
            if time.monotonic() > until_s:
                self.stop()
                raise TimeoutError(f"PulseAudio did not start within {START_S} s")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def hang(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def play(self, sound: np.ndarray) -> None:
        """Play int16 (n, 1) at RATE_HZ to the end."""
        path = self._folder / "sound.wav"
        soundfile.write(path, sound, RATE_HZ)
        command = ["paplay", "-d", "fake", "--latency-msec=20", str(path)]
        subprocess.run(command, check=True, capture_output=True)
