"""The default head's mesh: cut out of MakeHuman's base body at an edge loop of the neck, closed by a cap, triangulated.

Vertices are those of the base mesh in its order, then the two eyeballs (made anew, see ``default_eyes``), then the
middle of the cap. The cut is the third edge loop above the shoulders. It is closed with a fan, so that the head's skin
is one watertight surface: nothing sees into it from below, and whoever attaches it to a body deletes the region
``neck_cap``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .default_eyes import Eyeball, make_eyeball
from .makehuman import BaseMesh, QuadTopology

NECK_EDGE = (1522, 1521)  # an edge of the loop at which the body is cut off
CROWN = 881  # the vertex on top of the head
MOUTH_PARTS = ("helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
EYE_LEFT, EYE_RIGHT, CAP = "helper-l-eye", "helper-r-eye", "cap"


@dataclass(frozen=True)
class HeadMesh:
    """N vertices, M triangles, with the way back to the base mesh. Lengths in decimetres (MakeHuman's)."""

    base: BaseMesh
    neutral: np.ndarray  # [N, 3] rest shape
    base_ids: np.ndarray  # [B] vertex of the base mesh for the first B of the N vertices
    made: tuple[tuple[np.ndarray, np.ndarray], ...]  # the others: mixes [k, s] of base vertices [s]
    triangles: np.ndarray  # [M, 3] counter-clockwise seen from outside
    uv: np.ndarray  # [T, 2]
    uv_triangles: np.ndarray  # [M, 3]
    groups: np.ndarray  # [M] str: "body", one of MOUTH_PARTS, EYE_LEFT, EYE_RIGHT or CAP
    body_quads: np.ndarray  # [M] row of topology.quads, -1 outside the body
    mirror: np.ndarray  # [N] the vertex on the other side
    neck_loop: np.ndarray  # [K] vertices of the cut, in order
    topology: QuadTopology  # of the base mesh's body
    eyeball: Eyeball  # the left one

    @cached_property
    def index(self) -> np.ndarray:
        """Vertex of the head for every vertex of the base mesh, -1 where the head has none."""
        index = np.full(len(self.base.vertices), -1)
        index[self.base_ids] = np.arange(len(self.base_ids))
        return index

    def restrict(self, field: np.ndarray) -> np.ndarray:
        """A field [V, 3] on the base mesh (positions or displacements) to one [N, 3] on the head."""
        return _restrict(field, self.base_ids, self.made)

    def reflect(self, field: np.ndarray) -> np.ndarray:
        """The mirror image of a displacement field [N, 3]."""
        return field[self.mirror] * [-1, 1, 1]

    def vertices_of(self, group: str) -> np.ndarray:
        """Sorted vertices of one of the ``groups``."""
        return np.unique(self.triangles[self.groups == group])

    def loop(self, edge: tuple[int, int]) -> list[int]:
        """Vertices of the closed edge loop that starts with an edge of the base mesh."""
        return self.index[self.topology.loop(*edge)].tolist()


def cut_head(base: BaseMesh, neutral: np.ndarray, mirror: np.ndarray) -> HeadMesh:
    """The head of the body ``neutral`` [V, 3]; ``mirror`` [V] is the base mesh's."""
    body = np.flatnonzero(base.groups == "body")
    topology = QuadTopology(base.quads[body])
    loop = topology.loop(*NECK_EDGE)
    skin = topology.enclosed([loop], int(np.flatnonzero((topology.quads == CROWN).any(1))[0]))
    quads = np.concatenate([body[skin], np.flatnonzero(np.isin(base.groups, MOUTH_PARTS))])

    base_ids = np.unique(base.quads[quads])
    index = np.full(len(base.vertices), -1)
    index[base_ids] = np.arange(len(base_ids))
    turned = _second_diagonals(base.quads[quads], neutral, mirror)[:, None]
    corners = np.where(turned, np.roll(base.quads[quads], -1, 1), base.quads[quads])
    uv_corners = np.where(turned, np.roll(base.uv_quads[quads], -1, 1), base.uv_quads[quads])
    triangles = index[_split(corners)]

    eye_ids = {group: base.vertices_of(group) for group in (EYE_LEFT, EYE_RIGHT)}
    eyeball = make_eyeball(neutral[eye_ids[EYE_LEFT]], _uv_box(base, EYE_LEFT))
    right_uv = eyeball.uv + (_uv_box(base, EYE_RIGHT) - _uv_box(base, EYE_LEFT)).mean(0)
    n, k, rim = len(base_ids), len(eyeball.mix), index[loop]
    cap, cap_uv, cap_uv_triangles = _cap(rim, triangles, n + 2 * k, neutral[loop])

    uvs = [base.uv, eyeball.uv, right_uv, cap_uv]
    starts = np.cumsum([0] + [len(uv) for uv in uvs])
    uv_triangles = np.concatenate(
        [
            _split(uv_corners),
            eyeball.uv_triangles + starts[1],
            eyeball.uv_triangles[:, ::-1] + starts[2],
            cap_uv_triangles + starts[3],
        ]
    )
    used, uv_triangles = np.unique(uv_triangles, return_inverse=True)
    # The right eyeball mixes the mirror images of the vertices that the left one mixes
    made = (
        (eye_ids[EYE_LEFT], eyeball.mix),
        (mirror[eye_ids[EYE_LEFT]], eyeball.mix),
        (np.array(loop), np.full((1, len(loop)), 1 / len(loop))),
    )
    return HeadMesh(
        base=base,
        neutral=_restrict(neutral, base_ids, made),
        base_ids=base_ids,
        made=made,
        triangles=np.concatenate([triangles, n + eyeball.triangles, n + k + eyeball.triangles[:, ::-1], cap]),
        uv=np.concatenate(uvs)[used],
        uv_triangles=uv_triangles.reshape(-1, 3),
        groups=np.concatenate(
            [
                np.repeat(base.groups[quads], 2),
                np.repeat([EYE_LEFT, EYE_RIGHT, CAP], [len(eyeball.triangles)] * 2 + [len(cap)]),
            ]
        ),
        body_quads=np.concatenate(
            [np.repeat(skin, 2), np.full(2 * (len(quads) - len(skin) + len(eyeball.triangles)) + len(cap), -1)]
        ),
        mirror=np.concatenate([index[mirror[base_ids]], n + k + np.arange(k), n + np.arange(k), [n + 2 * k]]),
        neck_loop=rim,
        topology=topology,
        eyeball=eyeball,
    )


def _restrict(field: np.ndarray, base_ids: np.ndarray, made: tuple[tuple[np.ndarray, np.ndarray], ...]) -> np.ndarray:
    return np.concatenate([field[base_ids], *(mix @ field[ids] for ids, mix in made)])


def _split(quads: np.ndarray) -> np.ndarray:
    """Quads [Q, 4] to triangles [2 Q, 3] along the diagonal from the first to the third corner."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)


def _second_diagonals(quads: np.ndarray, points: np.ndarray, mirror: np.ndarray) -> np.ndarray:  # [Q, 4], [V, 3], [V]
    """Which quads [Q] are split along their second diagonal: the shorter one, and mirror images alike."""
    lengths = np.linalg.norm(points[quads[:, [0, 1]]] - points[quads[:, [2, 3]]], axis=-1)  # [Q, 2]
    second = lengths[:, 1] < lengths[:, 0]
    key = {tuple(sorted(quad)): row for row, quad in enumerate(quads.tolist())}
    for row in np.flatnonzero(points[quads].mean(1)[:, 0] < 0):
        partner = key[tuple(sorted(mirror[quads[row]].tolist()))]
        chosen = quads[partner][[1, 3]] if second[partner] else quads[partner][[0, 2]]
        second[row] = quads[row, 0] not in mirror[chosen]
    return second


def _uv_box(base: BaseMesh, group: str) -> np.ndarray:
    """Lower left and upper right corner [2, 2] of a group's texture coordinates."""
    uv = base.uv[np.unique(base.uv_quads[base.groups == group])]
    return np.stack([uv.min(0), uv.max(0)])


def _cap(rim: np.ndarray, triangles: np.ndarray, middle: int, points: np.ndarray):
    """A fan over the rim [K] with the vertex ``middle``: triangles [K, 3], their uv [K + 1, 2] and uv triangles."""
    edges = {tuple(edge) for edge in triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist()}
    order = np.arange(len(rim))
    first, second = order, np.roll(order, -1)
    if (int(rim[0]), int(rim[1])) in edges:  # the skin's triangles run forward along the rim: the fan runs backward
        first, second = second, first
    cap = np.stack([rim[first], rim[second], np.full(len(rim), middle)], 1)
    flat = (points - points.mean(0))[:, [0, 2]]
    uv = np.concatenate([CAP_UV + 0.02 * flat / np.abs(flat).max(), [CAP_UV]])
    return cap, uv, np.stack([first, second, np.full(len(rim), len(rim))], 1)


CAP_UV = np.array([0.025, 0.025])  # a corner of the texture that MakeHuman leaves free
