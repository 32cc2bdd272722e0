"""Point clouds for Point-Bind's encoder: 8,192 points in the unit sphere."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ibllm_core.encoders.preprocess.clouds import MEDIUM, Points, read_points
from ibllm_core.encoders.preprocess.refusal import unusable

NUM_POINTS = 8_192
POOL = 4 * NUM_POINTS  # farthest points are sought among this many: half a second instead of minutes for a million


def load(content: bytes) -> Tensor:
    """Decode a point cloud or a mesh; float32 ``[8192, 3]``, its centroid at 0, its farthest point at distance 1.

    Of more points those are kept that lie farthest from each other; fewer are repeated in their order. The same content
    gives the same points, which the released loader does not. Raises ``InvalidDataError`` for what
    ``clouds.read_points`` refuses and where all points coincide.
    """
    points = read_points(content, wanted=NUM_POINTS)
    if len(points) > POOL:
        points = points[np.arange(POOL) * len(points) // POOL]
    points = unit_sphere(points)
    kept = farthest(points, NUM_POINTS) if len(points) > NUM_POINTS else np.arange(NUM_POINTS) % len(points)
    return torch.from_numpy(points[kept].astype(np.float32))


def unit_sphere(points: Points) -> Points:
    """Move the centroid to 0 and scale the farthest point to distance 1."""
    largest = np.abs(points).max() or 1.0
    centred = points / largest  # whose squares can neither overflow nor vanish
    centred -= centred.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1).max())
    if radius < np.finfo(np.float32).eps:
        raise unusable(MEDIUM, "has all its points in one place")
    scaled: Points = centred / radius
    return scaled


def farthest(points: Points, count: int) -> npt.NDArray[np.int64]:
    """Indices of farthest point sampling, from the point farthest from the centroid on; the first of equals wins."""
    x, y, z = np.ascontiguousarray(points.T, dtype=np.float32)
    chosen = np.empty(count, dtype=np.int64)
    chosen[0] = (((points - points.mean(axis=0)) ** 2).sum(axis=1)).argmax()
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    squared, axis = np.empty_like(nearest), np.empty_like(nearest)
    for step in range(1, count):
        last = chosen[step - 1]
        np.subtract(x, x[last], out=squared)
        np.multiply(squared, squared, out=squared)
        for coordinate in (y, z):
            np.subtract(coordinate, coordinate[last], out=axis)
            np.multiply(axis, axis, out=axis)
            np.add(squared, axis, out=squared)
        np.minimum(nearest, squared, out=nearest)
        chosen[step] = nearest.argmax()
    return chosen
