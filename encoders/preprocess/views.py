"""Several looks at one frame: the whole as ever, and beside it parts of the frame.

One vector holds what a picture is mostly of. What is small in a wide picture, and the second thing
in a picture of two, have a vector of their own where a part of the frame is looked at alone: cut
from the frame and looked at like a frame, or, which costs next to nothing, told by the network from
a part of its own last map.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, NamedTuple

import msgspec
import numpy as np

from agent.types import Region, Settings, Window
from encoders.preprocess.base import Box, Float32Array, Square, Squares
from encoders.preprocess.crops import short_side_squares

__all__ = ["MapSettings", "Part", "Rows", "ViewSettings", "rows_of", "tiles"]

# A share of a frame is told to a millionth of its side.
DECIMALS = 6

_Count = Annotated[int, msgspec.Meta(ge=1, le=8)]


class MapSettings(Settings, frozen=True, kw_only=True):
    """Parts of each view of which the graph gives a vector beside the view's own.

    output: the graph's, (n, k, dim). cells: of the map along either side of a view, evenly. side,
    step: the parts are squares of side x side cells, `step` cells apart, by rows; k of them.
    """

    output: str
    cells: _Count
    side: _Count
    step: _Count

    def __post_init__(self) -> None:
        if self.side > self.cells:
            raise ValueError(f"side is {self.side}, expected at most cells, {self.cells}")

    @property
    def count(self) -> int:
        """k."""
        return len(self._starts()) ** 2

    def regions(self, box: Box, height: int, width: int) -> list[Region]:
        """Where they are in a frame, of which a view shows `box`."""
        across, down = box.width / width / self.cells, box.height / height / self.cells
        left, top = box.left / width, box.top / height
        return [
            _rounded(left + column * across, top + row * down, self.side * across, self.side * down)
            for row in self._starts()
            for column in self._starts()
        ]

    def _starts(self) -> range:
        return range(0, self.cells - self.side + 1, self.step)


class ViewSettings(Settings, frozen=True, kw_only=True):
    """Which parts of a frame are looked at beside the whole.

    squares: those of the whole short side that cover the frame, as encoders.preprocess.crops has
    them: of 4:3 three, of 16:9 two, of a square none. tiles: so many squares along the short side
    of the frame and so many along its long side, 1..8 each, which cover it; neighbours overlap
    where that takes it. map: what the graph tells by itself; nothing is cut then.
    """

    squares: bool = False
    tiles: tuple[_Count, _Count] | None = None
    map: MapSettings | None = None

    def __post_init__(self) -> None:
        cut = self.squares or self.tiles is not None
        if cut == (self.map is not None):
            said = "map beside squares or tiles" if cut else "nothing"
            raise ValueError(f"views ask for {said}, expected squares: true, tiles or else map")

    def parts(self, height: int, width: int) -> list[Square]:
        """Of a frame, each once: the squares, then the tiles by rows."""
        found = short_side_squares(height, width) if self.squares else []
        if self.tiles is not None:
            found += tiles(height, width, *self.tiles)
        return list(dict.fromkeys(found))


class Part(NamedTuple):
    """Where a view was cut from, and which of the window's rows are its: one a frame."""

    region: Region
    rows: range


class Rows(NamedTuple):
    """What a network is given of a window: float32 (k, *shape), first the `whole` rows that it
    would have been given without views.
    """

    rows: Float32Array
    whole: int
    parts: tuple[Part, ...]


def tiles(height: int, width: int, short: int, long: int) -> list[Square]:
    """short x long squares evenly spread over a frame, by rows; as large as it takes to cover it,
    but no larger than its short side.
    """
    least, most = sorted((height, width))
    side = min(least, max(-(-least // short), -(-most // long)))
    down, across = (short, long) if height <= width else (long, short)
    return [
        Square(left, top, side)
        for top in _spread(height - side, down)
        for left in _spread(width - side, across)
    ]


def rows_of(
    window: Window, whole: Float32Array, preprocess: Squares, settings: ViewSettings
) -> Rows:
    """The rows of a window whose frames `preprocess` has made the rows `whole` of.

    What the preprocessing cuts itself is not cut again. Raises EncodeFailed as the preprocessing.
    """
    frames, height, width = window.data.shape[:3]
    own = preprocess.squares(height, width)
    made, parts = [whole], []
    count = len(whole)
    for part in settings.parts(height, width):
        if part not in own:
            rows = range(count, count + frames)
            made.append(preprocess(_cut(window, part)))
            count += frames
        elif len(own) > 1:
            rows = range(own.index(part), len(whole), len(own))
        else:
            continue  # the whole itself
        parts.append(Part(_region(part, height, width), rows))
    return Rows(np.concatenate(made), len(whole), tuple(parts))


def _spread(spare: int, count: int) -> list[int]:
    if count == 1:
        return [spare // 2]
    return [spare * i // (count - 1) for i in range(count)]


def _cut(window: Window, part: Square) -> Window:
    left, top, side = part
    return replace(window, data=window.data[:, top : top + side, left : left + side])


def _region(part: Square, height: int, width: int) -> Region:
    return _rounded(part.left / width, part.top / height, part.side / width, part.side / height)


def _rounded(*shares: float) -> Region:
    """left, top, width and height."""
    return Region(*(round(share, DECIMALS) for share in shares))
