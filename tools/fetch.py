"""Download weights that this project may not ship: licence first, resumed where it broke off,
checked by sha256 at the end.

examples:
  python -m tools.fetch imagebind-huge --out weights
  python -m tools.fetch imagebind-huge --out weights --accept-licence    # no question asked
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.progress import (
    DownloadColumn,
    Progress,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from agent.cli import run_command
from agent.errors import ConfigError, ModelMismatch, ModelMissing
from agent.redact import redact
from tools.output import progress_bars

__all__ = ["WEIGHTS", "Weights", "download", "main"]

BLOCK = 1 << 20
TIMEOUT_S = 30.0

# ValueError: of a URL that is none.
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ValueError,
)


@dataclass(frozen=True)
class Weights:
    """A published file. bytes, sha256: of its whole content. licence: what is shown first."""

    url: str
    bytes: int
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


WEIGHTS = {
    "imagebind-huge": Weights(
        url="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
        bytes=4_803_584_173,
        # As several mirrors state it.
        sha256="d6f6c22bedcc90708448d5d2fbb7b2db9c73f505dc89bd0b2e09b23af1b62157",
        licence="""\
ImageBind (huge), by Meta Platforms, Inc.: CC BY-NC-SA 4.0
https://creativecommons.org/licenses/by-nc-sa/4.0/
  Attribution     credit Meta and say what you changed
  NonCommercial   no use meant for commercial advantage or payment
  ShareAlike      what you make of it, an exported model folder too, goes under the same licence
sensebind's own code is Apache-2.0 and does not change that. The file is 4.8 GB.""",
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command `python -m tools.fetch`."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fetch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", choices=sorted(WEIGHTS), help="what to download")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="(default: here)")
    parser.add_argument("--url", help="a mirror of the same file")
    parser.add_argument(
        "--accept-licence", action="store_true", help="you have read it: do not ask"
    )
    args = parser.parse_args(argv)
    weights = WEIGHTS[args.weights]
    console = Console(stderr=True)
    console.print(weights.licence, highlight=False)
    if not args.accept_licence:
        _ask(console)
    path = download(weights, args.out, console, args.url)
    print(path)
    console.print(f"next: python -m tools.export imagebind --checkpoint {path} --out imagebind")
    return 0


def _ask(console: Console) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("--accept-licence: not given, expected it where nobody can be asked")
    if console.input("Do you accept it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("licence: not accepted, nothing was downloaded")


def download(weights: Weights, folder: Path, console: Console, url: str | None = None) -> Path:
    """The checked file in `folder`; what an earlier try left in NAME.part is gone on with.

    url: a mirror. Raises ConfigError for a folder that cannot hold it, ModelMissing where the
    server cannot give it (what has come is kept), ModelMismatch for other content (removed).
    """
    url = url or weights.url
    target = folder / weights.name
    part = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file():
            _check(target, _hashed(target, console), weights)
            return target
        had = part.stat().st_size if part.is_file() else 0
        free = shutil.disk_usage(folder).free
        if free < weights.bytes - had:
            raise ConfigError(
                f"{folder}: {free / 1e9:.2f} GB free, expected {(weights.bytes - had) / 1e9:.2f}"
            )
        digest = _hashed(part, console) if had else hashlib.sha256()
        if had < weights.bytes:
            digest = _receive(url, part, had, digest, weights, console)
    except OSError as exc:
        raise ConfigError(
            f"{exc.filename or folder}: {exc.strerror or exc}, expected a folder to write in"
        ) from exc
    try:
        _check(part, digest, weights)
    except ModelMismatch:
        part.unlink()  # going on with it could never end well
        raise
    part.replace(target)
    return target


def _receive(
    url: str, part: Path, had: int, digest: hashlib._Hash, weights: Weights, console: Console
) -> hashlib._Hash:
    headers = {"Range": f"bytes={had}-"} if had else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if had and answer.status != 206:  # this server starts over, so we do
                had, digest = 0, hashlib.sha256()
            with part.open("ab" if had else "wb") as file, _bar(console) as bar:
                task = bar.add_task(weights.name, total=weights.bytes, completed=had)
                while block := answer.read(BLOCK):
                    file.write(block)
                    digest.update(block)
                    had += len(block)
                    bar.update(task, completed=had)
                    if had > weights.bytes:
                        break  # another file: no need to have all of it
    except _NETWORK_ERRORS as exc:
        reason = getattr(exc, "reason", exc)
        raise ModelMissing(
            f"{redact(url)}: {reason}; {had} bytes are kept, run it again to go on"
        ) from exc
    if had < weights.bytes:
        raise ModelMissing(
            f"{redact(url)}: ended after {had} of {weights.bytes} bytes; run it again to go on"
        )
    return digest


def _check(path: Path, digest: hashlib._Hash, weights: Weights) -> None:
    actual, size = digest.hexdigest(), path.stat().st_size
    if actual != weights.sha256:
        raise ModelMismatch(
            f"{path}: sha256 is {actual[:12]} ({size} bytes), "
            f"expected {weights.sha256[:12]} ({weights.bytes} bytes)"
        )


def _hashed(path: Path, console: Console) -> hashlib._Hash:
    digest = hashlib.sha256()
    with path.open("rb") as file, _bar(console) as bar:
        task = bar.add_task(f"checking {path.name}", total=path.stat().st_size)
        while block := file.read(BLOCK):
            digest.update(block)
            bar.advance(task, len(block))
    return digest


def _bar(console: Console) -> Progress:
    return progress_bars(
        DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=console
    )


if __name__ == "__main__":
    sys.exit(main())
