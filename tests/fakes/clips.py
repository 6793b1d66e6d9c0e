"""Media files made by the tests themselves, with every presentation time known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

__all__ = ["corrupt", "packet_times", "tone", "write_clip"]


def tone(count: int, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """int16 (count, channels): 440 Hz with noise, so that no two samples can be mistaken."""
    rng = np.random.default_rng(seed)
    wave = 8000 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)
    return (wave[:, np.newaxis] + rng.integers(-500, 500, (count, channels))).astype(np.int16)


def write_clip(
    path: Path,
    *,
    frames: Iterable[np.ndarray] | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 30),
    sound: np.ndarray | None = None,
    rate: int = 48000,
    sound_from: int = 0,
    sound_first: bool = False,
    codecs: tuple[str, str] = ("libx264", "aac"),
    options: dict[str, str] | None = None,
) -> Path:
    """frames: uint8 RGB, shown at pts * time_base (default 0, 1, 2 ...). sound: int16 (n,
    channels) from sample `sound_from` on; sound_first: the first track, and not the second.
    Interleaved in order of time, as players expect.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        jobs = []
        audio = container.add_stream(codecs[1], rate=rate) if sound_first else None
        if frames is not None:
            pictures = list(frames)
            height, width, _ = pictures[0].shape
            video = container.add_stream(codecs[0], rate=1 / time_base)
            video.width, video.height = width, height
            video.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(codecs[0], "yuv420p")
            video.time_base = video.codec_context.time_base = time_base
            for number, picture in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(picture, "rgb24")
                frame.pts, frame.time_base = (pts[number] if pts else number), time_base
                jobs.append((frame.pts * time_base, video, frame))
        if sound is not None:
            audio = audio or container.add_stream(codecs[1], rate=rate)
            audio.layout = {1: "mono", 2: "stereo"}[sound.shape[1]]
            size = 1024
            for start in range(0, len(sound), size):
                piece = np.ascontiguousarray(sound[start : start + size]).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(piece, "s16", audio.layout.name)
                frame.sample_rate, frame.pts = rate, sound_from + start
                frame.time_base = Fraction(1, rate)
                jobs.append((Fraction(frame.pts, rate), audio, frame))
        for _, stream, frame in sorted(jobs, key=lambda job: job[0]):
            container.mux(stream.encode(frame))
        for stream in container.streams:
            container.mux(stream.encode(None))
    return path


def packet_times(path: Path) -> dict[str, list[Fraction]]:
    """Presentation times by kind of track, read from the packets without decoding anything.

    What comes before 0 is an encoder's priming, which a decoder throws away.
    """
    times: dict[str, list[Fraction]] = {"video": [], "audio": []}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size and packet.pts + packet.duration > 0:
                times[packet.stream.type].append(max(packet.pts, 0) * packet.time_base)
    return {kind: sorted(found) for kind, found in times.items()}


def corrupt(path: Path, kind: str, numbers: Sequence[int]) -> None:
    """Overwrite some packets of the first track of `kind` with zeros; all else stays."""
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(**{kind: 0}) if p.size]
    data = path.read_bytes()
    for number in numbers:
        assert data.count(packets[number]) == 1
        data = data.replace(packets[number], bytes(len(packets[number])))
    path.write_bytes(data)
