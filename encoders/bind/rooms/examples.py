"""Examples of rooms: parts of what the depth camera saw beside what the frozen image tower says of
the same parts in colour. No name of any piece is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from agent.types import Array, StreamInfo, Window
from encoders.bind.aligned import RoomRecipe
from encoders.bind.examples import Examples
from encoders.bind.rooms.scene import View
from encoders.preprocess.base import Float32Array, Preprocess

__all__ = ["around", "room_examples", "window_of"]

WIDER = 0.6  # of a piece's longer side, at most, on each side of it
WHOLE = 0.25  # of the parts, that are whole frames


def window_of(picture: Array, modality: str) -> Window:
    """A still: uint16 (rows, columns) in mm, or uint8 (rows, columns, 3)."""
    frame = np.ascontiguousarray(picture)
    unit = "mm" if modality == "depth" else "rgb8"
    info = StreamInfo("room", modality, frame.dtype.name, frame.shape, None, unit)
    return Window(info, 0, 1, frame[np.newaxis], np.zeros(1, np.int64))


def around(view: View, margins: tuple[float, float, float, float]) -> tuple[slice, slice]:
    """Rows and columns of its piece; margins: left, top, right, bottom, in its longer side."""
    left, top, right, bottom = view.box
    side = max(right - left, bottom - top)
    edges = [round(side * margin) for margin in margins]
    return (
        slice(max(0, top - edges[1]), bottom + edges[3]),
        slice(max(0, left - edges[0]), right + edges[2]),
    )


def room_examples(
    rooms: Iterable[list[View]],
    recipe: RoomRecipe,
    preprocess: Preprocess,
    embed: Callable[[Window], Float32Array],
    progress: Callable[[int, int], None],
    vary: Callable[[Float32Array, np.random.Generator], Float32Array],
) -> Examples:
    """`recipe.parts` of each view, whole frames or around its piece, half of them mirrored; groups
    are rooms. embed, vary: as aligned_examples. The same for the same rooms.
    """
    rng = np.random.default_rng(recipe.count)
    views, anchors, groups = [], [], []
    for number, room in enumerate(rooms):
        for view in room:
            for _ in range(recipe.parts):
                rows = columns = slice(None)
                if rng.random() >= WHOLE:
                    left, top, right, bottom = rng.uniform(0, WIDER, 4)
                    rows, columns = around(view, (left, top, right, bottom))
                step = int(rng.choice([1, -1]))  # mirrored or not
                depth = view.depth[rows, columns][:, ::step]
                colour = view.colour[rows, columns][:, ::step]
                views.append(vary(preprocess(window_of(depth, "depth"))[0], rng))
                anchors.append(embed(window_of(colour, "image")))
                groups.append(number)
        progress(number + 1, recipe.count)
    none = np.full(len(views), -1, np.int64)
    return Examples(views, np.stack(anchors), np.array(groups, np.int64), none)
