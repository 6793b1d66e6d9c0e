"""Writing a log that a tool has made: whole, and over what may be there."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.clock import ManualClock
from agent.record.writer import LogWriter
from agent.types import Sample, StreamInfo

__all__ = ["write_log"]

QUEUE_MB = 8192  # all of a log is queued before it is written


def write_log(
    path: Path,
    streams: Iterable[StreamInfo],
    samples: Iterable[Sample],
    *,
    agent: str,
    metadata: Mapping[str, str],
    jpeg_quality: int = 90,
) -> None:
    """The samples in order of their arrival, at least one; the same samples give the same bytes.

    agent: whose log it says it is. streams: all, in the order that they are declared in. Raises
    RecordError where it cannot be written.
    """
    blocks = sorted(samples, key=lambda sample: (sample.arrival_ns, sample.stream.name))
    path.unlink(missing_ok=True)  # what a run that was broken off has left
    writer = LogWriter(
        path,
        clock=ManualClock(blocks[0].arrival_ns),
        agent=agent,
        boot_id=agent,
        metadata=metadata,
        max_queue_mb=QUEUE_MB,
        jpeg_quality=jpeg_quality,
    )
    for info in streams:
        writer.add_stream(info)
    for sample in blocks:
        writer.put(sample)
    done = threading.Event()
    done.set()
    writer.run(done)
