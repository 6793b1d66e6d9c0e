"""Rooms with furniture that no tower saw, named as its makers name it (encoders/bind/rooms).

The names are for validation alone: no tower of depth is trained with any text. Here each stands
with the names of the catalogues' models that it is for; what is named otherwise is asked for by
nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from encoders.bind.rooms.examples import around
from encoders.bind.rooms.pieces import Piece
from encoders.bind.rooms.scene import fits_a_room, room_views
from tools.query_folder import QueryFolder
from tools.validation_crops import TEXTS

__all__ = ["NAMES", "add_rooms"]

NAMES = {
    "a chair": (
        *("Chair", "Oak chair", "Child chair", "Class seat"),
        *("Armchair", "Modern armchair", "Rattan armchair"),
    ),
    "a table": ("Table", "Cafe table", "Glass table", "Oak table", "Desk table", "Wooden desk"),
    "a sofa": ("Sofa", "Couch", "Clear sofa"),
    "a bed": ("Bed",),
    "a bench": ("Painted bench", "Wood bank", "Little bank"),
    "a bookcase": ("Bookcase", "Shelves"),
    "a wardrobe": ("Wardrobe",),
    "a bath": ("Corner bathtub",),
    "a washbasin": ("Sink", "Small lavatory"),
    "a refrigerator": ("Fridge",),
    "a door": ("Exterior door", "Double door with panes"),
    "a lamp": ("Lamp", "Desk lamp"),
    "a plant": ("Plant",),
    "a television": ("Wall flat TV",),
    "a piano": ("Upright piano",),
    "a person": ("Girl", "Sitting girl"),
    "a dog": ("Dog",),
    "a cat": ("Cat", "Siamese cat"),
    "a motorcycle": ("Yamaha YZR R6",),
}
_NAME_OF = {listed: name for name, all_listed in NAMES.items() for listed in all_listed}
ROOMS, SEED = 240, 1
A_NAME = 12  # views of one name, at most, so that no answer is right for many
LEAST_SHARE = 0.02  # of the frame that a piece fills
MARGIN = 0.08  # about it, of its longer side


def add_rooms(out: QueryFolder, pieces: Sequence[Piece], count: int = ROOMS) -> None:
    """Views of the held-out ones of `pieces`: the tasks text_to_depth_rooms and
    depth_to_text_rooms, of the part about one piece, and depth_to_rgb_rooms, of whole frames.
    """
    kept = [p for p in pieces if p.held_out and p.name in _NAME_OF and fits_a_room(p)]
    pool, pairs = "seen/depth_rooms", "depth_rooms_pairs"
    files: dict[str, list[str]] = {}
    seen: Counter[str] = Counter()
    for room in room_views(kept, count, SEED):
        for view in room:
            name = _NAME_OF[view.piece.name]
            if view.share < LEAST_SHARE or seen[name] == A_NAME:
                continue
            seen[name] += 1
            stem = f"{name.replace(' ', '_')}_{seen[name]}"
            part = view.depth[around(view, (MARGIN,) * 4)]
            files.setdefault(name, []).append(out.picture(pool, stem, part))
            frame = out.picture(f"{pairs}/depth", stem, view.depth)
            photo = out.picture(f"{pairs}/rgb", stem, view.colour)
            out.ask("depth_to_rgb_rooms", [photo], query=frame, pool=f"{pairs}/rgb")
    for name, own in files.items():
        for asked in TEXTS:
            out.ask("text_to_depth_rooms", own, text=asked.format(name), pool=pool)
        for file in own:
            out.ask("depth_to_text_rooms", [name], query=file, candidates=list(files))
