"""The demo log's sixty seconds: what the camera, the microphone and the watch give, and when."""

from __future__ import annotations

import base64
import importlib
import io
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image

from agent.errors import ConfigError
from agent.types import Sample, StreamInfo
from tools.demo_sources import read

__all__ = [
    "AUDIO_HZ",
    "CAMERA",
    "IMU",
    "MICROPHONE",
    "home_view",
    "river_example",
    "samples",
]

Float32Array = NDArray[np.float32]
Frame = NDArray[np.uint8]

DURATION_S = 60
START_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z
NS_PER_MS = 1_000_000
WIDTH, HEIGHT = 480, 360
FIELD_OF_VIEW_DEG = 85.0
AUDIO_HZ = 16_000
AUDIO_BLOCK = 1_600  # 100 ms
LATENCY_MS = {"camera": 30, "microphone": 5, "imu": 2}  # capture to arrival

CAMERA = StreamInfo(
    "camera", "image", "uint8", (HEIGHT, WIDTH, 3), 10.0, "rgb8", frame_id="camera_optical_frame"
)
MICROPHONE = StreamInfo(
    "microphone", "audio", "int16", (1,), float(AUDIO_HZ), "full_scale", frame_id="microphone"
)
IMU = StreamInfo(
    "imu",
    "imu",
    "float32",
    (6,),
    10.0,
    "m/s^2,rad/s",
    frame_id="watch",
    channels=("ax", "ay", "az", "gx", "gy", "gz"),
)


@dataclass(frozen=True)
class Pan:
    """A camera that turns in a panorama. Degrees; pitch is up."""

    start_s: float
    key: str
    yaw_deg: float
    yaw_deg_s: float
    pitch_deg: float = 0.0


@dataclass(frozen=True)
class Still:
    """A camera that drifts over a photograph and closes in by `zoom_s` of its size a second."""

    start_s: float
    key: str
    zoom_s: float


@dataclass(frozen=True)
class Sound:
    """A recording from `from_s` on, brought to RMS `rms` of full scale, looped where too short."""

    start_s: float
    end_s: float
    key: str
    rms: float
    from_s: float = 0.0


SHOTS: tuple[Pan | Still, ...] = (
    Pan(0, "apartment", 170, 9),
    Pan(10, "city", 8, 5),
    Pan(20, "forest", 300, 12),
    Pan(28, "sky", 30, 8, pitch_deg=25),
    Pan(36, "lab", 200, 12),
    Still(44, "rocket", 0.03),
    Pan(50, "apartment", 255, -8.3),
)
SOUNDS = (
    Sound(0, 60, "lenautile_restaurant", 0.002),
    Sound(1.5, 8.0, "clock", 0.06),
    Sound(10, 20, "lenautile_restaurant", 0.06),
    Sound(20.5, 28, "river_loop", 0.06, from_s=6.0),
    Sound(28, 36, "exotic-birds", 0.04),
    Sound(36, 50, "lenautile_restaurant", 0.05, from_s=21.0),
    Sound(52, 58.5, "clock", 0.06),
)
MOTION = ("Standing", "Walking", "Running", "Walking", "Standing", "Standing")  # 10 s each
FADE_S = 0.25


def samples(folder: Path) -> Iterator[Sample]:
    """Every block of the log in order of arrival; the same each time. folder: as demo_sources.

    Raises ConfigError for a source that is missing or altered.
    """
    streams = (_camera(folder), _microphone(folder), _imu(folder))
    yield from sorted((s for stream in streams for s in stream), key=lambda s: s.arrival_ns)


def home_view(folder: Path) -> Frame:
    """uint8 (360, 480, 3): a side of the flat that the log does not show."""
    return _view(_panorama(folder, "apartment"), 350, 0)


def river_example(folder: Path) -> Float32Array:
    """float32 (n,) at 16 kHz: the first 5 s of the river, before the part in the log."""
    return _at_rms(_recording(folder, "river_loop")[: 5 * AUDIO_HZ], 0.06)


def _sample(
    info: StreamInfo, seq: int, t_ns: NDArray[np.int64], data: NDArray[np.generic]
) -> Sample:
    arrival_ns = int(t_ns[-1]) + LATENCY_MS[info.name] * NS_PER_MS
    return Sample(info, seq, t_ns, arrival_ns, data)


def _ticks(rate_hz: float, first: int, count: int) -> NDArray[np.int64]:
    """Stamps of ticks `first`.. of a stream that starts at START_NS."""
    after_ns = (np.arange(first, first + count) * (1e9 / rate_hz)).round().astype(np.int64)
    return np.asarray(START_NS + after_ns, np.int64)


def _camera(folder: Path) -> Iterator[Sample]:
    assert CAMERA.rate_hz is not None
    views = [
        _panning(_panorama(folder, shot.key), shot)
        if isinstance(shot, Pan)
        else _drifting(_photograph(folder, shot.key), shot)
        for shot in SHOTS
    ]
    for i in range(round(DURATION_S * CAMERA.rate_hz)):
        t_s = i / CAMERA.rate_hz
        now = max(k for k, shot in enumerate(SHOTS) if shot.start_s <= t_s)
        frame = views[now](t_s - SHOTS[now].start_s)
        yield _sample(CAMERA, i, _ticks(CAMERA.rate_hz, i, 1), frame[None])


def _panning(panorama: Float32Array, shot: Pan) -> Callable[[float], Frame]:
    def view(t_s: float) -> Frame:
        sway_deg = 1.5 * math.sin(2 * math.pi * 0.4 * t_s)  # of someone who holds the camera
        return _view(panorama, shot.yaw_deg + shot.yaw_deg_s * t_s, shot.pitch_deg + sway_deg)

    return view


def _drifting(photograph: Image.Image, shot: Still) -> Callable[[float], Frame]:
    def view(t_s: float) -> Frame:
        height = photograph.height * (1 - shot.zoom_s * t_s)
        width = height * WIDTH / HEIGHT
        left = (photograph.width - width) / 2 + 8 * math.sin(t_s)
        top = (photograph.height - height) / 2
        box = (left, top, left + width, top + height)
        small = photograph.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box)
        return np.asarray(small, np.uint8)

    return view


def _photograph(folder: Path, key: str) -> Image.Image:
    return Image.open(io.BytesIO(read(folder, key))).convert("RGB")


def _panorama(folder: Path, key: str) -> Float32Array:
    """float32 (256, 512, 3), sRGB in 0..1: longitude from left to right, zenith at the top."""
    try:
        openexr = importlib.import_module("OpenEXR")
    except ImportError as exc:
        raise ConfigError("package 'OpenEXR' is not installed: run  pip install OpenEXR") from exc
    packed = read(folder, key).decode().split("base64,", 1)[1].split("'", 1)[0]
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "panorama.exr"
        path.write_bytes(base64.b64decode(packed))
        light = openexr.File(str(path)).channels()["RGB"].pixels.astype(np.float32)
    return _exposed(light)


def _exposed(light: Float32Array) -> Float32Array:
    """Linear light to sRGB (IEC 61966-2-1), its geometric mean at 22 % grey, highlights rolled off.

    The files' lossy compression rings below zero beside lamps and the sun: such a pixel takes the
    brightest of its neighbours, for it is glare too.
    """
    around = [np.roll(light, (i, j), axis=(0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    light = np.where((light < 0).any(axis=-1, keepdims=True), np.max(around, axis=0), light)
    light = np.maximum(light, 0)
    mean = np.exp(np.log(light.mean(axis=-1) + 1e-4).mean())
    light = light * (0.22 / mean)
    light = np.minimum(light / (1 + light / 1.5), 1)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return srgb.astype(np.float32)


def _view(panorama: Float32Array, yaw_deg: float, pitch_deg: float) -> Frame:
    """What a pinhole camera sees in an equirectangular panorama, bilinear."""
    rows, columns = panorama.shape[:2]
    focal = WIDTH / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG / 2))
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT) + 0.5 - HEIGHT / 2)
    pitch = math.radians(pitch_deg)
    down = y * math.cos(pitch) - focal * math.sin(pitch)
    ahead = y * math.sin(pitch) + focal * math.cos(pitch)
    longitude = np.arctan2(x, ahead) + math.radians(yaw_deg)
    latitude = np.arctan2(down, np.hypot(x, ahead))
    u = (longitude / (2 * math.pi) + 0.5) * columns - 0.5
    v = np.clip((latitude / math.pi + 0.5) * rows - 0.5, 0, rows - 1.001)
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    right, below = (u - u0)[..., None], (v - v0)[..., None]
    u0, u1 = u0 % columns, (u0 + 1) % columns
    upper = panorama[v0, u0] * (1 - right) + panorama[v0, u1] * right
    lower = panorama[v0 + 1, u0] * (1 - right) + panorama[v0 + 1, u1] * right
    seen = upper * (1 - below) + lower * below
    return np.asarray((seen * 255).round(), np.uint8)


def _microphone(folder: Path) -> Iterator[Sample]:
    mix = np.zeros(DURATION_S * AUDIO_HZ, np.float32)
    for sound in SOUNDS:
        first, last = round(sound.start_s * AUDIO_HZ), round(sound.end_s * AUDIO_HZ)
        recording = _recording(folder, sound.key)
        at = np.arange(last - first) + round(sound.from_s * AUDIO_HZ)
        played = _at_rms(recording[at % len(recording)], sound.rms)
        edge = np.minimum(np.arange(len(played)), np.arange(len(played))[::-1])
        mix[first:last] += played * np.minimum(edge / (FADE_S * AUDIO_HZ), 1).astype(np.float32)
    pcm = np.clip((mix * 32768).round(), -32768, 32767).astype(np.int16)[:, None]
    for first in range(0, len(pcm), AUDIO_BLOCK):
        t_ns = _ticks(AUDIO_HZ, first, AUDIO_BLOCK)
        yield _sample(MICROPHONE, first, t_ns, pcm[first : first + AUDIO_BLOCK])


def _recording(folder: Path, key: str) -> Float32Array:
    """float32 (n,), mono at 16 kHz."""
    wave, rate_hz = soundfile.read(io.BytesIO(read(folder, key)), dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(wave.mean(axis=1), rate_hz, AUDIO_HZ), np.float32)


def _at_rms(wave: Float32Array, rms: float) -> Float32Array:
    gain = rms / np.sqrt(np.mean(np.square(wave, dtype=np.float64)))
    return np.asarray(wave * gain, np.float32)


def _imu(folder: Path) -> Iterator[Sample]:
    assert IMU.rate_hz is not None
    by_label: dict[str, list[Float32Array]] = {}
    for line in read(folder, "basic_motions").decode().splitlines():
        if line and line[0] not in "#@":
            *channels, label = line.split(":")
            motion = np.array([c.split(",") for c in channels], np.float32).T
            by_label.setdefault(label, []).append(motion)
    turns = {label: iter(motions) for label, motions in by_label.items()}
    data = np.concatenate([next(turns[label]) for label in MOTION])
    for i in range(len(data)):
        yield _sample(IMU, i, _ticks(IMU.rate_hz, i, 1), data[i : i + 1])
