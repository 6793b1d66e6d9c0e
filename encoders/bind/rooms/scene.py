"""Rooms with furniture, and what is seen in them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.bind.rooms.camera import Light, look, measured
from encoders.bind.rooms.pieces import Material, Mesh, Piece, load_piece
from encoders.preprocess.base import Float32Array

__all__ = ["View", "chosen", "fits_a_room", "room_views"]

LARGEST_M, TALLEST_M, SMALLEST_M = 2.6, 2.4, 0.12  # of a piece that is put into a room
TABLE_M = (0.35, 1.1)  # how high what others stand on is
SMALL_M = 0.5  # what is no larger may stand on it
COLOUR_NOISE = 2.5  # of 255
CELL_M = 0.5  # of walls: triangles are not clipped
NEIGHBOURS = 8
VIEWS = 2  # of a room, each of another piece where it has two
TRIES = 20  # to find a free place, of a piece or of the cameras
WHITE = 1.0, 1.0, 1.0


@dataclass(frozen=True)
class View:
    """What both cameras see from one place. depth: uint16 (camera.ROWS, COLUMNS), mm, 0 for a hole.
    colour: uint8 of that and 3 channels. piece: what they look at. box: of its pixels, (left, top,
    right, bottom), the ends not in it; share: of the frame that these are.
    """

    depth: NDArray[np.uint16]
    colour: NDArray[np.uint8]
    piece: Piece
    box: tuple[int, int, int, int]
    share: float


@dataclass(frozen=True)
class Placed:
    """A piece in a room. at: of its origin, m. turn: about the upright, in radians."""

    piece: Piece
    at: tuple[float, float, float]
    turn: float

    @property
    def radius_m(self) -> float:
        """Of what it covers of the floor."""
        return math.hypot(self.piece.size_m[0], self.piece.size_m[2]) / 2

    @property
    def middle(self) -> NDArray[np.float64]:
        x, y, z = self.at
        return np.array([x, y + self.piece.size_m[1] / 2, z])

    def corners(self, mesh: Mesh) -> Float32Array:
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turned = mesh.corners @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], np.float32)
        return turned + np.array(self.at, np.float32)


def fits_a_room(piece: Piece) -> bool:
    """Neither a house nor a socket; and no window, which is glass."""
    width, height, depth = piece.size_m
    return (
        max(width, depth) <= LARGEST_M
        and height <= TALLEST_M
        and sorted(piece.size_m)[1] >= SMALLEST_M
        and "window" not in piece.name.lower()
    )


def chosen(pieces: Sequence[Piece], count: int, seed: int) -> list[Piece]:
    """Those that stand in `count` rooms, in the order in which they are looked at."""
    order = np.random.default_rng(seed).permutation(len(pieces))
    return [pieces[number] for number in order[: count + NEIGHBOURS]]


def room_views(pieces: Sequence[Piece], count: int, seed: int) -> Iterator[list[View]]:
    """`count` rooms with up to VIEWS views each, every one of `chosen` in its turn looked at. The
    same for the same seed.
    """
    order = chosen(pieces, count, seed)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        # With those next in order, which are read once for several rooms.
        first, *near = (order[(number + step) % len(order)] for step in range(NEIGHBOURS + 1))
        others = [near[i] for i in rng.permutation(len(near))[: rng.integers(1, 4)]]
        yield list(_room(first, others, rng))


def _room(first: Piece, others: Sequence[Piece], rng: np.random.Generator) -> Iterator[View]:
    width, depth, height = rng.uniform(3.2, 5), rng.uniform(3.6, 5.5), rng.uniform(2.4, 2.8)
    placed: list[Placed] = []
    for piece in (first, *others):
        put = _place(piece, placed, width, depth, height, rng)
        if put is not None:
            placed.append(put)
    meshes = [load_piece(one.piece) for one in placed]
    shell = _shell(width, depth, height, rng)
    corners = [one.corners(mesh) for one, mesh in zip(placed, meshes, strict=True)]
    scene = _joined([*meshes, shell], [*corners, shell.corners])
    owner = np.repeat(np.arange(len(placed) + 1), [len(one) for one in (*corners, shell.corners)])
    lights = [
        Light(rng.uniform((-width / 2, 1.6, -depth / 2), (width / 2, height, depth / 2)), strength)
        for strength in rng.uniform(0.25, 0.55, 2)
    ]
    for number in range(VIEWS):
        target = number % len(placed)
        view = _seen(placed, target, (width, depth), scene, owner == target, lights, rng)
        if view is not None:
            yield view


def _place(
    piece: Piece,
    placed: Sequence[Placed],
    width: float,
    depth: float,
    height: float,
    rng: np.random.Generator,
) -> Placed | None:
    """Beside what is there already, or on it; None where no free place was found."""
    if max(piece.size_m) <= SMALL_M and piece.elevation_m == 0:
        for other in placed:
            top_m = other.piece.top_m or other.piece.size_m[1]
            if TABLE_M[0] <= top_m <= TABLE_M[1] and min(other.piece.size_m[::2]) > SMALL_M:
                x, z = rng.uniform(-0.2, 0.2, 2) * other.piece.size_m[::2]
                at = other.at[0] + float(x), top_m, other.at[2] + float(z)
                return Placed(piece, at, float(rng.uniform(0, 2 * math.pi)))
    for _ in range(TRIES):
        against = rng.random() < 0.7
        turn = float(rng.normal(0, 0.05) if against else rng.uniform(-math.pi, math.pi))
        put = Placed(piece, (0, min(piece.elevation_m, height - piece.size_m[1]), 0), turn)
        free_x = max(0.0, width / 2 - put.radius_m)
        x = float(rng.uniform(-free_x, free_x))
        z = -depth / 2 + piece.size_m[2] / 2 + 0.08
        if not against:
            z = float(rng.uniform(-depth / 2 + put.radius_m, max(0, depth / 6 - put.radius_m)))
        put = Placed(piece, (x, put.at[1], z), turn)
        if all(_apart(put, other) for other in placed):
            return put
    return None


def _apart(one: Placed, other: Placed) -> bool:
    gap_m = math.hypot(one.at[0] - other.at[0], one.at[2] - other.at[2])
    return gap_m > 0.8 * (one.radius_m + other.radius_m)


def _shell(width: float, depth: float, height: float, rng: np.random.Generator) -> Mesh:
    """Floor, ceiling and four walls, of cells."""
    half_x, half_z = width / 2, depth / 2
    x, y, z = np.array([width, 0, 0]), np.array([0, height, 0]), np.array([0, 0, depth])
    low, high = np.array([-half_x, 0, -half_z]), np.array([half_x, height, half_z])
    sides = [(low, x, z), (low, x, y), (low, z, y), (high, -z, -y), (high, -x, -y), (high, -x, -z)]
    wall = _paint(rng, 0.55)
    materials = [_floor(rng), *[wall] * 4, Material(WHITE)]
    corners, uv, material = [], [], []
    for number, (at, along, up) in enumerate(sides):
        cells = [max(1, round(float(np.linalg.norm(edge)) / CELL_M)) for edge in (along, up)]
        i, j = (part.ravel() for part in np.meshgrid(*map(np.arange, cells)))
        square = np.array([[0, 0], [1, 0], [1, 1], [0, 0], [1, 1], [0, 1]])
        grid = (np.stack([i, j], 1)[:, None] + square).reshape(-1, 3, 2) / cells
        corners.append(at + grid @ np.stack([along, up]))
        uv.append(grid * [np.linalg.norm(along), np.linalg.norm(up)])
        material.append(np.full(len(grid), number))
    return Mesh(
        np.concatenate(corners).astype(np.float32),
        np.concatenate(uv).astype(np.float32),
        np.concatenate(material),
        tuple(materials),
    )


def _paint(rng: np.random.Generator, least: float) -> Material:
    grey = rng.uniform(least, 0.95)
    red, green, blue = np.clip(grey + rng.normal(0, 0.06, 3), 0, 1).tolist()
    return Material((red, green, blue))


def _floor(rng: np.random.Generator) -> Material:
    """Boards, tiles or one colour."""
    red, green, blue = _paint(rng, 0.3).colour
    base = np.array([red, green * rng.uniform(0.75, 1), blue * rng.uniform(0.5, 1)])
    tone = np.ones((64, 64))
    kind = rng.integers(3)
    if kind == 0:
        tone *= np.repeat(rng.uniform(0.8, 1.1, 8), 8)
        tone[:, ::8] *= 0.7
    elif kind == 1:
        tone[::32] = tone[:, ::32] = 0.75
    texture = np.clip(base * tone[..., None], 0, 1).astype(np.float32)
    return Material((red, green, blue), texture)


def _joined(meshes: Sequence[Mesh], corners: Sequence[Float32Array]) -> Mesh:
    """One mesh, its corners those given."""
    starts = np.cumsum([0, *[len(mesh.materials) for mesh in meshes]])
    material = [mesh.material + start for mesh, start in zip(meshes, starts, strict=False)]
    return Mesh(
        np.concatenate(corners),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate(material),
        tuple(material for mesh in meshes for material in mesh.materials),
    )


def _seen(
    placed: Sequence[Placed],
    number: int,
    floor: tuple[float, float],
    scene: Mesh,
    own: NDArray[np.bool_],
    lights: Sequence[Light],
    rng: np.random.Generator,
) -> View | None:
    """None where there is no place to stand, or less than a hundredth of the frame shows it."""
    target = placed[number]
    others = [one for one in placed if one is not target]
    tangent = math.tan(math.radians(rng.uniform(55, 70)) / 2)
    reach = max(0.7 * float(np.linalg.norm(target.piece.size_m)), 0.3)
    inside = np.array(floor) / 2 - 2 * CELL_M / 3
    for _ in range(TRIES):
        away = float(np.clip(reach * rng.uniform(0.75, 1.5) / tangent, 0.6, 4))
        angle = target.turn + rng.uniform(-1.0, 1.0)  # in front of it, for what has a front
        eye = target.middle + away * np.array([math.sin(angle), 0, math.cos(angle)])
        eye[1] = rng.uniform(0.6, 1.8)
        eye[[0, 2]] = np.clip(eye[[0, 2]], -inside, inside)
        if all(np.hypot(*(eye - one.at)[[0, 2]]) > one.radius_m + 0.2 for one in others):
            break
    else:
        return None
    towards = target.middle + rng.normal(0, 0.08 * reach, 3)
    seen = look(scene, eye, towards, tangent, lights)
    shown = own[seen.triangle] & (seen.triangle >= 0)
    if shown.mean() < 0.01:
        return None
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    noisy = seen.colour + rng.normal(0, COLOUR_NOISE, seen.colour.shape)
    colour = np.clip(noisy, 0, 255).astype(np.uint8)
    return View(measured(seen.depth_m, rng), colour, target.piece, box, float(shown.mean()))
