"""Files or texts to unit vectors of a space, as an .npz with one array a name; its comment, the
archive's, is the identity of the space: tools.npz.read_vectors refuses vectors of another one.

example:
  python -m tools.embed --space compact --modality audio dog.wav rain.flac -o sounds.npz
  python -m tools.embed --space compact --text "a dog barking" --text "rain" -o texts.npz
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from agent.cli import run_command
from agent.contracts import RuntimeOptions
from agent.errors import ConfigError
from agent.types import Array
from encoders.providers import AUTO
from encoders.space import ModelSpace, open_space
from tools.npz import write_npz
from tools.output import progress

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code; a fault is one line on stderr."""
    return run_command(_main, argv)


def _main(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    space, vectors = _embed(args)
    write_npz(args.output, vectors, space)
    print(f"{args.output}: {len(vectors)} written")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="keys are the names as given")
    parser.add_argument(
        "--space",
        default="compact",
        help="model folder, or the name of one that ships (default: compact)",
    )
    parser.add_argument("--modality", help="sense of the files, one that SPACE has a tower of")
    parser.add_argument(
        "--text",
        action="extend",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="texts to embed; keys are the texts",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, help="the .npz to write: float32 (dim,) a key"
    )
    parser.add_argument(
        "--windows",
        action="store_true",
        help="keep each window or crop of a file: float32 (k, dim)",
    )
    parser.add_argument(
        "--views",
        action="store_true",
        help="the whole file's vector and, after it, those of the parts of the frame that the "
        "tower's `views` ask for: float32 (1 + k, dim)",
    )
    parser.add_argument("--precision", help="fp32 or int8 (default: each tower's own)")
    parser.add_argument(
        "--provider",
        action="append",
        metavar="NAME",
        help="cpu, cuda, tensorrt, openvino or an ONNX Runtime name; may be "
        "repeated, best first (default: the best that is there)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of a tower (default: 1)")
    return parser


def _embed(args: argparse.Namespace) -> tuple[str, dict[str, Array]]:
    """The identity of the space, and the vectors by key."""
    if not args.files and not args.text:
        raise ConfigError("nothing to embed: expected FILES with --modality, or --text")
    if args.files and args.modality is None:
        raise ConfigError("--modality: none given, expected the sense of the files")
    if args.windows and args.views:
        raise ConfigError("--windows and --views: both given, expected one of them")
    if args.threads < 1:
        raise ConfigError(f"--threads: {args.threads}, expected at least 1")
    options = RuntimeOptions(
        providers=tuple(args.provider or (AUTO,)), threads=args.threads, precision=args.precision
    )
    space = open_space(args.space, options)
    vectors: dict[str, Array] = {}
    if args.text:
        encoder = space.text_encoder()
        encoder.load()
        for text, embedding in zip(args.text, encoder.encode(args.text), strict=True):
            vectors[text] = embedding.vector
    for file in progress(args.files, "embedding"):
        if file in vectors:
            raise ConfigError(f"{file}: named twice, expected each key once")
        vectors[file] = _file_vector(space, file, args)
    return space.identity, vectors


def _file_vector(space: ModelSpace, file: str, args: argparse.Namespace) -> Array:
    if args.windows:
        return space.embed_views(file, args.modality)
    embedding = space.embed_file(file, args.modality)
    return embedding.rows if args.views else np.asarray(embedding.vector)


if __name__ == "__main__":
    sys.exit(main())
