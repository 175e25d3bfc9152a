"""What the default head knows, carried over to a head that was registered to it: landmarks, regions, ARKit controls."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from .arrays import JOINT_NAMES, Controls, HeadArrays, Landmarks
from .registration import EYEBALL_PARTS, EYES, INNER_PARTS, Matcher, find_eyeballs, triangles_of
from .skinning import rotation_matrices, skin
from .surface import components, triangle_normals, vertex_areas, vertex_normals

JAW = JOINT_NAMES.index("jaw")
REACH = 0.005  # metres; a target vertex that much further from the moved surface counts 1/e in the controls
RIDGE = 1e-4  # of the mean square motion per unit coefficient
_JAW_TURNS = 0.02  # radians beyond which a control's jaw is solved with the true rotation
_JAW_ITERATIONS = 5


@dataclass(frozen=True)
class Transfer:
    """A source head whose vertices have been moved onto a target's surface (``registration.register``)."""

    source: HeadArrays
    moved: np.ndarray  # [N, 3]
    target: HeadArrays

    def landmarks(self) -> Landmarks:
        """The source's landmarks as points on the target's triangles."""
        table = self.source.landmarks
        on_eyeball = triangles_of(self.source, EYEBALL_PARTS)[table.triangles]
        triangles = np.zeros(len(table.indices), np.int64)
        barycentric = np.zeros((len(table.indices), 3))
        outside = self.source.triangles[~triangles_of(self.source, INNER_PARTS)]
        skin_normals = vertex_normals(self.moved, outside)
        ball_normals = vertex_normals(self.moved, self.source.triangles)
        corners = self.source.triangles[table.triangles]
        balls = self._target_eyeballs()
        for mine, normals, rows in (
            (~on_eyeball, skin_normals, self._target_skin()),
            (on_eyeball, ball_normals, balls if len(balls) else np.arange(len(self.target.triangles))),
        ):
            if not mine.any():
                continue
            points = np.einsum("lc,lcx->lx", table.barycentric[mine], self.moved[corners[mine]])
            normal = _unit(np.einsum("lc,lcx->lx", table.barycentric[mine], normals[corners[mine]]))
            matches = Matcher(self.target.vertices, self.target.triangles[rows])(points, normal)
            triangles[mine], barycentric[mine] = rows[matches.triangle], matches.barycentric
        return Landmarks(table.indices.astype(np.int32), triangles.astype(np.int32), barycentric.astype(np.float32))

    def regions(self) -> np.ndarray:  # [M] uint8
        """Row of the source's ``region_names`` for every triangle of the target."""
        middle = self.target.vertices[self.target.triangles].mean(1).astype(np.float64)
        normals = _unit(triangle_normals(self.target.vertices.astype(np.float64), self.target.triangles))
        region = np.zeros(len(middle), np.uint8)
        for rows, theirs in (
            (self._target_skin(), ~triangles_of(self.source, (*EYEBALL_PARTS, "teeth", "tongue"))),
            (self._target_eyeballs(), triangles_of(self.source, EYEBALL_PARTS)),
        ):
            chosen = np.flatnonzero(theirs)
            if len(rows) and len(chosen):
                matches = Matcher(self.moved, self.source.triangles[chosen])(middle[rows], normals[rows])
                region[rows] = self.source.region[chosen[matches.triangle]]
        return region

    def shapes(self) -> tuple[np.ndarray, np.ndarray]:
        """The source's controls as displacements of the target's vertices [C, N', 3] (metres, without the eyeballs),
        and how much each vertex is to be trusted [N'] (0 to 1)."""
        source = self.source
        surface = source.triangles[~triangles_of(source, (*EYEBALL_PARTS, "teeth", "tongue"))]
        vertices = self.target.vertices.astype(np.float64)
        skin_vertices = np.unique(self.target.triangles[self._target_skin()])
        normals = vertex_normals(vertices, self.target.triangles)
        matches = Matcher(self.moved, surface)(vertices[skin_vertices], normals[skin_vertices])
        trust = np.zeros(len(vertices))
        trust[skin_vertices] = np.exp(-matches.distance / REACH) * (
            np.einsum("px,px->p", matches.normal, normals[skin_vertices]) > 0
        )
        corners = surface[matches.triangle]
        # The moved source is the source with another identity: its joints are where its surface is now, and small
        # motions are stretched and turned with the surface.
        stretch = _local_maps(source.vertices.astype(np.float64), self.moved, surface)
        carried = replace(
            source,
            vertices=self.moved.astype(np.float32),
            expression=np.einsum("nxy,eny->enx", stretch, source.expression).astype(np.float32),
            pose_correctives=np.einsum("nxy,eny->enx", stretch, source.pose_correctives).astype(np.float32),
        )
        shapes = np.zeros((len(source.controls.names), len(vertices), 3))
        for row, (expression, joints) in enumerate(
            zip(source.controls.to_expression, source.controls.to_joints, strict=True)
        ):
            motion = skin(carried, expression, joints).astype(np.float64) - self.moved
            shapes[row, skin_vertices] = np.einsum("pc,pcx->px", matches.barycentric, motion[corners])
        return shapes, trust

    def controls(self) -> Controls:
        """The source's controls solved for the target's expression and jaw, one ridge least squares each.

        Eyes turn by the source's own angles. A control that turns the jaw is solved with the true rotation by
        Gauss-Newton, the rest linearly.
        """
        shapes, trust = self.shapes()
        target, count = self.target, len(self.source.controls.names)
        weight = trust * vertex_areas(target.vertices.astype(np.float64), target.triangles)
        used = np.flatnonzero(weight > 0)
        weight = weight[used] / weight.sum()
        to_joints = np.zeros((count, len(JOINT_NAMES), 3))
        to_joints[:, list(EYES)] = self.source.controls.to_joints[:, list(EYES)]
        basis = target.expression[:, used].astype(np.float64)  # [E, K, 3]
        size = len(basis)
        rest = target.vertices[used].astype(np.float64)

        def posed(coefficients: np.ndarray, joints: np.ndarray) -> np.ndarray:
            return skin(target, coefficients, joints)[used].astype(np.float64) - rest

        def jaw_columns(coefficients: np.ndarray, joints: np.ndarray) -> np.ndarray:
            step, columns = 1e-2, []
            for axis in range(3):
                turned = [joints.copy(), joints.copy()]
                turned[0][JAW, axis] += step
                turned[1][JAW, axis] -= step
                columns.append((posed(coefficients, turned[0]) - posed(coefficients, turned[1])) / (2 * step))
            return np.stack(columns)

        flat = np.sqrt(weight)[:, None]
        still = np.zeros((len(JOINT_NAMES), 3))
        columns = np.concatenate([basis, jaw_columns(np.zeros(size), still)])
        penalty = _penalty(columns * flat, size)

        def solve(columns: np.ndarray, misses: np.ndarray, current: np.ndarray) -> np.ndarray:
            """Step [..., E + 3] from ``current`` towards the ``misses`` [..., K, 3]."""
            matrix = (columns * flat).reshape(size + 3, -1)
            right = (misses * flat).reshape(*misses.shape[:-2], -1) @ matrix.T - penalty * current
            return np.linalg.solve(matrix @ matrix.T + np.diag(penalty), right.T).T

        turned_eyes = np.stack([posed(np.zeros(size), joints) for joints in to_joints])
        solution = solve(columns, shapes[:, used] - turned_eyes, np.zeros((count, size + 3)))
        for row in np.flatnonzero(np.abs(solution[:, size:]).max(1) > _JAW_TURNS):
            current = solution[row]
            for _ in range(_JAW_ITERATIONS):
                joints = to_joints[row].copy()
                joints[JAW] = current[size:]
                turn = target.skin_weights[used, JAW][:, None, None] * (rotation_matrices(joints[JAW]) - np.eye(3))
                rotated = basis + np.einsum("kxy,eky->ekx", turn, basis)
                here = np.concatenate([rotated, jaw_columns(current[:size], joints)])
                current = current + solve(here, shapes[row, used] - posed(current[:size], joints), current)
            solution[row] = current
        to_joints[:, JAW] = solution[:, size:]
        return Controls(self.source.controls.names, solution[:, :size].astype(np.float32), to_joints.astype(np.float32))

    def _target_skin(self) -> np.ndarray:
        """Rows of the triangles of the target's largest part."""
        part = components(self.target.triangles, len(self.target.vertices))
        return np.flatnonzero(part[self.target.triangles[:, 0]] == 0)

    def _target_eyeballs(self) -> np.ndarray:
        """Rows of the triangles of the target's separate eyeballs; none where it has no such parts."""
        vertices = [ball.vertices for ball in find_eyeballs(self.target).values()]
        return np.flatnonzero(np.isin(self.target.triangles[:, 0], np.concatenate([[], *vertices])))


def _penalty(columns: np.ndarray, size: int) -> np.ndarray:
    """Ridge [E + 3]: relative to the mean square motion of the expressions, and of the jaw per radian."""
    square = (columns**2).sum((1, 2))
    expression = square[:size].mean() if size else 0.0
    return RIDGE * np.concatenate([np.full(size, expression), np.full(3, square[size:].mean())]) + 1e-18


def _local_maps(before: np.ndarray, after: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Linear maps [N, 3, 3] that take small motions of each vertex along, as the surface around it was stretched and
    turned; averaged over the neighbourhood."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    count = len(before)
    old, new = before[edges[:, 1]] - before[edges[:, 0]], after[edges[:, 1]] - after[edges[:, 0]]
    length = np.sqrt((old**2).sum() / len(edges))
    old_normal = length * vertex_normals(before, triangles)
    size = np.sqrt((new**2).sum() / (old**2).sum())
    new_normal = size * length * vertex_normals(after, triangles)
    # Sums over the neighbours of outer products new x old and old x old, spread over a few rings of neighbours
    spread = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count)).tocsr()
    spread = spread + sparse.identity(count)
    rows = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], np.arange(len(edges)))), (count, len(edges))).tocsr()
    mixed = rows @ np.einsum("ex,ey->exy", new, old).reshape(-1, 9)
    own = rows @ np.einsum("ex,ey->exy", old, old).reshape(-1, 9)
    mixed += np.einsum("nx,ny->nxy", new_normal, old_normal).reshape(-1, 9)
    own += np.einsum("nx,ny->nxy", old_normal, old_normal).reshape(-1, 9)
    for _ in range(3):
        mixed, own = spread @ mixed, spread @ own
    mixed, own = mixed.reshape(-1, 3, 3), own.reshape(-1, 3, 3)
    scale = np.trace(own, axis1=1, axis2=2)[:, None, None] / 3 + 1e-30
    # A little of the mean stretch keeps a flat or empty neighbourhood well-behaved
    return (mixed + 1e-3 * size * scale * np.eye(3)) @ np.linalg.inv(own + 1e-3 * scale * np.eye(3))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
