"""What a colour and a depth camera, side by side in one place, see of a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.bind.rooms.pieces import Mesh
from encoders.bind.rooms.raster import Hits, draw
from encoders.preprocess.base import Float32Array

__all__ = ["COLUMNS", "ROWS", "Light", "Seen", "look", "measured"]

ROWS, COLUMNS = 144, 192
FINER = 2  # colour is drawn so many times finer, and averaged
AMBIENT = 0.4
# A depth camera's error grows as the square of the distance (Khoshelham and Elberink 2012,
# doi:10.3390/s120201437: 1.425e-3 z^2 m for the Kinect), and it sees nothing beyond.
NOISE_PER_M, FARTHEST_M = 0.0015, 8.0
EDGE, HOLES = 0.06, 0.5  # a step of such a share of the distance; of the pixels beside one


class Light(NamedTuple):
    """at: float64 (3,), m. strength: added to AMBIENT where it falls at right angles."""

    at: NDArray[np.float64]
    strength: float


class Seen(NamedTuple):
    """depth_m: float32 (ROWS, COLUMNS), along the axis, inf for nothing. colour: float32 (ROWS,
    COLUMNS, 3), 0..255. triangle: int64 (ROWS, COLUMNS), number into the mesh, -1 for none.
    """

    depth_m: Float32Array
    colour: Float32Array
    triangle: NDArray[np.int64]


def look(
    scene: Mesh,
    eye: NDArray[np.float64],
    towards: NDArray[np.float64],
    tangent: float,
    lights: Sequence[Light],
) -> Seen:
    """eye, towards: float64 (3,), m; the camera is level. tangent: of half its width of view."""
    ahead = (towards - eye) / np.linalg.norm(towards - eye)
    right = np.cross(ahead, [0, 1, 0])
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(ahead, right), ahead])
    corners = ((scene.corners - eye) @ axes.T).astype(np.float32)
    focal = COLUMNS * FINER / 2 / tangent
    hits = draw(corners, focal, ROWS * FINER, COLUMNS * FINER)
    shaded = _shaded(scene, hits, corners, [Light((at - eye) @ axes.T, by) for at, by in lights])
    colour = shaded.reshape(ROWS, FINER, COLUMNS, FINER, 3).mean((1, 3))
    pixels = np.s_[FINER // 2 :: FINER, FINER // 2 :: FINER]
    return Seen(hits.depth_m[pixels], colour, hits.triangle[pixels])


def _shaded(
    scene: Mesh,
    hits: Hits,
    corners: Float32Array,
    lights: Sequence[Light],
) -> Float32Array:
    """0..255 by Lambert's law, both faces of a triangle alike; black where there is none."""
    pixel = np.flatnonzero(hits.triangle.ravel() >= 0)
    triangle = hits.triangle.ravel()[pixel]
    weights = hits.weights.reshape(-1, 3)[pixel]
    own = corners[triangle]
    place = np.einsum("pc,pcd->pd", weights, own)
    normal = np.cross(own[:, 1] - own[:, 0], own[:, 2] - own[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    light = np.full(len(pixel), AMBIENT)
    for at, strength in lights:
        to = at - place
        light += strength * np.abs(np.einsum("pd,pd->p", normal, to)) / np.linalg.norm(to, axis=1)
    uv = np.einsum("pc,pcd->pd", weights, scene.uv[triangle])
    material = scene.material[triangle]
    albedo = np.array([one.colour for one in scene.materials])[material]
    for number in np.unique(material):
        texture = scene.materials[number].texture
        if texture is not None:
            of_it = np.flatnonzero(material == number)
            rows, columns = texture.shape[:2]
            u, v = (uv[of_it] % 1 * [columns, rows]).astype(np.int64).T
            albedo[of_it] = texture[rows - 1 - v % rows, u % columns]
    shaded = np.zeros((hits.triangle.size, 3), np.float32)
    shaded[pixel] = 255 * np.clip(albedo * light[:, None], 0, 1)
    return shaded.reshape(*hits.triangle.shape, 3)


def measured(depth_m: Float32Array, rng: np.random.Generator) -> NDArray[np.uint16]:
    """uint16 (rows, columns), mm, 0 for a hole: what a depth camera makes of true distances."""
    true_m = np.minimum(depth_m, 2 * FARTHEST_M)
    noisy = true_m + NOISE_PER_M * true_m**2 * rng.standard_normal(true_m.shape)
    steps = np.zeros(true_m.shape, np.bool_)
    steps[1:] |= np.abs(np.diff(np.log(true_m), axis=0)) > EDGE
    steps[:, 1:] |= np.abs(np.diff(np.log(true_m), axis=1)) > EDGE
    holes = (true_m > FARTHEST_M) | (steps & (rng.random(true_m.shape) < HOLES))
    return np.where(holes, 0, np.rint(1000 * noisy)).astype(np.uint16)
