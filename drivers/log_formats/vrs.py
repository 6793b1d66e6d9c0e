"""VRS, the format of Project Aria's glasses, through Meta's own reader (x86-64 only)."""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from agent.clock import from_s
from agent.errors import BadData, DeviceNotFound
from agent.extras import needs_extra
from agent.types import Array, StreamInfo, slug
from drivers.log_formats.base import (
    IMU_CHANNELS,
    RATE_MESSAGES,
    Blocks,
    Decoded,
    Decoder,
    Message,
    TickDecoder,
    audio_stamps,
    measured_rate_hz,
    picture_stream,
    vector_stream,
)

__all__ = ["VRS_MAGIC", "VrsLog"]

VRS_MAGIC = b"VisionRe"

# vrs/FileFormat.h: magic, creation id, header sizes, offsets of index, description, first record.
_FILE_HEADER = struct.Struct("<8sQIIqqq")
# vrs/FileFormat.h RecordHeader: its own size ... format version ... compression, raw size.
_RECORD_HEADER = struct.Struct("<IIiIdHBBI")
_STREAM_ID_BYTES = 6
_INDEX_ENTRY = np.dtype([("t", "<f8"), ("size", "<u4"), ("type", "u1"), ("stream", "V6")])
_CLASSIC_INDEX, _ZSTD = 2, 2

_stderr_lock = threading.Lock()


class VrsLog:
    """See base.LogFile. Topics are stream ids such as "1202-1"; messages are data records."""

    def __init__(self, path: Path) -> None:
        """Raises DeviceNotFound for a file that is no VRS; ConfigError without the `vrs` extra."""
        with needs_extra("vrs"):
            from pyvrs import ImageConversion, SyncVRSReader
        self._conversion = ImageConversion
        try:
            self.complete = _is_whole(path)
            with _quiet_stderr():
                self._reader: Any = SyncVRSReader(str(path))
        except (RuntimeError, ValueError, struct.error, zstandard.ZstdError, OSError) as exc:
            raise DeviceNotFound(f"log {path}: cannot be read as VRS: {exc}") from exc
        self._path = path
        # As they are first, so that depth is not made a picture; see `decoder`.
        self._reader.set_image_conversion(ImageConversion.DECOMPRESS)
        self.topics = tuple(sorted(self._reader.stream_ids))
        self.metadata = {"vrs": dict(self._reader.file_tags)}
        records = self._records(set(self.topics))
        self.start_ns = self.end_ns = 0
        if len(records):
            self.start_ns = from_s(records.get_timestamp_for_index(0))
            self.end_ns = from_s(records.get_timestamp_for_index(len(records) - 1))

    def messages(self) -> Iterator[Message]:
        records = self._records(set(self.topics))
        for i in range(len(records)):
            try:
                record = records[i]
            except (RuntimeError, ValueError) as exc:
                self.complete = False
                raise BadData(f"log {self._path}: record {i} cannot be read: {exc}") from exc
            yield Message(record.stream_id, from_s(record.timestamp), record)

    def decoder(self, topic: str, modality: str | None) -> Decoder | None:
        records = self._records({topic})
        if not len(records):
            return None
        head = [from_s(t) for t in islice(records.get_timestamp_list(), RATE_MESSAGES)]
        rate_hz = measured_rate_hz(head)
        record = records[0]
        if record.n_image_blocks:
            return self._pictures(topic, record, records, modality, rate_hz)
        if record.n_audio_blocks:
            return _AudioDecoder(topic, record, modality)
        if self._reader.might_contain_images(topic):
            return None  # pictures in a format that the reader does not know
        values = _values(record)
        device = self._reader.get_stream_info(topic)["device_name"]
        return _vector_decoder(topic, device, values, modality, rate_hz)

    def close(self) -> None:
        self._reader.close()

    def _records(self, topics: set[str]) -> Any:
        return self._reader.filtered_by_fields(stream_ids=topics, record_types={"data"})

    def _pictures(
        self, topic: str, record: Any, records: Any, modality: str | None, rate_hz: float | None
    ) -> Decoder | None:
        pixels = str(record.image_specs[0])
        depth = "depth32f" in pixels or (
            "grey16" in pixels and "Depth" in self._reader.get_stream_info(topic)["device_name"]
        )
        if not depth:
            self._reader.set_stream_image_conversion(topic, self._conversion.NORMALIZE)
            record = records[0]
        if not record.n_image_blocks:
            return None
        modality = modality or ("depth" if depth else "image")
        info, convert = picture_stream(topic, _picture(record, depth), modality, rate_hz)

        def extract(record: Any) -> tuple[Array, int]:
            if not record.n_image_blocks:
                raise BadData(f"log topic {topic}: a record without a picture")
            return convert(_picture(record, depth)), _stamp_ns(_values(record))

        return TickDecoder(info, extract)


class _AudioDecoder:
    def __init__(self, topic: str, record: Any, modality: str | None) -> None:
        self._topic = topic
        spec = record.audio_specs[0]
        self._rate_hz = float(spec.sample_rate)
        whole = record.audio_blocks[0].dtype == np.int16
        self.info = StreamInfo(
            name=slug(topic),
            modality=modality or "audio",
            dtype="int16" if whole else "float32",
            shape=(int(spec.channel_count),),
            rate_hz=self._rate_hz,
            unit="full_scale",
            topic=topic,
        )

    def decode(self, log_ns: int, payload: Any) -> Blocks:
        if not payload.n_audio_blocks:
            raise BadData(f"log topic {self._topic}: a record without sound")
        sound: Array = payload.audio_blocks[0]
        if sound.dtype == np.int32:
            sound = sound / 2.0**31
        elif sound.dtype.kind != "f" and sound.dtype != np.int16:
            raise BadData(
                f"log topic {self._topic}: sound of {sound.dtype}, expected 16 or 32 bits"
            )
        stamps = _values(payload).get("capture_timestamps_ns")
        if stamps is None or len(stamps) != len(sound):
            t_ns = audio_stamps(log_ns, len(sound), self._rate_hz)
        else:
            t_ns = np.array(stamps, np.int64)
        # A record has the time of its first frame, and is there no sooner than its last one.
        arrival_ns = max(log_ns, int(t_ns[-1]))
        return [Decoded(sound.astype(self.info.dtype), t_ns, arrival_ns, t_ns.copy())]

    def finish(self) -> Blocks:
        return ()


def _vector_decoder(
    topic: str,
    device: str,
    values: Mapping[str, Any],
    modality: str | None,
    rate_hz: float | None,
) -> Decoder | None:
    """Motion sensors by their fields; of other records every number that is not a time."""
    if values.get("accelerometer_valid") and values.get("gyroscope_valid"):
        fields, dtype = ["accelerometer", "gyroscope"], "float32"
        info = StreamInfo(
            slug(topic), modality or "imu", dtype, (6,), rate_hz, "m/s^2,rad/s",
            topic=topic, channels=IMU_CHANNELS,
        )  # fmt: skip
    else:
        unit, dtype = "unspecified", "float64"
        if values.get("magnetometer_valid"):
            fields, unit, name = ["magnetometer"], "uT", "magnetic_field"
        else:
            fields = [k for k, v in values.items() if "timestamp" not in k and _is_numeric(v)]
            name = slug(re.sub(r" (Data|Class|\(.*\))", "", device))
        channels = [c for field in fields for c in _channels(field, values[field])]
        if not channels:
            return None
        info = vector_stream(topic, modality or name, channels, unit, rate_hz)

    def extract(record: Any) -> tuple[Array, int]:
        found = _values(record)
        try:
            tick = np.hstack([found[field] for field in fields]).astype(dtype)
        except KeyError as exc:
            raise BadData(f"log topic {topic}: a record without {exc}") from exc
        return tick, _stamp_ns(found)

    return TickDecoder(info, extract)


def _values(record: Any) -> dict[str, Any]:
    """All metadata fields of a record."""
    return {key: value for block in record.metadata_blocks for key, value in block.items()}


def _stamp_ns(values: Mapping[str, Any]) -> int:
    return max(int(values.get("capture_timestamp_ns", 0)), 0)


def _picture(record: Any, depth: bool) -> Array:
    """Depth as it is, (h, w) float32 or uint16; else uint8 (h, w) grey or (h, w, 3) RGB."""
    picture: Array = record.image_blocks[0]
    if depth:
        return picture
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)  # NORMALIZE fills all 16 bits
    return picture[:, :, :3] if picture.ndim == 3 else picture


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_numeric, value))
    return isinstance(value, (bool, int, float))


def _channels(field: str, value: Any) -> list[str]:
    return [f"{field}[{i}]" for i in range(len(value))] if isinstance(value, list) else [field]


def _is_whole(path: Path) -> bool:
    """Whether the file holds all that its index lists; pyvrs only prints that to stderr."""
    with path.open("rb") as file:
        fields = _FILE_HEADER.unpack(file.read(_FILE_HEADER.size))
        index_at, first_record = fields[4], fields[6]
        size = path.stat().st_size
        if not 0 < index_at <= size - _RECORD_HEADER.size:
            return False
        file.seek(index_at)
        header = _RECORD_HEADER.unpack(file.read(_RECORD_HEADER.size))
        length, version, compression = header[0] - _RECORD_HEADER.size, header[3], header[7]
        if first_record <= index_at:  # the index is at the end, written when all else was
            return bool(index_at + _RECORD_HEADER.size + length <= size)
        if version == _CLASSIC_INDEX:  # begins with a list of streams, which is not compressed
            streams = int.from_bytes(file.read(4), "little")
            skipped = 4 + streams * _STREAM_ID_BYTES + 4
            file.seek(skipped - 4, os.SEEK_CUR)
            length -= skipped
        index = file.read(length)
    if compression == _ZSTD:
        index = zstandard.ZstdDecompressor().decompressobj().decompress(index)
    entries = np.frombuffer(index, _INDEX_ENTRY, len(index) // _INDEX_ENTRY.itemsize)
    chunks = [size]
    while (chunk := path.with_name(f"{path.name}_{len(chunks)}")).exists():
        chunks.append(chunk.stat().st_size)
    return bool(first_record + int(entries["size"].sum()) <= sum(chunks))


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep the C++ reader's progress lines out of the terminal while it opens a file.

    It has no setting for that: its log level is a stub in the open-source build, and it writes to
    the file descriptor itself.
    """
    with _stderr_lock:
        saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(null)
