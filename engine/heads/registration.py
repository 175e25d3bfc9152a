"""Non-rigid registration: moves the default head's surface onto another head's, which has another mesh.

No landmarks of the target are needed, only what every head file has: its surface and its eye joints, in common axes
(y up, face towards +z) and metres. Two steps, both iterations of closest points:

1. The default head's own identity components and a similarity are fitted to the target. The components move lips to
   lips and lids to lids, which plain closest points do not.
2. What is left is taken up by a smooth displacement of every vertex (Laplacian-regularised sparse least squares,
   softened step by step).

A "closest" point is close in place, in normal, and in relief (the height over the smoothed surface at two sizes), so
that the upper lip does not match the lower one and ridges match ridges. Matches on the target's borders (FLAME ends
at the neck, in the mouth and behind the lids) pull at nothing. Where a head is smooth and without features (skull,
cheeks) positions along the surface are determined by smoothness alone.

Measured on other identities of the default head, warped, in another mesh (mean of each group of landmarks): lids 0.5 mm
and lips 1 mm as a rule, brows 1.5 to 5 mm, face oval 2 to 5 mm; shapes far from the identity components cost more
(lips 6 mm in the worst of seven). A user's own landmark table is better than ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .arrays import JOINT_NAMES, HeadArrays
from .surface import boundary_edges, closest_on_triangles, components, triangle_normals, vertex_areas, vertex_normals

EYES = (JOINT_NAMES.index("eye_left"), JOINT_NAMES.index("eye_right"))
# What lies inside the default head, where FLAME has nothing
EYEBALL_PARTS = ("eyeball", "iris", "pupil")
INNER_PARTS = (*EYEBALL_PARTS, "socket", "mouth", "teeth", "tongue")
_CAP = "neck_cap"

NORMAL_LENGTH = 0.010  # metres that a difference of 1 between unit normals counts for
RELIEF_RADII = (0.006, 0.015)  # metres
RELIEF_WEIGHT = (4.0, 3.0)
FAR = 0.010  # metres at which a match counts half
_RIDGES = (3e-4,) * 4 + (1e-4,) * 4 + (3e-5,) * 4  # metres that a component of size 1 counts for
_STIFFNESS = (100.0,) * 4 + (10.0,) * 4 + (1.0,) * 4
_CANDIDATES = 12


@dataclass(frozen=True)
class Eyeball:
    """A sphere fitted to one of the target's parts; ``vertices`` are its rows."""

    centre: np.ndarray  # [3]
    radius: float
    vertices: np.ndarray  # [K]


def triangles_of(head: HeadArrays, parts: tuple[str, ...]) -> np.ndarray:
    """Mask [M] of the triangles whose region's name begins with one of ``parts``."""
    chosen = [i for i, name in enumerate(head.region_names) if name.startswith(parts)]
    return np.isin(head.region, chosen)


def find_eyeballs(head: HeadArrays) -> dict[int, Eyeball]:
    """The separate parts of the mesh that are spheres around an eye joint, by joint; none where there is no such part.

    They are found by form and never by vertex number: connected, within 8 mm of the joint, round to 25 %, and 8 to 20
    mm in radius.
    """
    part = components(head.triangles, len(head.vertices))
    centres = head.joint_regressor @ head.vertices
    found: dict[int, Eyeball] = {}
    for number in np.unique(part[head.triangles[:, 0]])[1:]:
        rows = np.flatnonzero(part == number)
        points = head.vertices[rows].astype(np.float64)
        # |p - c|^2 = r^2 is linear in c and r^2 - |c|^2
        system = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
        solution = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
        centre = solution[:3]
        distance = np.linalg.norm(points - centre, axis=1)
        radius = float(distance.mean())
        for joint in EYES:
            near = np.linalg.norm(centre - centres[joint]) < 0.008
            if near and 0.008 < radius < 0.020 and np.abs(distance - radius).max() < 0.25 * radius:
                found[joint] = Eyeball(centre, radius, rows)
    return found


def relief(
    vertices: np.ndarray,  # [N, 3]
    triangles: np.ndarray,  # [M, 3] those that count as surface
) -> np.ndarray:  # [N, 2]
    """Height of every vertex over the surface smoothed at each of ``RELIEF_RADII``, metres; does not depend on the
    mesh's density."""
    samples, faces, area = _even_samples(vertices, triangles)
    normals = vertex_normals(vertices, triangles)
    tree, sample_tree = cKDTree(vertices), cKDTree(samples)
    heights = np.zeros((len(vertices), len(RELIEF_RADII)))
    for column, radius in enumerate(RELIEF_RADII):
        pairs = tree.sparse_distance_matrix(sample_tree, 1.7 * radius, output_type="coo_matrix")
        # The other side of a thin part (an ear, a lip) is another surface.
        facing = np.clip(np.einsum("px,px->p", normals[pairs.row], faces[pairs.col]) + 0.3, 0, None)
        weight = np.exp(-((pairs.data / radius) ** 2)) * area[pairs.col] * facing
        matrix = sparse.coo_matrix((weight, (pairs.row, pairs.col)), pairs.shape).tocsr()
        total = np.asarray(matrix.sum(1)).ravel()
        mean = (matrix @ samples) / np.maximum(total, 1e-30)[:, None]
        heights[:, column] = np.where(total > 0, np.einsum("nx,nx->n", vertices - mean, normals), 0)
    return heights


def _even_samples(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [K, 3] some 2.5 mm apart that stand for the surface, their unit normals [K, 3] and areas [K]."""
    corners = vertices[triangles]
    thirds = np.array([[4, 1, 1], [1, 4, 1], [1, 1, 4]]) / 6
    points = np.einsum("sc,mcx->msx", thirds, corners).reshape(-1, 3)
    faces = np.repeat(triangle_normals(vertices, triangles), 3, axis=0)
    # One sample per cell and direction, so that both sides of a thin part keep their own
    cell = np.concatenate([np.floor(points / 0.0025), faces > 0], 1).astype(np.int64)
    _, owner = np.unique(cell, axis=0, return_inverse=True)
    owner = owner.ravel()
    area = np.linalg.norm(faces, axis=1)
    total = np.maximum(np.bincount(owner, area), 1e-20)
    middle = np.stack([np.bincount(owner, area * points[:, axis]) for axis in range(3)], 1) / total[:, None]
    normal = np.stack([np.bincount(owner, faces[:, axis]) for axis in range(3)], 1)
    return middle, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20), total


@dataclass(frozen=True)
class Matches:
    """The closest point of P askers."""

    triangle: np.ndarray  # [P]
    barycentric: np.ndarray  # [P, 3]
    point: np.ndarray  # [P, 3]
    normal: np.ndarray  # [P, 3]
    distance: np.ndarray  # [P] metres
    on_border: np.ndarray  # [P] bool


class Matcher:
    """Closest points on a surface in place, normal and, where given, relief."""

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray, heights: np.ndarray | None = None):
        self.vertices, self.triangles = np.asarray(vertices, np.float64), triangles
        faces = triangle_normals(self.vertices, triangles)
        self.face_normals = faces / np.maximum(np.linalg.norm(faces, axis=1, keepdims=True), 1e-20)
        self.normals = vertex_normals(self.vertices, triangles)
        self.corners = self.vertices[triangles]
        self.heights = np.zeros((len(vertices), 0)) if heights is None else heights * RELIEF_WEIGHT
        middle = self.heights[triangles].mean(1)
        self.tree = cKDTree(np.hstack([self.corners.mean(1), NORMAL_LENGTH * self.face_normals, middle]))
        self.border = np.zeros(len(vertices), bool)
        self.border[boundary_edges(triangles).ravel()] = True

    def __call__(self, points: np.ndarray, normals: np.ndarray, heights: np.ndarray | None = None) -> Matches:
        """``points`` [P, 3] with unit ``normals`` [P, 3] and ``heights`` [P, 2] (as ``relief`` gives them)."""
        asked = np.zeros((len(points), 0)) if heights is None else heights * RELIEF_WEIGHT
        count = min(_CANDIDATES, len(self.triangles))
        _, candidates = self.tree.query(np.hstack([points, NORMAL_LENGTH * normals, asked]), count)
        candidates = candidates.reshape(len(points), count)
        barycentric, squared = closest_on_triangles(points, self.corners[candidates])
        found = np.einsum("pkc,pkch->pkh", barycentric, self.heights[self.triangles[candidates]])
        cost = squared + ((found - asked[:, None]) ** 2).sum(-1)
        cost += NORMAL_LENGTH**2 * ((self.face_normals[candidates] - normals[:, None]) ** 2).sum(-1)
        rows, best = np.arange(len(points)), cost.argmin(1)
        triangle, barycentric = candidates[rows, best], barycentric[rows, best]
        corner = self.triangles[triangle]
        normal = np.einsum("pc,pcx->px", barycentric, self.normals[corner])
        return Matches(
            triangle,
            barycentric,
            np.einsum("pc,pcx->px", barycentric, self.corners[triangle]),
            normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12),
            np.sqrt(squared[rows, best]),
            (self.border[corner] | (barycentric < 1e-3)).all(1),
        )


def register(source: HeadArrays, target: HeadArrays) -> np.ndarray:  # [N, 3]
    """The source's vertices moved onto the target's surface, metres.

    ``source`` is the default head (or one with its region names); of ``target`` the vertices, triangles and eye joints
    are used. The source's inside (mouth, teeth, sockets) follows smoothly; each eyeball becomes the target's in place
    and size. Takes some 10 s at 15,000 target vertices.
    """
    part = components(target.triangles, len(target.vertices))
    skin_target = target.triangles[part[target.triangles[:, 0]] == 0]
    target_vertices = target.vertices.astype(np.float64)
    matcher = Matcher(target_vertices, skin_target, relief(target_vertices, skin_target))

    outside = source.triangles[~triangles_of(source, (*INNER_PARTS, _CAP))]
    heights = relief(source.vertices.astype(np.float64), outside)
    skin = np.unique(outside)
    centres = target.joint_regressor[list(EYES)] @ target_vertices
    own_centres = source.joint_regressor[list(EYES)] @ source.vertices
    scales = _first_scales(source.vertices[skin], own_centres, target_vertices[np.unique(skin_target)], centres)
    fits = [_fit_identity(source, outside, skin, heights[skin], matcher, centres, scale) for scale in scales]
    fitted = min(fits, key=lambda fit: fit[1])[0]
    moved = _displace(fitted, source.triangles, outside, skin, heights, matcher)

    part = components(source.triangles, len(source.vertices))
    own, others = find_eyeballs(source), find_eyeballs(target)
    for joint, eyeball in own.items():
        mine = np.unique(part[eyeball.vertices])
        rows = np.flatnonzero(np.isin(part, mine))
        if joint in others:
            centre, scale = others[joint].centre, others[joint].radius / eyeball.radius
        else:
            centre, scale = centres[EYES.index(joint)], _mean_scale(source.vertices[skin], moved[skin])
        moved[rows] = centre + scale * (source.vertices[rows] - eyeball.centre)
    return moved


def _weights(matches: Matches, normals: np.ndarray) -> np.ndarray:
    facing = np.einsum("px,px->p", normals, matches.normal) > 0.5
    return facing * ~matches.on_border / (1 + (matches.distance / FAR) ** 2)


def _fit_identity(
    source: HeadArrays,
    outside: np.ndarray,  # [M', 3]
    skin: np.ndarray,  # [P] rows of the vertices of ``outside``
    heights: np.ndarray,  # [P, 2]
    matcher: Matcher,
    eye_centres: np.ndarray,  # [2, 3] of the target
    scale: float,
) -> tuple[np.ndarray, float]:
    """Step 1: Gauss-Newton over translation, rotation, scale (from a first guess) and the source's identity
    coefficients. Returns the vertices [N, 3] and the mean miss, none counted above ``FAR``."""
    neutral, identity = source.vertices.astype(np.float64), source.identity.astype(np.float64)
    size = len(identity)
    basis = np.ascontiguousarray(identity[:, skin].transpose(1, 2, 0))  # [P, 3, S]
    eye_rows = source.joint_regressor[list(EYES)].astype(np.float64)
    eyes, eye_basis = eye_rows @ neutral, np.einsum("en,snx->exs", eye_rows, identity)
    area = vertex_areas(neutral, outside)[skin]
    area = area / area.sum()
    coefficients, rotation = np.zeros(size), np.eye(3)
    shift = eye_centres.mean(0) - scale * eyes.mean(0)

    def shape() -> np.ndarray:
        return scale * (neutral + np.tensordot(coefficients, identity, 1)) @ rotation.T + shift

    for ridge in _RIDGES:
        moved = shape()
        normals = vertex_normals(moved, outside)[skin]
        points = moved[skin]
        matches = matcher(points, normals, heights)
        weight = area * _weights(matches, normals)
        middle = points.mean(0)
        # Mostly along the normal: a closest point says little about the place along the surface.
        metric = weight[:, None, None] * (
            0.8 * matches.normal[:, :, None] * matches.normal[:, None, :] + 0.2 * np.eye(3)
        )
        jacobian = _similarity_columns(points - middle, scale * np.einsum("xy,pys->pxs", rotation, basis))
        pulled = np.einsum("pxy,pyk->pxk", metric, jacobian).reshape(-1, 7 + size)
        matrix = pulled.T @ jacobian.reshape(-1, 7 + size)
        right = pulled.T @ (matches.point - points).ravel()

        eye_points = scale * (eyes + eye_basis @ coefficients) @ rotation.T + shift
        jacobian = _similarity_columns(eye_points - middle, scale * np.einsum("xy,eys->exs", rotation, eye_basis))
        jacobian = jacobian.reshape(-1, 7 + size)
        matrix += 0.05 * jacobian.T @ jacobian
        right += 0.05 * jacobian.T @ (eye_centres - eye_points).ravel()
        matrix[range(7, 7 + size), range(7, 7 + size)] += ridge**2
        right[7:] -= ridge**2 * coefficients

        step = np.linalg.solve(matrix + 1e-12 * np.eye(7 + size), right)
        turn, growth = Rotation.from_rotvec(step[3:6]).as_matrix(), 1 + step[6]
        shift = growth * turn @ (shift - middle) + middle + step[:3]
        rotation, scale = turn @ rotation, growth * scale
        coefficients += step[7:]
    moved = shape()
    matches = matcher(moved[skin], vertex_normals(moved, outside)[skin], heights)
    return moved, float(area @ np.where(matches.on_border, FAR, np.minimum(matches.distance, FAR)))


def _first_scales(
    source: np.ndarray, source_eyes: np.ndarray, target: np.ndarray, target_eyes: np.ndarray
) -> list[float]:
    """Guesses of the target's size over the source's: by the distance of the eyes, by the height of the crown above
    them, and between the two. Each alone is wrong for some people."""

    def sizes(points: np.ndarray, eyes: np.ndarray) -> np.ndarray:
        return np.array([np.linalg.norm(eyes[0] - eyes[1]), points[:, 1].max() - eyes[:, 1].mean()])

    eyes, crown = sizes(target, target_eyes) / sizes(source, source_eyes)
    return [float(eyes), float(crown), float(np.sqrt(eyes * crown))]


def _similarity_columns(arms: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Derivatives [P, 3, 7 + S] by translation, rotation vector, growth, and the columns of ``basis`` [P, 3, S]."""
    columns = np.empty((len(arms), 3, 7 + basis.shape[2]))
    columns[:, :, :3] = np.eye(3)
    columns[:, :, 3:6] = np.cross(np.eye(3)[None], arms[:, None]).transpose(0, 2, 1)
    columns[:, :, 6] = arms
    columns[:, :, 7:] = basis
    return columns


def _displace(
    start: np.ndarray,  # [N, 3]
    triangles: np.ndarray,  # [M, 3]
    outside: np.ndarray,  # [M', 3]
    skin: np.ndarray,  # [P]
    heights: np.ndarray,  # [N, 2]
    matcher: Matcher,
) -> np.ndarray:  # [N, 3]
    """Step 2: the displacement d of every vertex that minimises the weighted misses plus stiffness |L d|^2."""
    count = len(start)
    laplacian = _laplacian(triangles, count)
    bending = (laplacian.T @ laplacian).tocsc()
    moved = start.copy()
    for stiffness in _STIFFNESS:
        normals = vertex_normals(moved, outside)[skin]
        matches = matcher(moved[skin], normals, heights[skin])
        weight = np.zeros(count)
        weight[skin] = _weights(matches, normals)
        miss = matches.point - moved[skin]
        along = np.einsum("px,px->p", miss, matches.normal)[:, None] * matches.normal
        goal = moved - start
        goal[skin] += 0.7 * along + 0.3 * miss
        # The small constant keeps parts without any match (teeth, eyeballs) where they are.
        system = sparse.diags(weight + 1e-6) + stiffness * bending
        factors = splu(
            system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
        moved = start + factors.solve((weight + 1e-6)[:, None] * goal * (weight > 0)[:, None])
    return moved


def _laplacian(triangles: np.ndarray, count: int) -> sparse.csr_matrix:
    """Each vertex minus the mean of its neighbours."""
    a, b = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    graph = sparse.coo_matrix((np.ones(len(a)), (a, b)), (count, count)).tocsr()
    graph = graph + graph.T
    graph.data[:] = 1
    degree = np.asarray(graph.sum(1)).ravel()
    return (sparse.identity(count) - sparse.diags(1 / np.maximum(degree, 1)) @ graph).tocsr()


def _mean_scale(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.sqrt(after.var(0).sum() / before.var(0).sum()))
