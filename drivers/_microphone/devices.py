"""Which sound inputs there are, which one a config means, and what it can be told from others by.

PortAudio numbers devices anew at each start and knows no serial numbers. What Linux's udev knows
of a sound card stands in links under /dev/snd, whose targets name the card; PortAudio's name of
an ALSA input ends with its card and device, as in "USB Audio (hw:1,0)".
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.contracts import Device
from agent.errors import ConfigError, DeviceNotFound
from agent.extras import needs_extra

__all__ = ["SND", "SoundInput", "find_input", "import_sounddevice", "list_devices", "list_inputs"]

SND = Path("/dev/snd")
LIBRARY = "the PortAudio library is not installed: run  sudo apt-get install libportaudio2"
JOIN = "run  sudo usermod -aG audio $USER  and log in again"
# Those of speech, of Bluetooth and of the usual sound cards; a device may take others too.
RATES_HZ = (8000, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)

_HW = re.compile(r"\s*\(hw:(\d+),\d+\)$")
_CONTROL = re.compile(r"controlC(\d+)")


@dataclass(frozen=True)
class SoundInput:
    """PortAudio's description. channels: the most that it gives; a server may say any number."""

    index: int
    name: str
    host_api: str
    channels: int
    rate_hz: int

    @property
    def card(self) -> int | None:
        """ALSA's number of the card, None where it is not one device of one card."""
        found = _HW.search(self.name)
        return int(found[1]) if found else None

    @property
    def model(self) -> str:
        """The name without the card's number, which changes from start to start."""
        return _HW.sub("", self.name)

    def __str__(self) -> str:
        return f"{self.index} {self.name!r} of {self.host_api}"


def import_sounddevice() -> Any:
    """The module. Raises ConfigError where it or the PortAudio library is not installed."""
    with needs_extra("microphone"):
        try:
            import sounddevice
        except OSError as exc:  # it is there, and does not find the library
            raise ConfigError(LIBRARY) from exc
    return sounddevice


def list_inputs(sd: Any) -> list[SoundInput]:
    """Every input that PortAudio knew of when it was last started."""
    apis = sd.query_hostapis()
    return [
        SoundInput(
            index=d["index"],
            name=d["name"],
            host_api=apis[d["hostapi"]]["name"],
            channels=d["max_input_channels"],
            rate_hz=round(d["default_samplerate"]),
        )
        for d in sd.query_devices()
        if d["max_input_channels"] > 0
    ]


def find_input(sd: Any, wanted: str | int, label: str, snd: Path | None = None) -> SoundInput:
    """The one input that a config's `device` means (see MicrophoneConfig).

    Raises DeviceNotFound where it means none or several: `label` first, then each input.
    """
    inputs = list_inputs(sd)
    if not inputs:
        raise DeviceNotFound(f"{label}: there is no sound input: {_why_none(snd or SND)}")
    if wanted == "default":
        found = [i for i in inputs if i.index == _default_index(sd)]
    elif isinstance(wanted, int) or wanted.isdecimal():
        found = [i for i in inputs if i.index == int(wanted)]
    elif wanted.startswith("/"):
        card = _card_of(Path(wanted))
        found = [i for i in inputs if card is not None and i.card == card]
    else:
        whole = [i for i in inputs if wanted.lower() == i.name.lower()]
        part = [i for i in inputs if wanted.lower() in f"{i.name}, {i.host_api}".lower()]
        found = whole or part
    if len(found) != 1:
        what = "means several inputs" if found else "is no input"
        raise DeviceNotFound(f"{label}: {what}: there are {', '.join(map(str, found or inputs))}")
    return found[0]


def list_devices(sd: Any, snd: Path | None = None) -> list[Device]:
    """What `find_input` can find, each with the setting that means it and no other."""
    snd = snd or SND
    inputs = list_inputs(sd)
    by_id, by_path = _links(snd / "by-id"), _links(snd / "by-path")
    models = Counter((i.model, i.host_api) for i in inputs)
    cards = Counter(i.card for i in inputs)
    devices = []
    for one in inputs:
        twins = [i for i in inputs if (i.model, i.host_api) == (one.model, one.host_api)]
        # A link of udev is of the whole card, and of one of two that have the same serial number.
        alone = one.card is not None and cards[one.card] == 1
        wanted, identity, by_port, problem = one.model, f"name:{one.model}", False, ""
        if alone and all(i.card in by_id for i in twins):
            wanted, identity = str(by_id[one.card]), f"by-id:{by_id[one.card].name}"
        elif models[one.model, one.host_api] > 1 and alone and one.card in by_path:
            wanted, identity = str(by_path[one.card]), f"by-path:{by_path[one.card].name}"
            by_port = True
        elif models[one.model, one.host_api] > 1:
            wanted, identity, by_port = one.name, f"name:{one.name}", True
            problem = "another input has this name, and no serial number or port tells which is it"
        elif sum(one.model.lower() in f"{i.name}, {i.host_api}".lower() for i in inputs) > 1:
            wanted = one.name
        devices.append(
            Device(
                kind="microphone",
                name=one.model,
                identity=identity,
                settings={"device": wanted},
                by_port=by_port,
                modes=(f"{one.host_api}: up to {one.channels} channels, {_rates(sd, one)}",),
                problem=problem,
            )
        )
    known = {i.card for i in inputs}
    devices += [
        Device("microphone", path.name, f"name:{path.name}", problem=f"{path} is not yours: {JOIN}")
        for path in _denied(snd)
        if int(path.name[4:].partition("D")[0]) not in known
    ]
    return devices


def _default_index(sd: Any) -> int:
    index: int = sd.default.device[0]
    return index if index >= 0 else sd.query_hostapis(0)["default_input_device"]


def _rates(sd: Any, one: SoundInput) -> str:
    """The rates it takes. A device that is in use refuses each; then its own is told."""
    rates = []
    for rate_hz in RATES_HZ:
        try:
            sd.check_input_settings(one.index, 1, "int16", None, rate_hz)
        except sd.PortAudioError:
            continue
        rates.append(rate_hz)
    return f"{', '.join(map(str, rates or [one.rate_hz]))} Hz"


def _links(folder: Path) -> dict[int | None, Path]:
    """Card number -> its link in one of udev's folders."""
    links: dict[int | None, Path] = {}
    for link in sorted(folder.glob("*")):
        card = _card_of(link)
        if card is not None:
            links.setdefault(card, link)
    return links


def _card_of(path: Path) -> int | None:
    found = _CONTROL.fullmatch(path.resolve().name)
    return int(found[1]) if found else None


def _denied(snd: Path) -> Sequence[Path]:
    """Inputs of sound cards that this user may not open; PortAudio does not list them."""
    return [p for p in sorted(snd.glob("pcmC*D*c")) if not os.access(p, os.R_OK | os.W_OK)]


def _why_none(snd: Path) -> str:
    denied = _denied(snd)
    if denied:
        return f"{denied[0]} is not yours: {JOIN}"
    return "no sound card that can record, and no sound server (pulseaudio, pipewire) that answers"
