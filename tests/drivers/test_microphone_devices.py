"""Which input is meant, what is told of each, and how it is opened: a made-up list of devices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import NS_PER_S, ManualClock, from_s
from agent.contracts import Device
from agent.errors import DeviceNotFound, ReadTimeout
from agent.types import Sample
from drivers._microphone import devices as found
from drivers._microphone.devices import find_input, list_devices
from drivers._microphone.resample import Resampler
from drivers._microphone.timeline import DeviceClock
from drivers.microphone import PLUGIN, MicrophoneConfig, MicrophoneDriver
from tests.contracts.driver_contract import START_NS
from tests.fakes.portaudio import FakeSounddevice
from tests.fakes.pulse import PulseServer, why_not

MS = 1_000_000
MISSING = why_not()


@pytest.fixture
def snd(tmp_path: Path) -> Path:
    for folder in ("by-id", "by-path"):
        (tmp_path / folder).mkdir()
    return tmp_path


def plug(snd: Path, card: int, port: str, by_id: str = "") -> None:
    """A sound card as udev shows it."""
    (snd / f"controlC{card}").touch()
    (snd / f"pcmC{card}D0c").touch()
    for folder, name in (("by-path", port), ("by-id", by_id)):
        if name:
            (snd / folder / name).symlink_to(f"../controlC{card}")


class TestFind:
    NAMES = ("USB Audio (hw:1,0)", "USB Audio (hw:2,0)", "HDA Intel (hw:0,0)", "pulse")

    @pytest.mark.parametrize(
        ("wanted", "index"),
        [("default", 0), (1, 1), ("1", 1), ("hda", 2), ("USB Audio (hw:2,0)", 1), ("PULSE", 3)],
    )
    def test_the_one_that_is_meant(self, wanted: str | int, index: int, snd: Path) -> None:
        assert find_input(FakeSounddevice(*self.NAMES), wanted, "mic", snd).index == index

    def test_a_whole_name_wins_over_a_part(self, snd: Path) -> None:
        assert find_input(FakeSounddevice("pulse in", "pulse"), "pulse", "mic", snd).index == 1

    def test_several_are_refused_and_named(self, snd: Path) -> None:
        named = (
            r"^mic: means several inputs: there are 0 'USB .*hw:1,0\)' of ALSA, 1 'USB [^,]*,0\)' "
        )
        with pytest.raises(DeviceNotFound, match=named) as refused:
            find_input(FakeSounddevice(*self.NAMES), "usb audio", "mic", snd)
        assert "HDA" not in str(refused.value)

    def test_two_of_the_very_same_name(self, snd: Path) -> None:
        with pytest.raises(DeviceNotFound, match=r"several inputs: there are 0 'a' .*, 1 'a' "):
            find_input(FakeSounddevice("a", "a"), "a", "mic", snd)

    def test_by_a_link_of_udev(self, snd: Path) -> None:
        plug(snd, 2, "pci-0-usb-0:3", "usb-Acme_77-00")
        sd = FakeSounddevice(*self.NAMES)
        for link in ("by-id/usb-Acme_77-00", "by-path/pci-0-usb-0:3"):
            assert find_input(sd, str(snd / link), "mic", snd).index == 1
        for link in ("by-id/nosuch", "/dev/null"):
            with pytest.raises(DeviceNotFound, match="is no input: there are 0 'USB"):
                find_input(sd, str(snd / link), "mic", snd)

    def test_none_at_all(self, snd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sd = FakeSounddevice()
        sd.names = ()
        with pytest.raises(DeviceNotFound, match="no sound card that can record, and no sound s"):
            find_input(sd, "default", "mic", snd)
        plug(snd, 0, "pci-0")
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(DeviceNotFound, match=r"pcmC0D0c is not yours: .*usermod -aG audio"):
            find_input(sd, "default", "mic", snd)


class TestDiscover:
    def listed(self, snd: Path, *names: str) -> list[Device]:
        return list_devices(FakeSounddevice(*names), snd)

    def test_each_setting_finds_its_own_and_no_other(self, snd: Path) -> None:
        plug(snd, 1, "pci-0-usb-0:1")
        plug(snd, 2, "pci-0-usb-0:2")
        plug(snd, 3, "pci-0-usb-0:4", "usb-Acme_77-00")
        names = ("USB (hw:1,0)", "USB (hw:2,0)", "Acme (hw:3,0)", "pulse", "pulse in")
        devices = self.listed(snd, *names)
        # Models, so that two of one kind have one name.
        assert [d.name for d in devices] == ["USB", "USB", "Acme", "pulse", "pulse in"]
        for index, device in enumerate(devices):
            config = msgspec.convert(device.settings, MicrophoneConfig)
            assert find_input(FakeSounddevice(*names), config.device, "mic", snd).index == index

    def test_a_serial_number_and_a_name(self, snd: Path) -> None:
        plug(snd, 1, "pci-0-usb-0:1", "usb-Acme_77-00")
        acme, pulse = self.listed(snd, "Acme (hw:1,0)", "pulse")
        assert (acme.identity, acme.by_port) == ("by-id:usb-Acme_77-00", False)
        assert (pulse.identity, pulse.settings) == ("name:pulse", {"device": "pulse"})
        assert not acme.problem + pulse.problem

    def test_two_without_serial_numbers_are_told_by_their_ports(self, snd: Path) -> None:
        plug(snd, 1, "pci-0-usb-0:1", "usb-Acme-00")  # udev links one of the two
        plug(snd, 2, "pci-0-usb-0:2")
        one, two = self.listed(snd, "Acme (hw:1,0)", "Acme (hw:2,0)")
        assert (one.identity, two.identity) == (
            "by-path:pci-0-usb-0:1",
            "by-path:pci-0-usb-0:2",
        )
        assert one.by_port
        assert two.by_port

    def test_two_that_nothing_tells_apart(self, snd: Path) -> None:
        devices = self.listed(snd, "a", "a")
        assert all(d.by_port and "another input has this name" in d.problem for d in devices)

    def test_one_that_is_not_allowed(self, snd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plug(snd, 4, "pci-0")
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        _, denied = self.listed(snd, "pulse")
        assert "pcmC4D0c is not yours: run  sudo usermod -aG audio $USER" in denied.problem

    @pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
    def test_for_real(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = PulseServer(tmp_path)
        server.use(monkeypatch)
        monkeypatch.setattr(found, "SND", tmp_path / "nothing")
        server.start()
        try:
            devices = {d.identity: d for d in MicrophoneDriver.discover()}
            pulse = devices["name:pulse"]
            assert pulse.modes[0].startswith("ALSA: up to 32 channels, 8000, 16000, ")
            config = msgspec.convert(pulse.settings, MicrophoneConfig)
            driver = PLUGIN("mic", config, ManualClock(START_NS))
            driver.connect()
            driver.disconnect()
        finally:
            server.stop()


class TestOpen:
    def opened(self, sd: FakeSounddevice, **fields: Any) -> tuple[int, int, tuple[int, ...], Any]:
        driver = PLUGIN("mic", MicrophoneConfig(**fields), ManualClock(START_NS))
        driver.connect()
        (info,) = driver.streams
        assert sd.stream is not None
        asked = sd.stream.asked
        driver.disconnect()
        assert sd.held == 0
        return asked["samplerate"], asked["channels"], info.shape, info.rate_hz

    def test_as_asked_where_the_device_can(self, sd: FakeSounddevice) -> None:
        assert self.opened(sd, rate_hz=44_100, channels=2) == (44_100, 2, (2,), 44_100)

    def test_at_its_own_rate_and_channels_where_it_cannot(self, sd: FakeSounddevice) -> None:
        sd.rates_hz, sd.counts = {16_000}, {8}
        assert self.opened(sd, rate_hz=48_000, channels=[1, 6]) == (16_000, 8, (2,), 48_000)

    def test_what_it_cannot_and_must_is_refused(self, sd: FakeSounddevice) -> None:
        sd.rates_hz = {16_000}
        with pytest.raises(DeviceNotFound, match=r"rate_hz 48000, channels 1: .*Invalid sample"):
            self.opened(sd, rate_hz=16_000, device_rate_hz=48_000)

    def test_a_gap_is_not_bridged_by_the_resampler(self, sd: FakeSounddevice) -> None:
        clock = ManualClock(START_NS)
        config = MicrophoneConfig(rate_hz=8000, device_rate_hz=16_000, queue_s=1)
        driver = PLUGIN("mic", config, clock)
        driver.connect()
        assert sd.stream is not None
        samples: list[Sample] = []
        for number in range(110):
            clock.advance_to_ns(START_NS + (number + 1) * 20 * MS)
            now_s = 5 + 0.02 * (number + 1)
            sd.stream.give(np.full((320, 1), 9, np.int16), now_s - 0.02, now_s)
            if number >= 99:  # the queue holds half of them
                with suppress(ReadTimeout):
                    while True:
                        samples += driver.read(0)
        driver.disconnect()
        seq = 0
        for sample in samples:
            assert sample.seq == seq + sample.lost
            seq = sample.seq + len(sample)
            off_ns = (
                sample.t_ns - START_NS - (sample.seq + np.arange(len(sample))) * NS_PER_S / 8000
            )
            assert np.abs(off_ns).max() < MS


class TestResampler:
    @given(
        st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000]),
        st.sampled_from([8000, 16_000, 44_100, 48_000]),
        st.lists(st.integers(1, 3000), min_size=1, max_size=30),
    )
    def test_any_blocks_give_what_the_whole_gives_at_its_times(
        self, in_hz: int, out_hz: int, sizes: Sequence[int]
    ) -> None:
        time_s = np.arange(sum(sizes)) / in_hz
        sound = np.round(9000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)[:, np.newaxis]
        resampler = Resampler(in_hz, out_hz, 1)
        parts, begin = [], 0
        for size in sizes:
            first_ns = START_NS + begin * NS_PER_S // in_hz
            parts.append(resampler.push(sound[begin : begin + size], first_ns))
            begin += size
        parts.append(resampler.flush())
        heard = np.concatenate([data for data, _ in parts])
        t_ns = np.concatenate([stamps for _, stamps in parts])
        whole = soxr.resample(sound, in_hz, out_hz)
        assert abs(len(heard) - len(whole)) <= 1
        both = min(len(heard), len(whole))
        assert (np.abs(heard[:both].astype(int) - whole[:both]) <= 2).all()  # dither
        exact = [START_NS + Fraction(k * NS_PER_S, out_hz) for k in range(len(t_ns))]
        assert all(abs(int(t) - e) <= 3 for t, e in zip(t_ns, exact, strict=True))


class TestDeviceClock:
    @given(
        st.sampled_from([0.0, 0.25, 1.7e9]),
        st.lists(st.integers(0, 15 * MS), min_size=150, max_size=150),
        st.integers(-100, 100),
    )
    def test_callbacks_that_are_late_do_not_move_it(
        self, epoch_s: float, late_ns: Sequence[int], drift_ppm: int
    ) -> None:
        clock = DeviceClock()
        for number, late in enumerate([0, *late_ns]):
            true_ns = START_NS + number * 20 * MS
            device_s = epoch_s + number * 0.02 * (1 + drift_ppm * 1e-6)
            offset_ns = clock.observe(device_s, true_ns + late)
            told_ns = from_s(device_s) + offset_ns
            # A window with no callback in time knows no better than its best one.
            best = min(late_ns[max(0, number - 100) : number] or [0])
            assert -MS < told_ns - true_ns < best + MS

    @pytest.mark.parametrize("step_s", [-3600.0, -0.5, 0.5, 3600.0])
    def test_a_clock_that_is_set_is_followed(self, step_s: float) -> None:
        clock, wrong = DeviceClock(), 0
        for number in range(100):
            now_ns = START_NS + number * 20 * MS
            device_s = 1.7e9 + number * 0.02 + (step_s if number >= 50 else 0)
            error_ns = from_s(device_s) + clock.observe(device_s, now_ns) - now_ns
            wrong += abs(error_ns) > MS
        assert wrong <= (10 if step_s < 0 else 0)


class TestConfig:
    @pytest.mark.parametrize(
        ("fields", "picked"),
        [({}, (0,)), ({"channels": 3}, (0, 1, 2)), ({"channels": [2, 0]}, (2, 0))],
    )
    def test_channels(self, fields: dict[str, Any], picked: tuple[int, ...]) -> None:
        assert msgspec.convert(fields, MicrophoneConfig).picked == picked

    def test_a_number_is_an_index(self) -> None:
        assert msgspec.convert({"device": 2}, MicrophoneConfig).device == 2

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ({"channels": [0, 3], "device_channels": 3}, "got 3, expected at least 4 for channels"),
            ({"watchdog_s": 0.5, "block_s": 0.4}, "watchdog_s: got 0.5, expected at least two"),
            ({"channels": []}, "length >= 1"),
            ({"channels": [64]}, "<= 63"),
            ({"device": -1}, ">= 0"),
        ],
    )
    def test_what_may_not_be(self, fields: dict[str, Any], told: str) -> None:
        with pytest.raises(msgspec.ValidationError, match=told):
            msgspec.convert(fields, MicrophoneConfig)
