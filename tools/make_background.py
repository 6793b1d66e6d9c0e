"""Make the background bank of a space: vectors of ordinary input, for its calibration prior."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import numpy as np
from numpy.typing import NDArray

from agent.clock import NS_PER_S
from agent.contracts import RuntimeOptions
from agent.errors import AgentError, ConfigError
from agent.types import Array, Embedding, StreamInfo, Window
from encoders.bind.sources import (
    Record,
    animal_sounds,
    depth_pairs,
    esc10,
    photos,
    thermal_pairs,
)
from encoders.bind.sources_motion import basic_motions, watch
from encoders.files import read_file
from encoders.manifest import read_entry
from encoders.space import ModelSpace, open_space
from tools.npz import write_npz

__all__ = ["main", "ordinary", "synthetic", "write_bank"]

SEED = 7
GRAVITY = 9.81  # m/s^2
FRAME = (120, 160)  # of a made picture, pixels
AUDIO_HZ, AUDIO_S = 16_000, 2.0
MADE_IMU_HZ, IMU_S = 100, 5.0

Rng = np.random.Generator


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", required=True, help="model folder, or one that ships")
    parser.add_argument("--training", required=True, type=Path, help="folder with MANIFEST.tsv")
    parser.add_argument(
        "--cache", required=True, type=Path, help="folder of unpacked packages, make_compact's"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, help="the .npz to write")
    args = parser.parse_args(argv)
    try:
        windows = ordinary(args.training, args.cache)
        banks, entry = write_bank(args.space, windows, args.output)
    except AgentError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    except OSError as exc:
        print(f"error: {exc.filename}: {exc.strerror}, expected training data", file=sys.stderr)
        return ConfigError.exit_code
    print(f"# {', '.join(f'{name} {count}' for name, count in banks.items())}")
    print(f"background: {{{', '.join(f'{key}: {value}' for key, value in entry.items())}}}")
    return 0


def ordinary(training: Path, cache: Path) -> list[Window]:
    """Ordinary input of every sense, the same each time; none that is kept for validation.

    As the command's options of these names. Raises ConfigError and OSError for data that are not
    there.
    """
    rng = np.random.default_rng(SEED)
    depth, thermal = _free(depth_pairs(training)), _free(thermal_pairs(training))
    return [
        *_some(_free(photos(training)), 64, rng),
        *_photos_of(_choice(depth, 8, rng)),
        *_photos_of(_choice(thermal, 24, rng)),
        *_sounds(training, rng),
        *_some(depth, 32, rng),
        *_some(thermal, 64, rng),
        *_watch(cache / "seglearn", rng),
        *_motions(cache / "aeon", rng),
        *synthetic(rng),
    ]


def synthetic(rng: Rng) -> list[Window]:
    """What no event is of, of every sense: flat colours, hiss, walls, a unit lying still."""
    return [*_made_pictures(rng), *_made_sounds(rng), *_made_depth(rng), *_made_motion(rng)]


def write_bank(
    space_name: str, windows: Sequence[Window], output: Path
) -> tuple[dict[str, int], dict[str, Any]]:
    """Write the vectors of `windows` by the space as it runs. How many of each sense, and the file
    as space.yaml names it. Raises AgentError and OSError.
    """
    space = open_space(space_name, RuntimeOptions())
    banks = _embed(space, windows)
    versions = {name: space.versions[name] for name in banks}
    write_npz(output, banks, msgspec.json.encode(versions).decode())
    entry: dict[str, Any] = msgspec.to_builtins(read_entry(output))
    return {name: len(bank) for name, bank in banks.items()}, entry


def _embed(space: ModelSpace, windows: Sequence[Window]) -> dict[str, NDArray[np.float16]]:
    banks = {}
    for modality in space.modalities:
        encoder = space.encoder(modality)
        encoder.load()
        own = [window for window in windows if window.stream.modality == modality]
        banks[modality] = _bank(encoder.encode(own)).astype(np.float16)
    return banks


def _bank(embeddings: Sequence[Embedding]) -> NDArray[np.float32]:
    """(n, dim) or, where the tower gives views, (n, k, dim) as ModelSpace.background has it."""
    rows = [embedding.rows for embedding in embeddings]
    if all(embedding.views is None for embedding in embeddings):
        return np.concatenate(rows)
    most = max(map(len, rows))
    return np.stack([np.concatenate([own, *[own[:1]] * (most - len(own))]) for own in rows])


def _window(modality: str, data: Array, rate_hz: float | None = None) -> Window:
    info = StreamInfo(modality, modality, str(data.dtype), data.shape[1:], rate_hz, "made")
    t_ns = (np.arange(len(data)) * NS_PER_S / (rate_hz or 1.0)).astype(np.int64)
    return Window(info, 0, int(t_ns[-1]) + 1, data, t_ns)


def _stretch(data: Array, ticks: int, rng: Rng) -> Array:
    """`ticks` of `data` from a random place; all of it where it is shorter."""
    start = int(rng.integers(0, max(1, len(data) - ticks + 1)))
    return data[start : start + ticks]


def _free(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if not record.held_out]


def _choice(records: Sequence[Record], count: int, rng: Rng) -> list[Record]:
    if len(records) < count:
        raise ConfigError(f"{len(records)} recordings to be had, expected at least {count}")
    return [records[i] for i in rng.choice(len(records), count, replace=False)]


def _some(records: Sequence[Record], count: int, rng: Rng) -> list[Window]:
    return [record.window() for record in _choice(records, count, rng)]


def _photos_of(records: Sequence[Record]) -> list[Window]:
    """What a worn camera sees: a room, streets."""
    return [read_file(str(record.photo), "image") for record in records]


def _sounds(training: Path, rng: Rng) -> list[Window]:
    """One 2 s stretch of a recording, at most five recordings a label."""
    by_label: dict[str, list[Record]] = defaultdict(list)
    for record in _free([*esc10(training), *animal_sounds(training)]):
        by_label[record.label].append(record)
    windows: list[Window] = []
    for label in sorted(by_label):
        own = by_label[label]
        chosen = rng.permutation(len(own))[:5]
        windows.extend(_part(own[i].window(), AUDIO_S, rng) for i in chosen)
    return windows


def _part(whole: Window, length_s: float, rng: Rng) -> Window:
    rate_hz = whole.stream.rate_hz
    assert rate_hz is not None
    data = _stretch(whole.data, round(length_s * rate_hz), rng)
    return _window(whole.stream.modality, data, rate_hz)


def _watch(package: Path, rng: Rng) -> list[Window]:
    """Smartwatch exercises."""
    return [_part(whole, IMU_S, rng) for whole in _some(_free(watch(package)), 48, rng)]


def _motions(package: Path, rng: Rng) -> list[Window]:
    """Smartwatch, gravity taken out; half of them get it back in a random direction."""
    windows = []
    for whole in _some(_free(basic_motions(package)), 24, rng):
        part = _part(whole, IMU_S, rng)
        gravity = np.zeros(part.data.shape[1], np.float32)
        gravity[:3] = _direction(rng) * GRAVITY * rng.integers(0, 2)
        windows.append(_window("imu", part.data + gravity, part.stream.rate_hz))
    return windows


def _direction(rng: Rng) -> Array:
    vector = rng.normal(size=3)
    direction: Array = vector / np.linalg.norm(vector)
    return direction


def _coloured(shape: tuple[int, ...], exponent: float, rng: Rng) -> Array:
    """Noise whose power falls as frequency^-exponent, scaled to 0..1 (0 white, 1 pink, 2 brown)."""
    spectrum = np.fft.rfftn(rng.normal(size=shape))
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    squares = [axis**2 for axis in np.meshgrid(*axes, indexing="ij")]
    frequency = np.sqrt(np.maximum(np.sum(squares, axis=0), 1 / max(shape) ** 2))
    noise = np.fft.irfftn(spectrum / frequency ** (exponent / 2), s=shape, axes=range(len(shape)))
    scaled: Array = (noise - noise.min()) / np.ptp(noise)
    return scaled


def _made_pictures(rng: Rng) -> list[Window]:
    """Flat colours, gradients, sensor noise and blurs, in colour and in infrared."""
    windows = []
    for i in range(24):
        colour, other = rng.integers(0, 256, (2, 3))
        ramp = np.linspace(0, 1, FRAME[i % 2])[(slice(None), None) if i % 2 == 0 else (None,)]
        blend = [0.0, 1.0, 0.0, 0.0][i % 4] * np.broadcast_to(ramp, FRAME)
        if i % 4 >= 2:
            blend = _coloured(FRAME, 3.0 * (i % 4 - 2), rng)
        frame = colour + (other - colour) * blend[..., np.newaxis] + rng.normal(0, 2, (*FRAME, 3))
        windows.append(_window("image", np.clip(frame, 0, 255).astype(np.uint8)[np.newaxis]))
        if i % 2:
            counts = 7000 + 400 * blend + rng.normal(0, 5, FRAME)
            windows.append(_window("thermal", counts.astype(np.uint16)[np.newaxis]))
    return windows


def _made_sounds(rng: Rng) -> list[Window]:
    """What a microphone hears between events: hiss, rumble, mains hum, next to nothing."""
    ticks = round(AUDIO_HZ * AUDIO_S)
    t_s = np.arange(ticks) / AUDIO_HZ
    signals = [np.zeros(ticks)]
    for i in range(48):
        noise = _coloured((ticks,), [0.0, 1.0, 2.0][i % 3], rng) - 0.5
        if i % 4 == 1:
            mains_hz = [50, 60][i % 8 // 4]
            harmonics = [rng.uniform() * np.sin(2 * np.pi * mains_hz * k * t_s) for k in (1, 2, 3)]
            noise = 0.2 * noise + np.sum(harmonics, axis=0)
        signals.append(noise * 10 ** rng.uniform(-4, -0.5))
    # 16 bits, as a microphone gives it: the quietest are a few steps of the converter.
    pcm = [np.clip(np.rint(signal * 32767), -32768, 32767).astype(np.int16) for signal in signals]
    return [_window("audio", samples[:, np.newaxis], AUDIO_HZ) for samples in pcm]


def _made_depth(rng: Rng) -> list[Window]:
    """Walls and floors at an angle, with sensor noise and holes; one with nothing measured."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in FRAME), indexing="ij")
    frames = [np.zeros(FRAME)]
    for _ in range(24):
        tilt, turn = rng.uniform(-0.8, 0.8, 2)
        plane = 1000 * rng.uniform(0.5, 6) / np.maximum(1 + tilt * rows + turn * columns, 0.15)
        noisy = plane * (1 + rng.normal(0, 0.01, FRAME))
        frames.append(np.where(_coloured(FRAME, 3.0, rng) < rng.uniform(0, 0.5), 0, noisy))
    return [_window("depth", frame.astype(np.uint16)[np.newaxis]) for frame in frames]


def _made_motion(rng: Rng) -> list[Window]:
    """A unit lying still in any position, slowly turned, or shaken by a vehicle or a hand."""
    ticks = round(MADE_IMU_HZ * IMU_S)
    windows = []
    for i in range(56):
        gravity = np.broadcast_to(_direction(rng) * GRAVITY, (ticks, 3))
        noise = rng.normal(size=(ticks, 6)) * np.repeat([0.03, 0.003], 3)
        if i % 4 == 1:  # turned by hand, a part of a turn over the window
            rate = _direction(rng) * rng.uniform(0.05, 0.5)
            angles = np.outer(np.arange(ticks) / MADE_IMU_HZ, rate)
            gravity = gravity + np.cross(gravity, angles)
            noise[:, 3:] += rate
        elif i % 4 == 2:  # vibration
            noise *= 10 ** rng.uniform(0, 1.5)
        windows.append(
            _window(
                "imu",
                (np.hstack([gravity, np.zeros((ticks, 3))]) + noise).astype(np.float32),
                MADE_IMU_HZ,
            )
        )
    return windows


if __name__ == "__main__":
    sys.exit(main())
