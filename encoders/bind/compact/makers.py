"""What makes each of compact's towers, by name.

Needs the extra `bind`.
"""

from __future__ import annotations

from encoders.bind.compact.aligned import make_depth, make_thermal
from encoders.bind.compact.folder import Maker
from encoders.bind.compact.labelled import make_audio, make_imu
from encoders.bind.compact.pictures import make_image
from encoders.bind.compact.text import make_text

__all__ = ["MAKERS"]

MAKERS: dict[str, Maker] = {
    "text": make_text,
    "imu": make_imu,
    "audio": make_audio,
    "image": make_image,
    "thermal": make_thermal,
    "depth": make_depth,
}
