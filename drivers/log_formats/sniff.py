"""Which format a log is in, by what is in it and not by its name."""

from __future__ import annotations

from pathlib import Path

import yaml

from agent.codecs.mcapfile import MCAP_MAGIC
from agent.errors import DeviceNotFound
from drivers.log_formats.bag import open_bag1, open_bag2
from drivers.log_formats.base import LogFile
from drivers.log_formats.csv import CsvLog, csv_columns
from drivers.log_formats.mcap import McapLog
from drivers.log_formats.vrs import VRS_MAGIC, VrsLog

__all__ = ["open_log"]

_BAG1_MAGIC = b"#ROSBAG V2."
_SQLITE_MAGIC = b"SQLite format 3\x00"
_HEAD_BYTES = 4096
_KNOWN = "MCAP, a rosbag2 folder or .db3, a ROS 1 bag, VRS, or CSV of a motion sensor"


def open_log(path: Path) -> LogFile:
    """Open any log. Raises DeviceNotFound in one line; ConfigError where a VRS needs its extra."""
    try:
        if path.is_dir():
            return _open_folder(path)
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DeviceNotFound(f"log {path}: not a file, expected {_KNOWN}")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as exc:
        raise DeviceNotFound(f"log {path}: {exc.strerror or exc}") from exc
    if head.startswith(MCAP_MAGIC):
        return McapLog([path])
    if head.startswith(_BAG1_MAGIC):
        return open_bag1(path)
    if head.startswith(VRS_MAGIC):
        return VrsLog(path)
    if head.startswith(_SQLITE_MAGIC):
        return open_bag2(path)
    if csv_columns(head.partition(b"\n")[0].decode("utf-8", "replace")) is not None:
        return CsvLog(path)
    raise DeviceNotFound(f"log {path}: not a log that can be read, expected {_KNOWN}")


def _open_folder(path: Path) -> LogFile:
    metadata = path / "metadata.yaml"
    if not metadata.is_file():
        raise DeviceNotFound(f"log {path}: a folder without metadata.yaml, expected one of rosbag2")
    try:
        info = yaml.safe_load(metadata.read_bytes())["rosbag2_bagfile_information"]
        names = [Path(name).name for name in info["relative_file_paths"]]
        compressed = info.get("compression_mode") not in (None, "", "none", "NONE")
        mcap = info["storage_identifier"] == "mcap"
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as exc:
        raise DeviceNotFound(f"log {metadata}: not the metadata of a rosbag2") from exc
    if mcap and not compressed:
        return McapLog([path / name for name in names])
    return open_bag2(path)
