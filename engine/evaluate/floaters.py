"""Splats that have left the head (numpy and scipy)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

FAR = 0.03  # metres


def count_far(
    points: np.ndarray,  # [P, 3] metres
    vertices: np.ndarray,  # [N, 3] metres
    triangles: np.ndarray,  # [M, 3]
    limit: float = FAR,
) -> int:
    """How many points lie farther from the mesh than ``limit``, exactly."""
    # No point is farther from the mesh than from its nearest vertex: only the few that pass this are looked at closely
    nearest, _ = cKDTree(vertices).query(points)
    corners = vertices[triangles].astype(np.float64)
    return sum(distance_to_triangles(point, corners) > limit for point in points[nearest > limit].astype(np.float64))


def distance_to_triangles(
    point: np.ndarray,  # [3]
    corners: np.ndarray,  # [M, 3, 3]
) -> float:
    """Distance from a point to the nearest of M triangles."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    area = np.einsum("mi,mi->m", normal, normal)
    inside = area > 0
    squares = np.full(len(corners), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge, way = end - start, point - start
        length = np.einsum("mi,mi->m", edge, edge)
        along = np.einsum("mi,mi->m", way, edge) / np.where(length > 0, length, 1)
        foot = start + np.clip(along, 0, 1)[:, None] * edge
        squares = np.minimum(squares, ((point - foot) ** 2).sum(1))
        inside &= np.einsum("mi,mi->m", np.cross(edge, way), normal) >= 0
    height = np.einsum("mi,mi->m", point - a, normal)
    squares[inside] = height[inside] ** 2 / area[inside]
    return float(np.sqrt(squares.min()))
