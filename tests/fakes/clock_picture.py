"""Pictures that say when they were made: the truth that a camera's stamps are held against.

Plain Python, as a program without numpy makes them too. A picture is 8 x 8 squares, black or
white: the bits of a time in microseconds, most significant first. They survive JPEG and H.264.
"""

from __future__ import annotations

from typing import Any

__all__ = ["luma", "read_us"]

SIDE = 8
BLACK, WHITE = 16, 235  # of limited-range video, ITU-R BT.601


def luma(time_us: int, width: int, height: int) -> bytes:
    """The grey picture, `height` rows of `width` bytes; both are multiples of 8."""
    rows = []
    for row in range(SIDE):
        line = b"".join(
            bytes([WHITE if time_us >> (63 - SIDE * row - column) & 1 else BLACK]) * (width // SIDE)
            for column in range(SIDE)
        )
        rows.append(line * (height // SIDE))
    return b"".join(rows)


def read_us(rgb: Any) -> int:
    """The time that a decoded picture, a numpy array (height, width, 3), says."""
    height, width, _ = rgb.shape
    squares = rgb.reshape(SIDE, height // SIDE, SIDE, width // SIDE, 3).mean(axis=(1, 3, 4))
    return int("".join("1" if square > 128 else "0" for square in squares.ravel()), 2)
