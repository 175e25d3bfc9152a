"""The default head's mesh: cut out of MakeHuman's base body at an edge loop of the neck, closed by a cap, triangulated.

Vertices are those of the base mesh in its order, then the middle of the cap. The neck is cut at the third edge loop
above the shoulders and closed with a fan, so that the head's skin is one watertight surface: nothing sees into it from
below, and whoever attaches it to a body deletes the region ``neck_cap``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .makehuman import BaseMesh, QuadTopology

NECK_EDGE = (1522, 1521)  # an edge of the loop at which the body is cut off
CROWN = 8.9  # decimetres: body vertices above this height are on the head
ORGANS = ("helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")


@dataclass(frozen=True)
class HeadMesh:
    """N vertices, M triangles, with the way back to the base mesh. Lengths in decimetres (MakeHuman's)."""

    base: BaseMesh
    neutral: np.ndarray  # [N, 3] rest shape
    base_ids: np.ndarray  # [N - 1] vertex of the base mesh; the last vertex is the cap's middle
    triangles: np.ndarray  # [M, 3] counter-clockwise seen from outside
    uv: np.ndarray  # [T, 2]
    uv_triangles: np.ndarray  # [M, 3]
    quad_of: np.ndarray  # [M] quad of the base mesh, -1 on the cap
    mirror: np.ndarray  # [N] the vertex on the other side
    neck_loop: np.ndarray  # [K] vertices of the cut, in order
    topology: QuadTopology  # of the base mesh's body

    @cached_property
    def index(self) -> np.ndarray:
        """Vertex of the head for every vertex of the base mesh, -1 where the head has none."""
        index = np.full(len(self.base.vertices), -1)
        index[self.base_ids] = np.arange(len(self.base_ids))
        return index

    def restrict(self, field: np.ndarray) -> np.ndarray:
        """A field [V, 3] on the base mesh to one [N, 3] on the head; the cap's middle follows its rim."""
        return restrict(field, self.base_ids, self.base_ids[self.neck_loop])

    def reflect(self, field: np.ndarray) -> np.ndarray:
        """The mirror image of a displacement field [N, 3]."""
        return field[self.mirror] * [-1, 1, 1]

    def group(self, name: str) -> np.ndarray:
        """Vertices of the head in one group of the base mesh."""
        return self.index[self.base.vertices_of(name)]


def restrict(field: np.ndarray, base_ids: np.ndarray, rim: np.ndarray) -> np.ndarray:
    return np.concatenate([field[base_ids], field[rim].mean(0, keepdims=True)])


def cut_head(base: BaseMesh, neutral: np.ndarray, mirror: np.ndarray) -> HeadMesh:
    """The head of the body ``neutral`` [V, 3]; ``mirror`` [V] is the base mesh's."""
    body = np.flatnonzero(base.groups == "body")
    topology = QuadTopology(base.quads[body])
    loop = topology.loop(*NECK_EDGE)
    crown = int(
        np.flatnonzero(
            base.vertices[topology.quads].mean(1)[:, 1].max() == base.vertices[topology.quads].mean(1)[:, 1]
        )[0]
    )
    skin = body[topology.enclosed([loop], crown)]
    quads = np.concatenate([skin, np.flatnonzero(np.isin(base.groups, ORGANS))])

    base_ids = np.unique(base.quads[quads])
    index = np.full(len(base.vertices), -1)
    index[base_ids] = np.arange(len(base_ids))
    swap = _diagonals(base.quads[quads], neutral, mirror)[:, None]
    corners = np.where(swap, np.roll(base.quads[quads], -1, 1), base.quads[quads])
    uv_corners = np.where(swap, np.roll(base.uv_quads[quads], -1, 1), base.uv_quads[quads])
    triangles = index[np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]], 1).reshape(-1, 3)]
    uv_triangles = np.concatenate([uv_corners[:, [0, 1, 2]], uv_corners[:, [0, 2, 3]]], 1).reshape(-1, 3)

    rim = index[loop]
    cap, cap_uv, cap_uv_triangles = _cap(rim, triangles, len(base_ids), neutral[loop], len(base.uv))
    used, uv_triangles = np.unique(np.concatenate([uv_triangles, cap_uv_triangles]), return_inverse=True)
    return HeadMesh(
        base=base,
        neutral=restrict(neutral, base_ids, np.array(loop)),
        base_ids=base_ids,
        triangles=np.concatenate([triangles, cap]),
        uv=np.concatenate([base.uv, cap_uv])[used],
        uv_triangles=uv_triangles.reshape(-1, 3),
        quad_of=np.concatenate([np.repeat(quads, 2), np.full(len(cap), -1)]),
        mirror=np.append(index[mirror[base_ids]], len(base_ids)),
        neck_loop=rim,
        topology=topology,
    )


def _diagonals(quads: np.ndarray, points: np.ndarray, mirror: np.ndarray) -> np.ndarray:  # [Q, 4], [V, 3], [V]
    """Which quads [Q] are split along their second diagonal: the shorter one, and mirror images alike."""
    lengths = np.linalg.norm(points[quads[:, [0, 1]]] - points[quads[:, [2, 3]]], axis=-1)  # [Q, 2]
    second = lengths[:, 1] < lengths[:, 0]
    key = {tuple(sorted(quad)): row for row, quad in enumerate(quads.tolist())}
    for row in np.flatnonzero(points[quads].mean(1)[:, 0] < 0):
        partner = key[tuple(sorted(mirror[quads[row]].tolist()))]
        chosen = quads[partner][[1, 3]] if second[partner] else quads[partner][[0, 2]]
        second[row] = quads[row, 0] not in mirror[chosen]
    return second


def _cap(rim: np.ndarray, triangles: np.ndarray, middle: int, points: np.ndarray, uv_start: int):
    """A fan over the rim [K] with the vertex ``middle``: triangles [K, 3], their uv [K + 1, 2] and uv triangles."""
    edges = {tuple(edge) for edge in triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist()}
    forward = (int(rim[0]), int(rim[1])) in edges  # then the cap must run backward along the rim
    order = np.arange(len(rim))
    after = np.roll(order, -1)
    first, second = (after, order) if forward else (order, after)
    cap = np.stack([rim[first], rim[second], np.full(len(rim), middle)], 1)
    # MakeHuman's layout is free in its lower left corner
    flat = (points - points.mean(0))[:, [0, 2]]
    uv = np.concatenate([0.03 + 0.025 * flat / np.abs(flat).max(), [[0.03, 0.03]]])
    uv_triangles = uv_start + np.stack([first, second, np.full(len(rim), len(rim))], 1)
    return cap, uv, uv_triangles
