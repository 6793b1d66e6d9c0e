"""A file as foxglove-sdk writes to it."""

from __future__ import annotations

from typing import BinaryIO

__all__ = ["Sink"]


class Sink:
    """Passes everything on, and keeps the error that the SDK hides. Owns the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes | bytearray) -> int:
        try:
            return self._file.write(data)
        except OSError as exc:
            self.error = exc
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as exc:
            self.error = exc
            raise

    def close(self) -> None:
        """Never raises after an error: what is left in the buffer was lost with it."""
        try:
            self._file.close()
        except OSError as exc:
            self.error = self.error or exc
