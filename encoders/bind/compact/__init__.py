"""The space that ships, made tower by tower from committed recipes and public data.

What is below needs the extra `bind`; the names here do not, so that a command can tell them.
"""

__all__ = ["TOWERS"]

# An anchor stands before what is bound to it.
TOWERS = ("text", "imu", "audio", "image", "thermal", "depth")
