"""What `space.yaml` says of each sense's tower beside its files, and the rows its graph takes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.types import Array, Window
from encoders.clip_text import ClipTokenizer
from encoders.manifest import convert
from encoders.registry import find_plugin

__all__ = [
    "FRAMES",
    "INPUT",
    "OUTPUT",
    "SENSES",
    "TEXT",
    "TEXT_INPUT",
    "TOKENIZER",
    "sense_rows",
    "text_rows",
    "tower_entry",
]

# A tower by the name that the agent has for its sense.
SENSES = {
    "image": "vision",
    "text": "text",
    "audio": "audio",
    "depth": "depth",
    "thermal": "thermal",
    "imu": "imu",
}
TEXT = "text"
TOKENIZER = Path(str(package_files("encoders.imagebind") / "tokenizer.json"))
FRAMES = ("image", "video")
INPUT, TEXT_INPUT, OUTPUT = "input", "ids", "embedding"

_STILL = {"length_s": 0.5, "hop_s": 0.5, "ticks": 1}
# A published clip: its first and last frame.
_CLIP = {"length_s": 2.0, "hop_s": 0.5, "ticks": 2, "spread": True}
_WINDOWS = {
    "image": _STILL,
    "audio": {"length_s": 2.0, "hop_s": 0.5},
    "depth": _STILL,
    "thermal": _STILL,
    "imu": {"length_s": 10.0, "hop_s": 1.0},
}
# What differs from a preprocessing's own defaults: a stream has no time for Pillow. Set to "exact"
# by hand, it stays so.
_PARAMETERS = {"imagebind_image": {"resize": "fast"}, "imagebind_thermal": {"resize": "fast"}}


def tower_entry(sense: str, frames: str = FRAMES[0]) -> dict[str, Any]:
    """Without files, precision, scale and tokenizer. frames: what the image tower is to be fed,
    stills or clips; the network is the same.
    """
    if sense == TEXT:
        return {"kind": "clip_text", "input": TEXT_INPUT, "output": OUTPUT}
    name = f"imagebind_{frames}" if sense == "image" else f"imagebind_{sense}"
    # Every parameter is written out: a folder must not change when a default does.
    parameters = msgspec.to_builtins(_preprocessing(name, _PARAMETERS.get(name, {})))
    return {
        "kind": "tower",
        "input": INPUT,
        "output": OUTPUT,
        "window": dict(_CLIP if name == "imagebind_video" else _WINDOWS[sense]),
        "preprocess": {"name": name, "parameters": parameters},
    }


def sense_rows(entry: dict[str, Any], windows: Sequence[Window]) -> Array:
    """float32 (k, *view), k >= 1: the views of `windows`, by the preprocessing of an entry."""
    preprocess = _preprocessing(**entry["preprocess"])
    return np.concatenate([preprocess(window) for window in windows])


def text_rows(texts: Sequence[str]) -> list[Array]:
    """int64 (length,) of each text, by the tokenizer that a folder gets."""
    tokenizer = ClipTokenizer(TOKENIZER)
    return [np.array(tokenizer(text), np.int64) for text in texts]


def _preprocessing(name: str, parameters: dict[str, Any]) -> Any:
    plugin = find_plugin(name, "encoders.preprocess", "sensebind.preprocess", "preprocess.name")
    return convert(parameters, plugin, name)
