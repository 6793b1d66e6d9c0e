"""Triangles to pixels: which is nearest in each, how far, and where in it the ray meets it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.preprocess.base import Float32Array

__all__ = ["NEAR_M", "Hits", "draw"]

NEAR_M = 0.05  # what comes nearer with any corner is not drawn
CANDIDATES = 1 << 20  # pairs of a triangle and a pixel at a time


class Hits(NamedTuple):
    """A frame. triangle: int64 (rows, columns), -1 for none. depth_m: float32, along the view's
    axis, inf for none. weights: float32 (rows, columns, 3), of the triangle's corners.
    """

    triangle: NDArray[np.int64]
    depth_m: Float32Array
    weights: Float32Array


def draw(corners: Float32Array, focal: float, rows: int, columns: int) -> Hits:
    """A pinhole's picture by a z-buffer (Catmull 1974): both faces of all triangles, no clipping.

    corners: float32 (n, 3, 3) in m from the camera, x to the right, y down, z ahead. focal: in
    pixels; the axis goes through the middle of the frame.
    """
    ahead = np.flatnonzero((corners[..., 2] > NEAR_M).all(axis=1))
    near = corners[ahead].astype(np.float64)
    inverse = 1 / near[..., 2]
    # In pixels of which the first has its centre at 0.
    x = focal * near[..., 0] * inverse + (columns - 1) / 2
    y = focal * near[..., 1] * inverse + (rows - 1) / 2
    left, right = _range(x, columns)
    top, bottom = _range(y, rows)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    seen = np.flatnonzero((right >= left) & (bottom >= top) & (np.abs(area) > 1e-9))
    width, height = (right - left + 1)[seen], (bottom - top + 1)[seen]
    # Shares of the second and third corner are linear in x and y.
    x0, y0 = x[seen, 0], y[seen, 0]
    to1, to2 = (np.stack([x[seen, i] - x0, y[seen, i] - y0]) / area[seen] for i in (1, 2))
    nearest = np.zeros(rows * columns)
    triangle = np.full(rows * columns, -1)
    shares = np.zeros((rows * columns, 3))
    for part in _parts(width * height):
        sizes = (width * height)[part]
        own = np.repeat(np.arange(part.start, part.stop), sizes)
        number = np.arange(len(own)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        down, across = np.divmod(number, width[own])
        column, row = left[seen[own]] + across, top[seen[own]] + down
        dx, dy = column - x0[own], row - y0[own]
        second = dx * to2[1, own] - dy * to2[0, own]
        third = dy * to1[0, own] - dx * to1[1, own]
        inside = np.flatnonzero((second >= 0) & (third >= 0) & (second + third <= 1))
        own, second, third = own[inside], second[inside], third[inside]
        pixel = row[inside] * columns + column[inside]
        share = np.stack([1 - second - third, second, third], 1) * inverse[seen[own]]
        closeness = share.sum(1)
        order = np.argsort(closeness, kind="stable")  # of one pixel, the nearest is written last
        order = order[closeness[order] > nearest[pixel[order]]]
        at = pixel[order]
        nearest[at], triangle[at] = closeness[order], ahead[seen[own[order]]]
        shares[at] = share[order]
    hit = nearest > 0
    depth = np.full(rows * columns, np.inf)
    depth[hit] = 1 / nearest[hit]
    shares[hit] *= depth[hit, None]
    return Hits(
        triangle.reshape(rows, columns),
        depth.reshape(rows, columns).astype(np.float32),
        shares.reshape(rows, columns, 3).astype(np.float32),
    )


def _range(of: NDArray[np.float64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last pixel whose centre may be inside."""
    first = np.ceil(np.clip(of.min(axis=1), 0, size)).astype(np.int64)
    last = np.floor(np.clip(of.max(axis=1), -1, size - 1)).astype(np.int64)
    return first, last


def _parts(sizes: NDArray[np.int64]) -> Iterator[slice]:
    """Stretches of no more than CANDIDATES in all, or of one."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CANDIDATES, "right")))
        yield slice(start, stop)
        start = stop
