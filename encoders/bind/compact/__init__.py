"""The space that ships, made tower by tower from committed recipes and public data.

What is below needs the extra `bind`; the names here do not, so that a command can tell them.
"""

__all__ = ["TOWERS"]

TOWERS = (
    "text",
    "imu",
    "audio",
    "image",
    "thermal",
    "depth",
)  # an anchor before what is bound to it
