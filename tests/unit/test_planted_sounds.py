"""An hour of sound: where what is planted is, how loud, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import NS_PER_S
from encoders.bind.splits import held_out
from tests.fakes.training import make_training, names, noise_burst
from tools import planted_sounds
from tools.planted_sounds import HZ, ROOMS, Room, audible, pcm
from tools.planting import Plant, Planted

SECONDS = 8.0
ROOM = Room(0.0, 0.01)


def heard(plants: list[Plant], room: Room = ROOM, gain: float = 1.0, seed: int = 5) -> np.ndarray:
    """float64 (n,) of full scale."""
    made = pcm(plants, SECONDS, room, gain, np.random.default_rng(seed))
    assert made.dtype == np.int16
    assert made.shape == (SECONDS * HZ, 1)
    return made[:, 0] / 32768


@lru_cache
def quiet(room: Room, seed: int = 5) -> np.ndarray:
    return heard([], room, seed=seed)


def planted(seconds: float = 1.0, seed: int = 1) -> Planted:
    wave = np.random.default_rng(seed).normal(size=round(seconds * HZ))
    wave /= np.sqrt(np.mean(wave**2))
    return Planted("dog", "made", wave.astype(np.float32), seconds)


def decibels(ratio: float) -> float:
    return 20 * float(np.log10(ratio))


def share_from(hz: float, wave: np.ndarray) -> float:
    """dB of what lies at `hz` and above, over all of it."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    return decibels(np.sqrt(power[np.fft.rfftfreq(len(wave), 1 / HZ) >= hz].sum() / power.sum()))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_noise_falls_by_its_exponent_from_20_hz_on(exponent: float) -> None:
    made = audible(np.random.default_rng(0).normal(size=4 * HZ), exponent)
    assert np.sqrt(np.mean(made**2)) == pytest.approx(1)
    power = np.abs(np.fft.rfft(made)) ** 2  # by quarters of a Hz
    assert power[: 4 * 20].max() < 1e-12 * power[4 * 20 :].max()
    low, high = power[4 * 20 : 4 * 200].mean(), power[4 * 2000 : 4 * 7000].mean()
    expected = np.mean(np.arange(20.0, 200, 0.25) ** -exponent) / np.mean(
        np.arange(2000.0, 7000, 0.25) ** -exponent
    )
    assert 10 * np.log10(low / high / expected) == pytest.approx(0, abs=0.6)


def test_silence_stays_silent() -> None:
    np.testing.assert_allclose(audible(np.full(HZ, 0.5)), 0, atol=1e-6)


@settings(max_examples=6)
@given(from_s=st.floats(0, SECONDS - 1), db=st.floats(-6, 12), room=st.sampled_from(ROOMS))
def test_a_sound_is_where_and_as_loud_as_its_plant_says(
    from_s: float, db: float, room: Room
) -> None:
    plant = Plant(planted(), from_s, db)
    added = heard([plant], room) - quiet(room)
    at = np.flatnonzero(added)
    assert at[0] / HZ == pytest.approx(from_s, abs=3 / HZ)  # a soft tick may round to nothing
    assert (at[-1] + 1) / HZ == pytest.approx(plant.to_s, abs=3 / HZ)
    own = added[at[0] : at[-1] + 1]
    assert decibels(np.sqrt(np.mean(own**2)) / room.rms) == pytest.approx(db, abs=0.1)


def test_a_room_is_as_loud_as_it_says_but_for_its_wandering() -> None:
    """Its hum left out, of a level that wanders by 2 dB from minute to minute."""
    levels = [decibels(float(np.std(quiet(ROOM, seed))) / ROOM.rms) for seed in range(6)]
    assert np.mean(levels) == pytest.approx(0, abs=1.5)
    assert 0.3 < np.std(levels) < 4


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_level_is_of_what_can_be_heard(room: Room) -> None:
    """Within 0.1 dB of that of white noise that wanders as it does, and none of it below 20 Hz."""
    seconds = 61.0  # one of its loops
    made, white = (
        pcm([], seconds, one, 1.0, np.random.default_rng(5))[:, 0] / 32768
        for one in (replace(room, hum=0.0), Room(0.0, room.rms))
    )
    assert share_from(20, made) == pytest.approx(0, abs=0.01)
    assert decibels(np.std(made) / np.std(white)) == pytest.approx(0, abs=0.1)


def test_hum_is_of_its_frequency_and_a_share_of_the_noise() -> None:
    humming = Room(ROOM.exponent, ROOM.rms, 60.0, 0.5)
    hum = quiet(humming) - quiet(ROOM)
    assert np.std(hum) == pytest.approx(0.5 * ROOM.rms, rel=0.02)
    assert np.argmax(np.abs(np.fft.rfft(hum))) == 60 * SECONDS


def test_gain_is_of_all_of_it() -> None:
    plants = [Plant(planted(), 2.0, 6.0)]
    np.testing.assert_allclose(heard(plants, gain=0.5), 0.5 * heard(plants), atol=1 / 32768)
    loud = heard(plants, gain=1000.0)
    assert (loud.min(), loud.max()) == (-1, 32767 / 32768)


def test_the_same_seed_is_the_same_sound() -> None:
    plants = [Plant(planted(), 2.0, 0.0)]
    assert heard(plants, ROOMS[1]).tobytes() == heard(plants, ROOMS[1]).tobytes()
    assert (heard(plants, ROOMS[1]) != heard(plants, ROOMS[1], seed=6)).mean() > 0.9


def test_samples_are_consecutive_and_stamped() -> None:
    sound = np.arange(HZ + 100, dtype=np.int16)[:, np.newaxis]
    blocks = list(planted_sounds.samples(sound, 7 * NS_PER_S))
    assert [len(block) for block in blocks] == [HZ // 2, HZ // 2, 100]
    np.testing.assert_array_equal(np.concatenate([block.data for block in blocks]), sound)
    t_ns = np.concatenate([block.t_ns for block in blocks])
    assert (t_ns[0], t_ns[HZ]) == (7 * NS_PER_S, 8 * NS_PER_S)
    assert [block.seq for block in blocks] == [0, HZ // 2, HZ]
    assert all(block.arrival_ns - int(block.t_ns[-1]) == 5_000_000 for block in blocks)


def test_only_what_is_held_out_is_planted(tmp_path: Path) -> None:
    make_training(tmp_path / "training")
    found = planted_sounds.kinds(tmp_path / "training")
    assert {kind: len(own) for kind, own in found.items()} == {
        "dog": 9,
        "cat": 2,
        "bird": 2,
        "frog": 2,
        "lion": 2,
        "cow": 2,
    }
    for own in found.values():
        assert all(held_out(each.recording) for each in own)
        assert len({each.recording for each in own}) == len(own)


def test_a_recording_loses_its_silent_ends_and_has_rms_1(tmp_path: Path) -> None:
    """8 kHz, two channels, a tone from 0.5 s on for 6 s: five seconds of it are planted."""
    make_training(tmp_path / "training")
    t_s = np.arange(8000 * 7) / 8000
    tone = np.sin(2 * np.pi * 440 * t_s) * 0.01 * ((t_s >= 0.5) & (t_s < 6.5))
    soundfile.write(tmp_path / "training/esc10/4-0-A.wav", np.stack([tone, 3 * tone], 1), 8000)
    own = planted_sounds.kinds(tmp_path / "training")["dog"][0]
    assert own.recording == "esc10/4-0-A"
    assert own.duration_s == 5.0
    assert own.data.shape == (5 * HZ,)
    wave = own.data.astype(np.float64)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1, abs=1e-3)
    assert np.argmax(np.abs(np.fft.rfft(wave))) == 440 * 5
    assert np.std(wave[: HZ // 20]) > 0.8  # it begins with the tone
    assert abs(wave[0]) < 0.01  # without a click


def test_the_level_of_a_recording_is_of_what_can_be_heard(tmp_path: Path) -> None:
    """A tone from 0.5 s on, for 2 s, with an offset and a rumble of 5 Hz that go on throughout."""
    make_training(tmp_path / "training")
    t_s = np.arange(HZ * 4) / HZ
    tone = np.sin(2 * np.pi * 440 * t_s) * 0.01 * ((t_s >= 0.5) & (t_s < 2.5))
    rumble = 0.1 + 0.1 * np.sin(2 * np.pi * 5 * t_s)
    soundfile.write(tmp_path / "training/esc10/4-0-A.wav", tone + rumble, HZ)
    own = planted_sounds.kinds(tmp_path / "training")["dog"][0]
    assert own.duration_s == pytest.approx(2.0, abs=0.051)
    wave = own.data.astype(np.float64)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1, abs=1e-3)
    assert share_from(20, wave) == pytest.approx(0, abs=0.01)


def test_an_everyday_sound_is_of_its_kind_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dog, whistle = names("pack/s", True, 2)
    (trained,) = names("pack/s", False, 1)
    for seed, name in enumerate((dog, whistle, trained)):
        noise_burst(tmp_path / f"{name}.wav", seed)
    listed = {"dog": [dog, trained], "whistle": [whistle]}
    sounds = {kind: [f"{Path(name).name}.wav" for name in own] for kind, own in listed.items()}
    folder = {"package": "pack", "licence": "ours", "folder": ".", "sounds": sounds}
    recipe = tmp_path / "sounds.yaml"
    recipe.write_text(yaml.safe_dump({"folders": [folder]}))
    monkeypatch.setattr(planted_sounds, "RECIPE", recipe)
    found = planted_sounds.bystanders(tmp_path, ["dog", "cat"])
    assert [(each.recording, each.kind) for each in found] == [(dog, "dog"), (whistle, "")]
