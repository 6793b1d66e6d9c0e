"""Files inside a binary resource file of Qt's (.rcc), as its `rcc --binary` writes them.

The layout is that of Qt's own reader (qtbase, src/corelib/io/qresource.cpp): a header, a tree of
nodes, names in UTF-16, and data; every number is big-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from agent.errors import ConfigError

__all__ = ["read_rcc"]

MAGIC = b"qres"
COMPRESSED, FOLDER, ZSTANDARD = 1, 2, 4  # flags of a node
NODE_BYTES = {1: 14, 2: 22, 3: 22}  # by version: later ones tell when a file was changed


def read_rcc(path: Path) -> dict[str, bytes]:
    """Content by path inside the file, without a leading slash; what is kept in Zstandard, which
    is nothing that is heard, is left out. Raises ConfigError for a file that is none of Qt's.
    """
    try:
        return dict(_Reader(path.read_bytes()).files(0, ""))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}, expected a file of Qt resources") from exc
    except (ValueError, KeyError, struct.error, zlib.error, RecursionError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}), expected Qt resources") from exc


class _Reader:
    def __init__(self, content: bytes) -> None:
        magic, version, *places = struct.unpack_from(">4s4I", content)
        if magic != MAGIC:
            raise ValueError(f"begins with {magic!r}, expected {MAGIC!r}")
        self._content, self._node_bytes = content, NODE_BYTES[version]
        self._tree, self._data, self._names = places

    def files(self, node: int, above: str) -> Iterator[tuple[str, bytes]]:
        """Of a node and all below it; 0 is the root, which has no name."""
        at = self._tree + node * self._node_bytes
        name_at, flags = struct.unpack_from(">IH", self._content, at)
        path = f"{above}{self._name(name_at)}" if node else ""
        if flags & FOLDER:
            count, first = struct.unpack_from(">II", self._content, at + 6)
            for child in range(first, first + count):
                yield from self.files(child, f"{path}/" if path else "")
        elif not flags & ZSTANDARD:
            (place,) = struct.unpack_from(">I", self._content, at + 10)  # behind its language
            yield path, self._read(self._data + place, flags)

    def _name(self, place: int) -> str:
        at = self._names + place
        (length,) = struct.unpack_from(">H", self._content, at)
        return self._content[at + 6 : at + 6 + 2 * length].decode("utf-16-be")  # behind its hash

    def _read(self, at: int, flags: int) -> bytes:
        (length,) = struct.unpack_from(">I", self._content, at)
        own = self._content[at + 4 : at + 4 + length]
        # qCompress puts the length before what zlib wrote.
        return zlib.decompress(own[4:]) if flags & COMPRESSED else own
