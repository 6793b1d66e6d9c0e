"""Make a log of two streams out of aligned pictures, to bind a sense from a log.

example:
  python -m tools.make_pairs_log --training ../shared/data/training --sense thermal --out pairs.mcap
  python -m tools.bind --space compact --modality thermal --anchor image --out bound \\
      --pairs 'log:pairs.mcap?sense=thermal&anchor=camera&stretch=1'

Each pair that may be trained on is one second: a slow pan over both of its pictures, of
FRAMES_A_SECOND frames with equal stamps. `python -m tools.evaluate retrieval` then tells what the
tower finds among the pairs that are held out.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from agent.cli import run_command
from agent.clock import NS_PER_S, SystemClock
from agent.errors import ConfigError
from agent.record.writer import LogWriter
from agent.types import Array, Sample, StreamInfo
from encoders.bind import sources
from encoders.files import read_file

__all__ = ["main"]

FRAMES_A_SECOND = 4
HEIGHT, WIDTH = 144, 192  # of a frame; both pictures of a pair are brought to it
SHARE = 0.7  # of each side is in a frame
PAIRS = {"thermal": sources.thermal_pairs, "depth": sources.depth_pairs}
UNITS = {"thermal": "mono8", "depth": "mm"}


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--training", required=True, type=Path, help="folder with MANIFEST.tsv")
    parser.add_argument("--sense", required=True, choices=sorted(PAIRS))
    parser.add_argument("--out", required=True, type=Path, help="the log, MCAP, to make")
    args = parser.parse_args(argv)
    if args.out.exists():
        raise ConfigError(f"--out: {args.out} exists already, expected a new file")
    records = [record for record in PAIRS[args.sense](args.training) if not record.held_out]
    _write(args.out, args.sense, records)
    print(f"{args.out}: {len(records)} s of {args.sense} and camera")
    return 0


def _write(path: Path, sense: str, records: Sequence[sources.Record]) -> None:
    rate_hz = float(FRAMES_A_SECOND)
    kept = {"thermal": "uint8", "depth": "uint16"}[sense]
    own = StreamInfo(sense, sense, kept, (HEIGHT, WIDTH), rate_hz, UNITS[sense])
    camera = StreamInfo("camera", "image", "uint8", (HEIGHT, WIDTH, 3), rate_hz, "rgb8")
    second_mb = 2 * FRAMES_A_SECOND * camera.shape[0] * camera.shape[1] * 3 / 2**20
    writer = LogWriter(
        path,
        clock=SystemClock(),
        agent="make_pairs_log",
        boot_id="none",
        max_queue_mb=second_mb * len(records),
    )
    step_ns = NS_PER_S // FRAMES_A_SECOND
    for second, record in enumerate(records):
        assert record.photo is not None
        frame, photo = record.window().data[0], read_file(str(record.photo), "image").data[0]
        t_ns = (second + 1) * NS_PER_S + step_ns * np.arange(FRAMES_A_SECOND, dtype=np.int64)
        for info, picture in ((own, frame), (camera, photo)):
            block = np.stack(list(_pan(picture)))
            writer.put(Sample(info, second * FRAMES_A_SECOND, t_ns, int(t_ns[-1]), block))
    stop = threading.Event()
    stop.set()  # it writes what it has been given, and comes back
    writer.run(stop)


def _pan(picture: Array) -> Iterator[Array]:
    """Frames (HEIGHT, WIDTH, ...) from one corner to the other."""
    high, wide = picture.shape[:2]
    size = round(SHARE * wide), round(SHARE * high)
    for share in np.linspace(0, 1, FRAMES_A_SECOND):
        left, top = round(share * (wide - size[0])), round(share * (high - size[1]))
        part = np.ascontiguousarray(picture[top : top + size[1], left : left + size[0]])
        # Of a depth frame no mean of two surfaces, which would be none.
        method = Image.Resampling.NEAREST if part.dtype == np.uint16 else Image.Resampling.BOX
        yield np.asarray(Image.fromarray(part).resize((WIDTH, HEIGHT), method)).astype(part.dtype)


if __name__ == "__main__":
    sys.exit(main())
