"""Make the tokenizer.json of CLIP's byte-pair encoding from its published merge list.

The list is `bpe_simple_vocab_16e6.txt.gz` of OpenAI CLIP (MIT); the wheel of open-clip-torch
carries it. The same list gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from agent.atomic import open_atomic
from agent.errors import AgentError, ConfigError

__all__ = ["main"]

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
MERGES = 48_894  # the first of the 262,144 in the list; with symbols and marks, 49,408 tokens
END_OF_WORD = "</w>"
MARKS = ("<|startoftext|>", "<|endoftext|>")
# OpenAI CLIP, simple_tokenizer.py: contractions, runs of letters, single digits, the rest.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--merges", required=True, type=Path, help="bpe_simple_vocab_16e6.txt.gz")
    parser.add_argument("-o", "--output", required=True, type=Path, help="tokenizer.json to write")
    args = parser.parse_args(argv)
    try:
        tokenizer = _tokenizer(_merges(args.merges))
        # Without added tokens: a text that spells a mark out is text, and cannot end itself.
        content = msgspec.json.decode(tokenizer.to_str())
        content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
        with open_atomic(args.output) as file:
            file.write(msgspec.json.encode(content))
    except AgentError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    print(f"{args.output}: {tokenizer.get_vocab_size()} tokens")
    return 0


def _merges(path: Path) -> list[tuple[str, str]]:
    """The merges in use, best first. Raises ConfigError for another file."""
    try:
        packed = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}), expected the merges") from exc
    actual = hashlib.sha256(packed).hexdigest()
    if actual != SHA256:
        raise ConfigError(f"{path}: sha256 is {actual[:12]}, expected {SHA256[:12]}")
    lines = gzip.decompress(packed).decode("utf-8").split("\n")[1 : MERGES + 1]
    return [(left, right) for left, right in (line.split() for line in lines)]


def _byte_symbols() -> list[str]:
    """A printable symbol for each of the 256 bytes, in the order of their ids.

    GPT-2's mapping: bytes that print in Latin-1 stand for themselves, the others for 256 and up.
    """
    prints = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    return [chr(code) for code in [*prints, *range(256, 512 - len(prints))]]


def _tokenizer(merges: list[tuple[str, str]]) -> Tokenizer:
    symbols = _byte_symbols()
    tokens = [*symbols, *(symbol + END_OF_WORD for symbol in symbols)]
    tokens += [*(left + right for left, right in merges), *MARKS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = Sequence(
        [
            Split(Regex(WORDS), behavior="removed", invert=True),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


if __name__ == "__main__":
    sys.exit(main())
