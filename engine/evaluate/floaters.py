"""Splats that have left the head (numpy and scipy)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

FAR = 0.03  # metres
_CELL = 0.015  # metres: hair and cloth have several splats in a cube of this side
_DENSE = 2  # splats that reach into a cell from which on it counts as a body
_REACH = 1.5  # standard deviations from a splat's centre to which it is seen well, and no farther than FAR
_TOUCHES = 0.015  # metres from the head's vertices within which a body is attached to it
_AROUND = 0.6  # metres from the head beyond which no hat reaches


def count_far(
    points: np.ndarray,  # [P, 3] metres
    vertices: np.ndarray,  # [N, 3] metres
    triangles: np.ndarray,  # [M, 3]
    limit: float = FAR,
) -> int:
    """How many points lie farther from the mesh than ``limit``, exactly."""
    # No point is farther from the mesh than from its nearest vertex: only the few that pass this are looked at
    nearest, _ = cKDTree(vertices).query(points)
    corners = vertices[triangles].astype(np.float64)
    # closely. Nor is one nearer to it than that by more than the longest edge.
    reach = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).max(initial=0)
    certain = nearest > limit + reach
    close = points[(nearest > limit) & ~certain].astype(np.float64)
    return int(certain.sum()) + sum(distance_to_triangles(point, corners) > limit for point in close)


def count_floaters(
    points: np.ndarray,  # [P, 3] metres
    axes: np.ndarray,  # [P, 3, 3] metres: see splat_axes
    vertices: np.ndarray,  # [N, 3] metres
    triangles: np.ndarray,  # [M, 3]
    limit: float = FAR,
) -> int:
    """How many splats, of those at ``points``, lie farther than ``limit`` from the head and from all that is attached
    to it.

    Attached are the dense bodies of splats (hair, a hat) that reach the head's surface without a gap: cells of a grid
    into which several splats reach, connected over sides, edges or corners. From such a cell's middle the limit is
    counted, and a splat that reaches into one belongs to it. A hat or an afro may well be made of few and large
    splats: that is why their extent counts, but only up to 3 cm, so that huge splats bridge no gap.
    """
    near, _ = cKDTree(vertices).query(points)
    around = near < _AROUND
    attached, belongs = _attached_cells(points[around], axes[around], near[around] < _TOUCHES)
    far = near > limit
    far[around] &= ~belongs
    if len(attached):
        far &= cKDTree(attached).query(points)[0] > limit
    return count_far(points[far], vertices, triangles, limit)


def splat_axes(
    quats: np.ndarray,  # [P, 4] wxyz
    scales: np.ndarray,  # [P, 3] metres
) -> np.ndarray:  # [P, 3, 3]
    """The three axes of each splat as columns, one standard deviation long."""
    return (
        Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix() * scales[:, None] if len(quats) else np.empty((0, 3, 3))
    )


def _attached_cells(
    points: np.ndarray,  # [P, 3] metres
    axes: np.ndarray,  # [P, 3, 3] metres
    touching: np.ndarray,  # [P] bool: is at the head
) -> tuple[np.ndarray, np.ndarray]:  # [C, 3] metres, [P] bool
    """Middles of the dense cells that are connected with one in which splats touch the head, and which splats reach
    into one of them."""
    if not len(points):
        return points, touching
    arms = axes.transpose(0, 2, 1)  # [P, 3, 3], one axis per row
    length = np.linalg.norm(arms, axis=2, keepdims=True)
    arms = arms * np.minimum(_REACH, FAR / np.maximum(length, 1e-12))
    # [P, 13, 3]: the centre, and along each axis both ends and half of the way there, which is no more than a cell
    offsets = [np.zeros((len(points), 1, 3)), arms, -arms, 0.5 * arms, -0.5 * arms]
    places = points[:, None] + np.concatenate(offsets, 1)
    low = places.min((0, 1))
    cells = np.floor((places - low) / _CELL).astype(int)
    counts = np.zeros(cells.max((0, 1)) + 1, int)
    flat = np.ravel_multi_index(tuple(np.moveaxis(cells, 2, 0)), counts.shape)  # [P, 13]
    # A splat counts once in each cell that it reaches into
    flat.sort(1)
    first = np.diff(flat, axis=1, prepend=-1) > 0
    counts += np.bincount(flat[first], minlength=counts.size).reshape(counts.shape)
    labels, number = ndimage.label(counts >= _DENSE, np.ones((3, 3, 3)))
    held = np.isin(np.arange(number + 1), labels[tuple(cells[touching, 0].T)])
    held[0] = False
    attached = held[labels]
    return low + (np.argwhere(attached) + 0.5) * _CELL, attached.ravel()[flat].any(1)


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
