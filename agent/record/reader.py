"""A log of ours as replay needs it beyond its streams, which drivers/log.py gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.codecs import McapFile
from agent.errors import BadData
from agent.record.writer import LEDGER_RECORD, RUN_RECORD, STREAMS_RECORD, Counts
from agent.types import StreamInfo

__all__ = ["LogReader"]


class LogReader:
    """Open for reading, also where the log was cut off. Use as a context manager or `close` it.

    run: agent, boot_id, versions and what the writer was given. streams: by name, as they were
    recorded. ledger: the writer's own counts, empty where it was killed. complete: True where
    the file is whole and its ledger is there.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises DeviceNotFound where there is no MCAP file; BadData for metadata not of ours."""
        self._file = McapFile(path)
        records = self._file.metadata
        self.run: dict[str, str] = records.get(RUN_RECORD, {})
        ledger = dict(records.get(LEDGER_RECORD, {}))
        self.complete = self._file.complete and ledger.pop("complete", "") == "true"
        try:
            self.ledger = {n: msgspec.json.decode(c, type=Counts) for n, c in ledger.items()}
            streams = records.get(STREAMS_RECORD, {})
            self.streams = {
                name: msgspec.json.decode(text, type=StreamInfo) for name, text in streams.items()
            }
        except msgspec.DecodeError as exc:
            self._file.close()
            raise BadData(f"log {path}: its metadata is not of this version: {exc}") from exc

    @property
    def start_ns(self) -> int:
        """First log time, 0 in an empty log."""
        return self._file.start_ns

    @property
    def end_ns(self) -> int:
        """Last log time, 0 in an empty log."""
        return self._file.end_ns

    def messages(self, topic: str) -> Iterator[tuple[int, bytes]]:
        """(log time in ns, payload) of one topic in log order, '/control' or '/events_full' say.

        Raises BadData at a damaged record.
        """
        for message in self._file.messages([topic]):
            yield message.log_ns, message.data

    def close(self) -> None:
        """Idempotent."""
        self._file.close()

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
