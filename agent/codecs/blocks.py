"""What the public schemas have no place for: one note a block, on one channel for all streams.

sensor_msgs/Imu and foxglove.RawAudio have one stamp and no sequence number, so a log of them alone
loses the device's own stamps, the count of lost ticks and where a block began. A replay needs all
three. One small note a block (not a tick) costs about 150 bytes before compression.
"""

from __future__ import annotations

import zlib

import msgspec
import numpy as np

from agent.errors import BadData
from agent.types import Array, Int64Array, Sample

__all__ = ["BLOCKS_TOPIC", "Block"]

BLOCKS_TOPIC = "/blocks"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Written just before the messages of the block it describes, with the same log time.

    stream: its name. seq, lost: as in Sample. ticks: length of the block. t, device_t: stamps in
    nanoseconds as base64 of zlib of little-endian int64 second differences, which are nearly all
    zero for an even clock; device_t is null where the device gave none.
    """

    stream: str
    seq: int
    lost: int
    ticks: int
    t: bytes
    device_t: bytes | None = None

    @classmethod
    def of(cls, sample: Sample) -> Block:
        device = sample.device_t_ns
        return cls(
            stream=sample.stream.name,
            seq=sample.seq,
            lost=sample.lost,
            ticks=len(sample),
            t=_pack(sample.t_ns),
            device_t=None if device is None else _pack(device),
        )

    @classmethod
    def decode(cls, payload: bytes) -> Block:
        """Raises BadData for anything but an encoded block."""
        try:
            return msgspec.json.decode(payload, type=cls)
        except msgspec.DecodeError as exc:
            raise BadData(f"log topic {BLOCKS_TOPIC}: not a block note: {exc}") from exc

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    def t_ns(self) -> Int64Array:
        """Capture stamps, int64 (ticks,). Raises BadData where they cannot be read."""
        return _unpack(self.t, self.ticks)

    def device_t_ns(self) -> Int64Array | None:
        """The device's own stamps, int64 (ticks,), or None. Raises BadData as `t_ns`."""
        return None if self.device_t is None else _unpack(self.device_t, self.ticks)


def _pack(stamps: Array) -> bytes:
    # Differences wrap around in int64 and so do the sums that undo them: exact for any stamps.
    second = np.diff(np.diff(stamps.astype(np.int64), prepend=0), prepend=0)
    return zlib.compress(second.astype("<i8").tobytes(), 1)


def _unpack(packed: bytes, ticks: int) -> Int64Array:
    try:
        second = np.frombuffer(zlib.decompress(packed), "<i8").astype(np.int64)
    except (zlib.error, ValueError) as exc:
        raise BadData(f"log topic {BLOCKS_TOPIC}: stamps cannot be unpacked: {exc}") from exc
    if len(second) != ticks:
        raise BadData(f"log topic {BLOCKS_TOPIC}: {len(second)} stamps, expected {ticks}")
    stamps: Int64Array = np.cumsum(np.cumsum(second))
    return stamps
