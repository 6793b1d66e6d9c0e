"""Six live streams, and how soon a subscriber in another process is told what happened."""

from __future__ import annotations

import argparse
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agent.clock import NS_PER_S, SystemClock, from_s
from agent.errors import AgentError
from agent.extras import needs_extra
from agent.publish.client import Subscriber
from agent.types import Array
from agent.wire import Event, Health, SensorStatus
from tools.benches.common import (
    make_table,
    running_agent,
)

__all__ = ["add_parser"]

WIDTH, HEIGHT, FPS, AUDIO_HZ = 640, 480, 30, 16_000
# Two stimuli of a second each, every five seconds, after the agent has had time to settle.
PERIOD_S, STIMULUS_S, FIRST_S = 5, 1, 8


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `live` to the benchmarks."""
    parser = commands.add_parser(
        "live",
        help="six live streams, a subscriber in another process: end of stimulus to event over "
        "TCP, gaps, CPU, memory, drops",
    )
    parser.add_argument("--stimuli", type=int, default=6, help="of each kind (default 6)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    figures = _live(args.stimuli)
    _print(figures, console)
    return figures


def _live(stimuli: int) -> dict[str, Any]:
    """The agent in its own process on a film at true speed plus four synthetic streams."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        starts_s = [FIRST_S + n * PERIOD_S for n in range(2 * stimuli)]
        duration_s = starts_s[-1] + PERIOD_S
        _write_film(work, starts_s, duration_s)
        with running_agent(_config(), work, duration_s + 2) as address:
            return _listen(address, starts_s, duration_s)


def _listen(address: str, starts_s: list[int], duration_s: float) -> dict[str, Any]:
    clock = SystemClock()
    end_ns = clock.now_ns() + from_s(duration_s + 4)
    began_ns: int | None = None
    heard: list[tuple[str, int, Event]] = []
    healths: list[Health] = []
    with Subscriber(address) as bus:
        while clock.now_ns() < end_ns:
            received = bus.receive(0.5)
            now = clock.now_ns()
            message = received[1] if received else None
            if isinstance(message, SensorStatus) and message.stream == "film_video":
                if message.state == "ended":
                    break
                began_ns = began_ns or message.since.ns
            elif isinstance(message, Event) and not message.retained:
                heard.append((message.phase, now, message))
            elif isinstance(message, Health):
                healths.append(message)
        gaps = bus.gaps
    if began_ns is None:
        raise AgentError(f"{address}: the film's stream was never told")
    rows = []
    for n, start_s in enumerate(starts_s):
        query = "picture" if n % 2 else "chirp"
        onset_ns = began_ns + start_s * NS_PER_S
        offset_ns = onset_ns + STIMULUS_S * NS_PER_S
        told = [
            now
            for phase, now, event in heard
            if phase == "start"
            and event.query.id == query
            and onset_ns <= now < onset_ns + PERIOD_S * NS_PER_S
        ]
        rows.append(
            {
                "query": query,
                "after_onset_ms": (told[0] - onset_ns) / 1e6 if told else None,
                "after_end_ms": (told[0] - offset_ns) / 1e6 if told else None,
            }
        )
    settled = healths[3:]
    return {
        "stimuli": rows,
        "false_starts": sum(phase == "start" for phase, _, _ in heard)
        - sum(row["after_end_ms"] is not None for row in rows),
        "event_messages": len(heard),
        "gaps": gaps,
        "cpu_percent_median": float(np.median([h.cpu_percent for h in settled])),
        "cpu_percent_max": max(h.cpu_percent for h in settled),
        "rss_mb_max": max(h.rss_mb for h in healths),
        "drops": healths[-1].drops,
        "streams": {s.stream: [s.modality, s.rate_hz, s.lost, s.bad] for s in settled[-3].streams},
        "latency_ms": {
            hop.hop: [hop.count, hop.p50, hop.p95, hop.p99] for hop in settled[-3].latency_ms
        },
    }


def _config() -> dict[str, Any]:
    frame = {"rate_hz": FPS, "size": [WIDTH, HEIGHT]}
    return {
        "agent": "bench",
        "bus": {"events": "tcp://127.0.0.1:*", "control": None},
        "drivers": {
            "film": {"kind": "media", "path": "film.mkv"},
            "senses": {
                "kind": "synthetic",
                "streams": {
                    "second": {"modality": "image", **frame},
                    "depth": {"modality": "depth", **frame},
                    "thermal": {"modality": "thermal", **frame},
                    "imu": {"modality": "imu", "rate_hz": 100},
                },
            },
        },
        "queries": [
            {"id": "chirp", "audio": "chirp.wav", "streams": ["film_audio"]},
            {"id": "picture", "image": "picture.png", "streams": ["film_video"]},
        ],
    }


def _write_film(work: Path, starts_s: list[int], duration_s: int) -> None:
    """A film of a dull scene and quiet noise in which, in turn, a chirp is heard or a picture is
    seen, with each as a file to ask by. Chirp and picture are made here, so no data is needed.
    """
    with needs_extra("media"):
        import av
    import soundfile
    from PIL import Image

    rng = np.random.default_rng(1)
    t_s = np.arange(STIMULUS_S * AUDIO_HZ) / AUDIO_HZ
    chirp = 0.4 * np.sin(2 * np.pi * (300 + 1500 * (4 * t_s % 1)) * (t_s % 0.25))
    soundfile.write(work / "chirp.wav", chirp, AUDIO_HZ)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    rings = np.hypot(y - HEIGHT / 2, x - WIDTH / 2) // 40 % 2
    picture = np.stack([230 * rings, 40 + 60 * rings, 200 - 150 * rings], -1).astype(np.uint8)
    Image.fromarray(picture).save(work / "picture.png")
    sound = rng.normal(0, 0.003, duration_s * AUDIO_HZ)
    for start_s in starts_s[::2]:
        sound[start_s * AUDIO_HZ : (start_s + STIMULUS_S) * AUDIO_HZ] += chirp
    dull = np.stack([90 + 0.1 * x, 100 + 0.1 * y, 110 + 0 * x], -1)
    with av.open(str(work / "film.mkv"), "w") as film:
        video = film.add_stream("mpeg4", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.bit_rate = 4_000_000
        audio = film.add_stream("pcm_s16le", rate=AUDIO_HZ)
        audio.layout = "mono"
        for n in range(duration_s * FPS):
            showing = any(s * FPS <= n < (s + STIMULUS_S) * FPS for s in starts_s[1::2])
            frame = picture if showing else _noisy(dull, rng)
            for packet in video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                film.mux(packet)
            at = n * AUDIO_HZ // FPS
            block = sound[at : (n + 1) * AUDIO_HZ // FPS]
            samples = av.AudioFrame.from_ndarray(
                (block * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            samples.rate, samples.pts, samples.time_base = AUDIO_HZ, at, Fraction(1, AUDIO_HZ)
            for packet in audio.encode(samples):
                film.mux(packet)
        for stream in (video, audio):
            for packet in stream.encode(None):
                film.mux(packet)


def _noisy(scene: Array, rng: np.random.Generator) -> Array:
    return np.clip(scene + rng.integers(-4, 5, (HEIGHT, 1, 1)), 0, 255).astype(np.uint8)


def _print(figures: dict[str, Any], console: Console) -> None:
    rows = []
    for query in ("chirp", "picture"):
        of_query = [row for row in figures["stimuli"] if row["query"] == query]
        after = [row["after_end_ms"] for row in of_query if row["after_end_ms"] is not None]
        onset = [row["after_onset_ms"] for row in of_query if row["after_onset_ms"] is not None]
        spread = (
            [f"{f(after):.0f}" for f in (min, np.median, max)] + [f"{np.median(onset):.0f}"]
            if after
            else ["-"] * 4
        )
        rows.append([query, f"{len(after)} of {len(of_query)}", *spread])
    title = "end of a one-second stimulus to its event, over TCP"
    heard = ["query", "heard", "after end ms: min", "median", "max", "after onset: median"]
    console.print(make_table(title, heard, rows))
    rows = [[name, *map(str, values)] for name, values in figures["streams"].items()]
    console.print(make_table("streams", ["stream", "sense", "Hz", "lost", "bad"], rows, words=2))
    rows = [[name, *map(str, values)] for name, values in figures["latency_ms"].items()]
    console.print(make_table("latency by hop, ms", ["hop", "count", "p50", "p95", "p99"], rows))
    console.print(
        f"CPU {figures['cpu_percent_median']:.0f} % of a core (max "
        f"{figures['cpu_percent_max']:.0f}), memory {figures['rss_mb_max']:.0f} MB, "
        f"event messages {figures['event_messages']}, false starts {figures['false_starts']}, "
        f"gaps {figures['gaps']}, drops {figures['drops']}"
    )
