"""How a stream is written into a log and read back: one codec a stream, kernel level.

encode.py turns samples into messages that Foxglove and ROS tools open, decode.py turns them (and
the like of other makers) back into ticks, blocks.py keeps what those schemas have no place for,
and mcapfile.py opens an MCAP file, whole or cut off.
"""

from __future__ import annotations

from agent.codecs.blocks import BLOCKS_TOPIC, Block
from agent.codecs.decode import Ticks, decode, decode_compressed, decode_pixels
from agent.codecs.encode import STREAM_KEY, Codec, Schema, codec_for
from agent.codecs.mcapfile import McapFile, McapMessage

__all__ = [
    "BLOCKS_TOPIC",
    "STREAM_KEY",
    "Block",
    "Codec",
    "McapFile",
    "McapMessage",
    "Schema",
    "Ticks",
    "codec_for",
    "decode",
    "decode_compressed",
    "decode_pixels",
]
