"""Where the face's landmarks are on a posed head, and which of them a camera sees."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..camera import Camera
from ..heads.arrays import HeadArrays
from .topology import FACE_OVAL, IRISES, LIPS

TOLERANCE = 0.02
"""What covers a landmark by less than this share of the head's largest extent (about 6 mm) does not hide it: lids lie
in folds, and a face landmark detector marks them all the same."""

LIP_TOLERANCE = 0.05
"""The same for the lips: seen from above, the line where closed lips meet lies under the upper lip."""

IRIS_TOLERANCE = 0.001
"""The same for the irises, which a closed lid covers by a millimetre and must hide."""

OVAL_LIFT = 0.025
"""How far the face oval is lifted off the skin, as a share of the extent (about 7 mm), before its visibility is tested.
It runs in front of the ears, just around the corner for a camera in front, where detectors draw it whole; what is drawn
too much is at most this far from the face's outline."""


def landmark_points(
    arrays: HeadArrays,
    vertices: Tensor,  # [..., N, 3] posed, metres
) -> Tensor:
    """Landmarks [..., L, 3] in metres, in the order of ``arrays.landmarks``; differentiable in the vertices."""
    weights = torch.tensor(arrays.landmarks.barycentric, dtype=vertices.dtype, device=vertices.device)  # [L, 3]
    return (_landmark_corners(arrays, vertices) * weights[..., None]).sum(-2)


def face_middle(
    arrays: HeadArrays,
    vertices: Tensor,  # [..., N, 3] posed, metres
) -> Tensor:
    """The middle of the box around all landmarks [..., 3] in metres: between eyes and mouth, on the face's surface."""
    points = landmark_points(arrays, vertices)
    return 0.5 * (points.amin(-2) + points.amax(-2))


def _landmark_corners(arrays: HeadArrays, vertices: Tensor) -> Tensor:
    """Corners [..., L, 3, 3] of the landmarks' triangles."""
    rows = torch.tensor(arrays.triangles[arrays.landmarks.triangles], dtype=torch.int64, device=vertices.device)
    return vertices[..., rows, :]


@torch.no_grad()
def visible_landmarks(
    arrays: HeadArrays,
    vertices: Tensor,  # [..., N, 3] posed, metres
    camera: Camera,  # of the same leading dimensions
) -> Tensor:
    """Which landmarks belong on the landmark map, as far as the head itself hides them: bool [..., L]."""
    extent = float(np.ptp(arrays.vertices, axis=0).max())
    indices = arrays.landmarks.indices
    tolerance = np.full(len(indices), TOLERANCE * extent)
    tolerance[np.isin(indices, LIPS.indices)] = LIP_TOLERANCE * extent
    tolerance[np.isin(indices, [iris.index for iris in IRISES])] = IRIS_TOLERANCE * extent
    lift = np.where(np.isin(indices, FACE_OVAL.indices), OVAL_LIFT, 0) * extent
    triangles = torch.tensor(arrays.triangles, dtype=torch.int64, device=vertices.device)  # [M, 3]
    a, b, c = _landmark_corners(arrays, vertices).unbind(-2)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a, dim=-1), dim=-1)
    points = landmark_points(arrays, vertices) + torch.as_tensor(lift).to(vertices)[:, None] * normals
    return landmark_visibility(points, vertices, triangles, camera, torch.as_tensor(tolerance).to(vertices))


@torch.no_grad()
def landmark_visibility(
    points: Tensor,  # [..., L, 3] metres
    vertices: Tensor,  # [..., N, 3] metres
    triangles: Tensor,  # [M, 3] int64
    camera: Camera,  # of the same leading dimensions
    tolerance: Tensor | float | None = None,  # [L] or one for all, metres; default TOLERANCE of the vertices' extent
) -> Tensor:
    """Which points the camera sees past the triangles: bool [..., L].

    A point is hidden if a triangle, of either orientation, crosses the line from the camera to it more than
    ``tolerance`` in front of it. Since the head is a closed surface, this hides what faces away too. Points behind the
    near plane are hidden, and triangles there hide nothing, because neither is drawn. The frame is not looked at.
    """
    leading = torch.broadcast_shapes(points.shape[:-2], vertices.shape[:-2], camera.world_to_camera.shape[:-2])
    points = points.expand(*leading, -1, -1)
    if tolerance is None:
        tolerance = TOLERANCE * float((vertices.amax(-2) - vertices.amin(-2)).max())
    tolerance = torch.as_tensor(tolerance, dtype=points.dtype, device=points.device).expand(points.shape[-2])
    world_to_camera = camera.world_to_camera.to(points)
    rotation, shift = world_to_camera[..., :3, :3], world_to_camera[..., None, :3, 3]
    views = math.prod(leading)
    local_points = (points @ rotation.transpose(-1, -2) + shift).reshape(views, *points.shape[-2:])
    local_vertices = (vertices @ rotation.transpose(-1, -2) + shift).expand(*leading, -1, -1)
    local_vertices = local_vertices.reshape(views, *vertices.shape[-2:])
    seen = torch.empty(local_points.shape[:-1], dtype=torch.bool, device=points.device)
    for view in range(views):
        corners = local_vertices[view, triangles]
        seen[view] = _seen(local_points[view], corners, tolerance, camera.near, camera.orthographic)
    return seen.reshape(points.shape[:-1])


def _seen(
    points: Tensor,  # [L, 3] camera space
    corners: Tensor,  # [M, 3, 3] camera space
    tolerance: Tensor,  # [L]
    near: float,
    orthographic: bool,
) -> Tensor:  # [L] bool
    seen = points[:, 2] > near
    if not seen.any():
        return seen
    point, triangle = _candidates(points, corners, near, orthographic)
    # Moeller and Trumbore's test: origin + s direction = a + u (b - a) + v (c - a), for the K candidate pairs
    a, b, c = corners[triangle].unbind(1)
    target = points[point]
    origin = target * target.new_tensor([1.0, 1.0, 0.0]) if orthographic else torch.zeros_like(target)
    direction = target - origin
    first, second = b - a, c - a
    across = torch.linalg.cross(direction, second, dim=-1)
    determinant = (first * across).sum(-1)
    edge_on = determinant == 0
    inverse = 1 / torch.where(edge_on, torch.ones_like(determinant), determinant)
    offset = origin - a
    u = (offset * across).sum(-1) * inverse
    turned = torch.linalg.cross(offset, first, dim=-1)
    v = (direction * turned).sum(-1) * inverse
    s = (second * turned).sum(-1) * inverse
    # The slack closes the seam between neighbours, through which a ray could slip by rounding.
    slack = 1e-6
    inside = ~edge_on & (u >= -slack) & (v >= -slack) & (u + v <= 1 + slack)
    gap = (1 - s) * direction.norm(dim=-1)
    covers = inside & (gap > tolerance[point]) & (s * target[:, 2] > near)
    seen[point[covers]] = False
    return seen


def _candidates(points: Tensor, corners: Tensor, near: float, orthographic: bool) -> tuple[Tensor, Tensor]:
    """Pairs (point, triangle), [K] int64 each, whose pictures' bounding boxes meet: a superset of those that cross.

    Comparing every point with every box is far cheaper than intersecting every pair, and few pairs remain. Triangles
    behind the last point or beside all of them are left out first.
    """
    plane, flat = points[:, :2], corners[..., :2]  # [L, 2], [M, 3, 2]
    nearest = corners[..., 2].amin(-1)  # [M]
    if not orthographic:
        plane = plane / points[:, 2:].clamp_min(1e-9)
        flat = flat / corners[..., 2:].clamp_min(1e-9)
    low, high = flat.amin(1), flat.amax(1)  # [M, 2]
    margin = 1e-5 * (high - low).amax(-1, keepdim=True) + 1e-7
    # The picture of a triangle that reaches behind the near plane is no triangle: it always goes to the exact test.
    whole = (nearest > near)[:, None]
    low = torch.where(whole, low - margin, -torch.inf)
    high = torch.where(whole, high + margin, torch.inf)
    among = (nearest < points[:, 2].amax()) & (low <= plane.amax(0)).all(1) & (high >= plane.amin(0)).all(1)
    rows = among.nonzero().squeeze(1)
    x, y = plane[:, :1], plane[:, 1:]  # [L, 1]
    left, top = low[rows].T.contiguous()  # contiguous rows: the comparisons below are the cost of the whole test
    right, bottom = high[rows].T.contiguous()
    meets = (x >= left) & (x <= right)
    meets &= y >= top
    meets &= y <= bottom
    point, row = meets.nonzero().unbind(1)
    return point, rows[row]
