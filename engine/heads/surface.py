"""Geometry of triangle meshes on numpy arrays: connected parts, areas, normals, borders, closest points, UV."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

_SEAM = 0.04  # how far a UV goes beyond its seam, in turns


def components(
    triangles: np.ndarray,  # [M, 3]
    vertex_count: int,
) -> np.ndarray:  # [N] int
    """Connected part of every vertex, numbered from the part with most triangles down."""
    a, b = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    graph = sparse.coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(vertex_count, vertex_count))
    count, label = csgraph.connected_components(graph, directed=False)
    size = np.bincount(label[triangles[:, 0]], minlength=count)
    rank = np.empty(count, np.int64)
    rank[np.argsort(-size, kind="stable")] = np.arange(count)
    return rank[label]


def triangle_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Normals [M, 3] as long as twice the triangle's area."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [N, 3]; zero where a vertex has no triangle."""
    normals = np.zeros((len(vertices), 3))
    faces = triangle_normals(vertices, triangles)
    for k in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(triangles[:, k], faces[:, axis], len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def vertex_areas(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """A third of the area of the triangles around each vertex [N], square metres."""
    area = np.linalg.norm(triangle_normals(vertices, triangles), axis=1) / 6
    return sum(np.bincount(triangles[:, k], area, len(vertices)) for k in range(3))


def boundary_edges(triangles: np.ndarray) -> np.ndarray:
    """Edges [B, 2] that belong to one triangle only, in that triangle's direction."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    _, inverse, count = np.unique(np.sort(edges, 1), axis=0, return_inverse=True, return_counts=True)
    return edges[count[inverse.ravel()] == 1]


def closest_on_triangles(
    points: np.ndarray,  # [P, 3]
    corners: np.ndarray,  # [P, K, 3, 3] K candidate triangles of each point
) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric coordinates [P, K, 3] of the closest point of each triangle, and its squared distance [P, K]."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    p = points[:, None]
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    determinant = d00 * d11 - d01 * d01
    safe = np.where(determinant > 1e-30, determinant, 1.0)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    inside = (determinant > 1e-30) & (v >= 0) & (w >= 0) & (v + w <= 1)
    best = np.stack([1 - v - w, v, w], -1)
    distance = np.where(inside, _squared(best, corners, p), np.inf)
    # Outside, or a triangle without area: the closest point is on one of the edges.
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, edge = corners[..., i, :], corners[..., j, :] - corners[..., i, :]
        t = ((p - start) * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-30)
        t = np.clip(t, 0, 1)
        candidate = np.zeros_like(best)
        candidate[..., i], candidate[..., j] = 1 - t, t
        d = _squared(candidate, corners, p)
        closer = d < distance
        best = np.where(closer[..., None], candidate, best)
        distance = np.where(closer, d, distance)
    return best, distance


def _squared(barycentric: np.ndarray, corners: np.ndarray, p: np.ndarray) -> np.ndarray:
    return ((np.einsum("pkc,pkcx->pkx", barycentric, corners) - p) ** 2).sum(-1)


def cylindrical_uv(
    vertices: np.ndarray,  # [N, 3]
    triangles: np.ndarray,  # [M, 3]
    part: np.ndarray,  # [N] connected part
) -> tuple[np.ndarray, np.ndarray]:
    """UV [T, 2] and its triangles [M, 3] for a mesh without one: the largest part unrolled around its vertical axis in
    the lower four fifths of the unit square with the face in the middle, the others side by side above it.

    The seam is at the back; triangles across it have UV corners of their own, so none is stretched over the picture.
    """
    uv = np.zeros((len(vertices), 2))
    uv_triangles = triangles.copy()
    used = np.unique(part[triangles[:, 0]])
    for number in used:
        mine = part == number
        centred = vertices[mine] - 0.5 * (vertices[mine].max(0) + vertices[mine].min(0))
        around = 0.5 + np.arctan2(centred[:, 0], centred[:, 2]) / (2 * np.pi)
        uv[mine, 0] = around
        uv[mine, 1] = (centred[:, 1] - centred[:, 1].min()) / max(np.ptp(centred[:, 1]), 1e-12)
    u = uv[triangles, 0]
    crossing = (np.ptp(u, axis=1) > 0.5)[:, None] & (u < 0.5)
    moved = np.unique(triangles[crossing])
    # Only around a pole would a moved corner be further than a little beyond the seam.
    copies = np.stack([np.minimum(uv[moved, 0] + 1, 1 + _SEAM), uv[moved, 1]], 1)
    place = np.zeros(len(vertices), np.int64)
    place[moved] = len(uv) + np.arange(len(moved))
    uv_triangles[crossing] = place[triangles[crossing]]
    uv, owner = np.concatenate([uv, copies]), np.concatenate([part, part[moved]])
    uv[:, 0] = (uv[:, 0] + _SEAM) / (1 + 2 * _SEAM)
    others = max(len(used) - 1, 1)
    for slot, number in enumerate(used):
        mine = owner == number
        if slot == 0:
            uv[mine, 1] *= 0.79
        else:
            uv[mine, 0] = (slot - 1 + 0.98 * uv[mine, 0]) / others
            uv[mine, 1] = 0.81 + 0.19 * uv[mine, 1]
    return uv.astype(np.float32), uv_triangles.astype(np.int32)
