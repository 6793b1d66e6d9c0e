"""Six senses through six towers at true speed: what rate each gets, what is skipped, how late."""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from agent.clock import NS_PER_S, ManualClock, SystemClock, from_s, to_s
from agent.contracts import RuntimeOptions
from agent.errors import AgentError, ConfigError
from agent.publish.client import Subscriber
from agent.record.writer import LogWriter
from agent.supervise import ThreadGroup
from agent.types import Array, Sample, StreamInfo
from agent.wire import EmbeddingMessage, Health, StreamHealth
from encoders.space import open_space
from tools.benches.common import (
    add_json_option,
    cores,
    machine,
    make_table,
    print_machine,
    running_agent,
    write_json,
)
from tools.output import report_console

__all__ = ["add_parser"]

INFOS = {
    info.name: info
    for info in (
        StreamInfo("camera", "image", "uint8", (480, 640, 3), 10.0, "rgb8"),
        StreamInfo("walker", "image", "uint8", (240, 320, 3), 10.0, "rgb8"),
        StreamInfo("microphone", "audio", "int16", (1,), 16_000.0, "full_scale"),
        StreamInfo("depth", "depth", "uint16", (240, 320), 5.0, "mm"),
        StreamInfo("thermal", "thermal", "uint16", (120, 160), 9.0, "counts"),
        StreamInfo("imu", "imu", "float32", (6,), 100.0, "m/s^2,rad/s"),
    )
}
CHANGE_S = 20  # from one happening to the next, in each sense at a time of its own
LASTS_S = 3
QUEUED_TICKS = 300_000  # that the writer may be behind, so that a log of any length fits in memory
SETTLE_S = 90.0  # loading 5 GB from a cold disk
SILENCE_S = 60.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `senses` to the benchmarks."""
    parser = commands.add_parser(
        "senses",
        help="a log of six streams played at true speed into the live agent on a model folder, "
        "without and with the change gate: windows a second, skipped, re-used, delay of each",
    )
    parser.add_argument("--folder", type=Path, required=True, help="a model folder")
    parser.add_argument("--precision", help="of it")
    parser.add_argument("--minutes", type=float, default=10.0, help="default %(default)g")
    parser.add_argument("--change", type=float, default=0.2, help="of the gate, default 0.2")
    parser.add_argument("--threads", type=int, default=cores(), help="default: one a core")
    parser.add_argument("--log", type=Path, help="one of your own (default: one that is made)")
    add_json_option(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if not args.minutes > 0:
        raise ConfigError(f"--minutes: got {args.minutes:g}, expected more than 0")
    console = report_console()
    options = RuntimeOptions(precision=args.precision)
    space = open_space(str(args.folder.absolute()), options)
    senses, duration_s = space.modalities, 60 * args.minutes
    space.close()
    figures: dict[str, Any] = {"machine": machine(), "duration_s": duration_s, "runs": {}}
    print_machine(figures["machine"], console)
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console) as progress:
        work = Path(temporary)
        log = args.log.absolute() if args.log else work / "six.mcap"
        if not args.log:
            task = progress.add_task("making the log", total=duration_s)
            for second in _write_log(log, duration_s):
                progress.update(task, completed=second)
        for name, change in (("no gate", None), (f"change {args.change:g}", args.change)):
            task = progress.add_task(name, total=duration_s)
            bulk = f"ipc://{work}/bulk"
            config = {
                "agent": "bench",
                "space": {
                    "path": str(args.folder.absolute()),
                    "precision": args.precision,
                    "threads": args.threads,
                    "towers": {sense: {"change": change} for sense in senses},
                },
                "drivers": {"log": {"kind": "log", "path": str(log), "to_s": duration_s}},
                "bus": {
                    "events": "tcp://127.0.0.1:*",
                    "control": None,
                    "bulk": bulk,
                    "preview_hz": 0,
                },
            }
            with running_agent(config, work, duration_s + SETTLE_S) as address:
                advance = partial(_advance, progress, task)
                figures["runs"][name] = _listen(address, bulk, advance)
    _print(figures, console)
    if args.json:
        write_json(args.json, figures)
    return 0


def _advance(progress: Progress, task: TaskID, uptime_s: float) -> None:
    progress.update(task, completed=uptime_s)


def _listen(address: str, bulk: str, advance: Callable[[float], None]) -> dict[str, Any]:
    """Until the log is over. delay: from the end of a window to its vector over the socket."""
    clock = SystemClock()
    delays_s: dict[str, list[float]] = defaultdict(list)
    healths: list[Health] = []
    with Subscriber(bulk) as vectors, Subscriber(address) as bus:
        silent_ns = clock.now_ns() + from_s(SILENCE_S + SETTLE_S)
        while clock.now_ns() < silent_ns:
            received = vectors.receive(0.02)
            while received is not None:
                message = received[1]
                if isinstance(message, EmbeddingMessage) and not message.reused:
                    delays_s[message.stream].append(to_s(clock.now_ns() - message.window.end.ns))
                received = vectors.receive(0.0)
            told = bus.receive(0.0)
            while told is not None:
                if isinstance(told[1], Health) and not told[1].retained:
                    healths.append(told[1])
                    silent_ns = clock.now_ns() + from_s(SILENCE_S)
                    advance(told[1].uptime_s)
                told = bus.receive(0.0)
            if healths and {s.state for s in healths[-1].streams} == {"ended"}:
                break
    if not healths:
        raise AgentError(f"{address}: no message, expected one a second")
    last = healths[-1]
    return {
        "uptime_s": last.uptime_s,
        "cpu_percent": float(np.median([health.cpu_percent for health in healths])),
        "rss_mb": max(health.rss_mb for health in healths),
        "drops": last.drops,
        "streams": {
            s.stream: _stream(s, delays_s.get(s.stream, []), last.uptime_s) for s in last.streams
        },
    }


def _stream(health: StreamHealth, delays_s: list[float], uptime_s: float) -> dict[str, Any]:
    p50, p95 = np.percentile(delays_s, [50, 95]) if delays_s else (None, None)
    return {
        "modality": health.modality,
        "asked_hz": round(1 / health.hop_asked_s, 3) if health.hop_asked_s else None,
        "encoded_hz": round(health.windows / uptime_s, 3),
        "encoded": health.windows,
        "reused": health.reused,
        "skipped": health.skipped,
        "lost": health.lost + health.bad,
        "duty": health.duty,
        "delay_p50_s": p50,
        "delay_p95_s": p95,
    }


def _print(figures: Mapping[str, Any], console: Console) -> None:
    for name, run in figures["runs"].items():
        rows = [
            [stream, *(_text(found[key]) for key in _COLUMNS)]
            for stream, found in run["streams"].items()
        ]
        lost = sum(found["lost"] for found in run["streams"].values())
        title = (
            f"{name}: {run['uptime_s']:.0f} s, CPU {run['cpu_percent']:.0f} % of a core, "
            f"{run['rss_mb']:.0f} MB, {lost} ticks lost"
        )
        console.print(make_table(title, ["stream", *_COLUMNS.values()], rows))


_COLUMNS = {
    "asked_hz": "asked /s",
    "encoded_hz": "encoded /s",
    "reused": "re-used",
    "skipped": "skipped",
    "delay_p50_s": "delay s, p50",
    "delay_p95_s": "p95",
}


def _text(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


# The made log: a camera that stands and one that walks, and in each sense a happening now and then.


def _write_log(path: Path, duration_s: float) -> Iterator[int]:
    """Writes it; gives each second as it is done."""
    system = SystemClock()
    writer = LogWriter(path, clock=ManualClock(), agent="bench", boot_id="bench", max_queue_mb=4096)
    for info in INFOS.values():
        writer.add_stream(info)
    scene = _Scene(np.random.default_rng(1))
    with ThreadGroup() as group:
        group.start("writer", writer.run)
        for second in range(round(duration_s)):
            for sample in scene.second(second):
                writer.put(sample)
            while sum(c.received - c.written for c in writer.ledger.values()) > QUEUED_TICKS:
                if group.failed:
                    break
                system.wait_until_ns(system.now_ns() + from_s(0.05))
            yield second + 1
    if writer.dropped:
        raise AgentError(f"{path}: {writer.dropped} ticks dropped while it was made")


class _Scene:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._rooms = [self._texture(480, 640) for _ in range(6)]
        self._street = self._texture(240, 2400)
        self._walls = [1500 + 10.0 * self._texture(240, 320)[..., 0] for _ in range(6)]

    def second(self, number: int) -> Iterator[Sample]:
        """All blocks of one second, in the order of their stamps."""
        made = []
        for name, info in INFOS.items():
            assert info.rate_hz is not None
            count = round(info.rate_hz)
            ticks = np.arange(number * count, (number + 1) * count)
            t_ns = (ticks * NS_PER_S) // count
            data = getattr(self, f"_{name}")(number, ticks / count)
            size = 1 if data.ndim > 2 else count // 10
            for first in range(0, count, size):
                part = slice(first, first + size)
                stamps = t_ns[part]
                block = np.ascontiguousarray(data[part].astype(info.dtype))
                made.append(Sample(info, int(ticks[first]), stamps, int(stamps[-1]), block))
        return iter(sorted(made, key=lambda sample: sample.arrival_ns))

    def _happens(self, number: int, offset_s: int) -> bool:
        return (number + offset_s) % CHANGE_S < LASTS_S

    def _camera(self, number: int, t_s: Array) -> Array:
        room = self._rooms[number // CHANGE_S % len(self._rooms)].astype(np.int16)
        noise = self._rng.integers(-1, 2, (len(t_s), 480, 640, 1), np.int16)
        frames: Array = np.clip(room + noise, 0, 255)
        if self._happens(number, 5):
            frames[:, 200:320, 240:360] = 255 - frames[:, 200:320, 240:360]
        return frames

    def _walker(self, number: int, t_s: Array) -> Array:
        starts = (40 * t_s).astype(int) % (self._street.shape[1] - 320)
        return np.stack([self._street[:, start : start + 320] for start in starts])

    def _microphone(self, number: int, t_s: Array) -> Array:
        sound: Array = self._rng.normal(0, 30, (len(t_s), 1))
        if self._happens(number, 9):
            sound[:, 0] += 8000 * np.sin(2 * np.pi * (300 + 100 * (number % 7)) * t_s)
        return sound

    def _depth(self, number: int, t_s: Array) -> Array:
        wall = self._walls[number // CHANGE_S % len(self._walls)]
        frames: Array = np.repeat(wall[np.newaxis], len(t_s), axis=0)
        if self._happens(number, 13):
            frames[:, 60:200, 100:200] = 900
        return frames

    def _thermal(self, number: int, t_s: Array) -> Array:
        frames: Array = self._rng.normal(7400, 3, (len(t_s), 120, 160))
        if self._happens(number, 2):
            frames[:, 30:110, 60:100] += 900
        return frames

    def _imu(self, number: int, t_s: Array) -> Array:
        rest: Array = self._rng.normal(0, 0.02, (len(t_s), 6))
        rest[:, 2] += 9.81
        if number // (2 * CHANGE_S) % 2:  # walking, and standing
            rest += np.sin(2 * np.pi * 1.8 * t_s[:, np.newaxis] + np.arange(6)) * 2
        return rest

    def _texture(self, height: int, width: int) -> Array:
        """uint8 (height, width, 3) with detail at every scale, as nature has."""
        noise = self._rng.normal(size=(height, width, 3))
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
        falling = (np.hypot(rows, columns) + 1 / width)[..., None]
        picture = np.fft.irfft2(
            np.fft.rfft2(noise, axes=(0, 1)) / falling, s=(height, width), axes=(0, 1)
        )
        pixels: Array = np.clip(128 + 45 * picture / picture.std(), 0, 255).astype(np.uint8)
        return pixels
