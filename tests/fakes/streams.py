"""Streams and blocks whose content says what it is: a tick's row is (its number, its stamp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.types import Array, Sample, StreamInfo

__all__ = ["block", "stream"]


def stream(name: str = "mic", modality: str = "audio", **fields: Any) -> StreamInfo:
    """A stream of int64 rows (number, stamp), unless `fields` say otherwise."""
    defaults: dict[str, Any] = {"dtype": "int64", "shape": (2,), "rate_hz": None, "unit": ""}
    return StreamInfo(name=name, modality=modality, **(defaults | fields))


def block(
    info: StreamInfo,
    seq: int,
    t_ns: Sequence[int],
    *,
    arrival_ns: int | None = None,
    data: Array | None = None,
    device_t_ns: Sequence[int] | None = None,
    lost: int = 0,
) -> Sample:
    """The ticks `seq`, `seq` + 1, ... at `t_ns`; they arrive at once where nothing else is said."""
    stamps = np.array(t_ns, np.int64)
    if data is None:
        data = np.stack([np.arange(seq, seq + len(stamps)), stamps], axis=1)
    return Sample(
        info,
        seq,
        stamps,
        int(stamps[-1]) if arrival_ns is None else arrival_ns,
        data,
        None if device_t_ns is None else np.array(device_t_ns, np.int64),
        lost,
    )
