"""An hour of sound: a room's noise, with recordings planted in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import soxr
import yaml
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.types import Sample, StreamInfo
from encoders.bind.sounds import SoundList, everyday_sounds
from encoders.bind.sources import Record, animal_sounds, esc10
from tools.planting import Float32Array, Plant, Planted, Rng

__all__ = ["MICROPHONE", "ROOMS", "Room", "audible", "bystanders", "kinds", "pcm", "samples"]

Pcm = NDArray[np.int16]

HZ = 16_000
BLOCK = HZ // 2  # 0.5 s
HEARD_FROM_HZ = 20.0  # where the thresholds of hearing of ISO 226 begin
LONGEST_S = 5.0  # of what is planted
QUIET = 0.1  # of the loudest 50 ms: ends that are softer are silence that a file was filled with
RECIPE = Path(__file__).resolve().parents[1] / "encoders/recipes/sounds.yaml"

MICROPHONE = StreamInfo("microphone", "audio", "int16", (1,), float(HZ), "full_scale")


@dataclass(frozen=True)
class Room:
    """Noise whose power falls as frequency^-exponent (0 white, 2 brown), of nothing that is not
    `audible`, by its RMS of full scale; and mains hum: Hz, and how much of the noise's RMS.
    """

    exponent: float
    rms: float
    hum_hz: float = 50.0
    hum: float = 0.0


ROOMS = (
    Room(1.0, 0.008),
    Room(2.0, 0.02, hum=0.5),
    Room(0.0, 0.004),
    Room(1.5, 0.015, 60.0, 0.3),
    Room(0.5, 0.006),
    Room(1.0, 0.02, 60.0, 1.0),
)


def kinds(training: Path) -> dict[str, list[Planted]]:
    """By label, the recordings that no tower was trained on."""
    found: dict[str, list[Planted]] = {}
    for record in (*esc10(training), *animal_sounds(training)):
        if record.held_out:
            found.setdefault(record.label, []).append(_planted(record, record.label))
    return found


def bystanders(cache: Path, asked: Iterable[str]) -> list[Planted]:
    """Everyday sounds that no tower was trained on; of a kind in `asked` they are of that kind."""
    listed = msgspec.convert(yaml.safe_load(RECIPE.read_text(encoding="utf-8")), SoundList)
    known = set(asked)
    return [
        _planted(record, record.label if record.label in known else "")
        for record in everyday_sounds(cache, listed)
        if record.held_out
    ]


def pcm(plants: Sequence[Plant], seconds: float, room: Room, gain: float, rng: Rng) -> Pcm:
    """int16 (n, 1) at 16 kHz. gain: of all of it, as a microphone's."""
    count = round(seconds * HZ)
    mix = _bed(count, room, rng)
    for plant in plants:
        wave = np.asarray(plant.what.data, np.float32)
        first = round(plant.from_s * HZ)
        mix[first : first + len(wave)] += wave * np.float32(room.rms * 10 ** (plant.db / 20))
    scaled = np.clip(np.rint(mix * np.float32(gain * 32768)), -32768, 32767)
    whole: Pcm = scaled.astype(np.int16)[:, np.newaxis]
    return whole


def audible(wave: NDArray[np.float64], exponent: float = 0.0) -> NDArray[np.float64]:
    """What lies at 20 Hz and above in a wave (n,) at 16 kHz, at RMS 1, its power divided by
    frequency^exponent. Silence stays silent.

    A level that counts what nobody hears says too much of brown noise, by 29 dB, and of a
    recording with an offset or rumble, by up to 17 dB.
    """
    frequency = np.fft.rfftfreq(len(wave), 1 / HZ)
    spectrum = np.fft.rfft(wave) / np.maximum(frequency, HEARD_FROM_HZ) ** (exponent / 2)
    spectrum[frequency < HEARD_FROM_HZ] = 0
    return _at_rms_1(np.fft.irfft(spectrum, len(wave)))


def samples(sound: Pcm, start_ns: int) -> Iterator[Sample]:
    """Blocks of half a second, that arrive 5 ms after their last tick."""
    for first in range(0, len(sound), BLOCK):
        data = sound[first : first + BLOCK]
        t_ns = start_ns + np.arange(first, first + len(data), dtype=np.int64) * NS_PER_S // HZ
        yield Sample(MICROPHONE, first, t_ns, int(t_ns[-1]) + 5_000_000, data)


def _bed(count: int, room: Room, rng: Rng) -> Float32Array:
    """Two loops of coprime length, so that nothing comes again within the hour, and a level that
    wanders by some 2 dB over minutes.
    """
    bed = np.zeros(count, np.float32)
    for length_s in (61, 67):
        loop = audible(rng.normal(size=length_s * HZ), room.exponent) * room.rms / np.sqrt(2)
        bed += np.resize(loop.astype(np.float32), count)
    minutes = np.arange(0, count + 120 * HZ, 60 * HZ)
    level = np.interp(np.arange(count), minutes, 10 ** (rng.normal(0, 2, len(minutes)) / 20))
    bed *= level.astype(np.float32)
    if room.hum:
        phase = 2 * np.pi * room.hum_hz * np.arange(HZ) / HZ  # whole periods in a second
        wave = np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.3 * np.sin(3 * phase)
        loop = (wave * room.hum * room.rms / np.sqrt(np.mean(wave**2))).astype(np.float32)
        bed += np.resize(loop, count)
    return bed


def _planted(record: Record, kind: str) -> Planted:
    """What is audible of it, without silent ends, LONGEST_S of it at most, at RMS 1."""
    window = record.window()
    assert window.stream.rate_hz is not None
    wave = window.data.reshape(len(window.data), -1).astype(np.float64).mean(axis=1)
    wave = audible(soxr.resample(wave, window.stream.rate_hz, HZ))
    step = HZ // 20
    loud = np.sqrt([np.mean(wave[i : i + step] ** 2) for i in range(0, len(wave), step)])
    over = np.flatnonzero(loud >= QUIET * loud.max())
    wave = wave[over[0] * step : (over[-1] + 1) * step][: round(LONGEST_S * HZ)]
    edge = np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1])
    wave = _at_rms_1(wave * np.minimum(edge / (0.01 * HZ), 1))  # no click where it was cut
    return Planted(kind, record.recording, wave.astype(np.float32), len(wave) / HZ)


def _at_rms_1(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    return wave / max(float(np.sqrt(np.mean(wave**2))), 1e-9)
