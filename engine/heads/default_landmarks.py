"""MediaPipe's landmarks on the default head: eyes and lips along edge loops, brows and oval as points on the skin.

Everything is authored on the subject's left, in decimetres of the neutral head, and mirrored to the right.
"""

from __future__ import annotations

import numpy as np

from .arrays import Landmarks
from .default_contacts import halves
from .default_mesh import EYE_LEFT, EYE_RIGHT, HeadMesh
from .default_regions import LID_MARGIN, LIP_BORDER, LIP_LINE

# MediaPipe's index on the left and on the right, and where along the curve the point sits: its x as a fraction of
# the way from one end (0) to the other (1).
UPPER_LID = ((466, 246, 0.075), (388, 161, 0.165), (387, 160, 0.30), (386, 159, 0.49), (385, 158, 0.665),
             (384, 157, 0.83), (398, 173, 0.94))  # fmt: skip
LOWER_LID = ((249, 7, 0.075), (390, 163, 0.165), (373, 144, 0.30), (374, 145, 0.49), (380, 153, 0.665),
             (381, 154, 0.83), (382, 155, 0.94))  # fmt: skip
EYE_CORNERS = ((263, 33), (362, 133))  # outer (fraction 0), inner (fraction 1)
# lips: 0 at the middle, 1 at the corner of the mouth
LIP_OUTER_TOP = ((0, 0, 0.0), (267, 37, 0.28), (269, 39, 0.57), (270, 40, 0.78), (409, 185, 0.93))
LIP_OUTER_BOTTOM = ((17, 17, 0.0), (314, 84, 0.28), (405, 181, 0.54), (321, 91, 0.75), (375, 146, 0.90))
LIP_INNER_TOP = ((13, 13, 0.0), (312, 82, 0.25), (311, 81, 0.48), (310, 80, 0.69), (415, 191, 0.87))
LIP_INNER_BOTTOM = ((14, 14, 0.0), (317, 87, 0.26), (402, 178, 0.50), (318, 88, 0.71), (324, 95, 0.87))
LIP_CORNERS = ((291, 61), (308, 78))  # outer, inner
# brows: (left, right, x, y); the point is the foremost of the skin there
BROWS = (
    (276, 46, 0.520, 7.628), (283, 53, 0.450, 7.660), (282, 52, 0.365, 7.684), (295, 65, 0.262, 7.692),
    (285, 55, 0.130, 7.684),
    (300, 70, 0.540, 7.660), (293, 63, 0.472, 7.705), (334, 105, 0.380, 7.734), (296, 66, 0.270, 7.748),
    (336, 107, 0.135, 7.755),
)  # fmt: skip
# oval: (left, right, x, y, z): the nearest point of the skin. At the chin it stays on the front, so that it is still
# seen when the jaw opens.
OVAL = (
    (10, 10, 0.0, 8.05, 1.40), (338, 109, 0.180, 8.045, 1.37), (297, 67, 0.335, 8.01, 1.30),
    (332, 103, 0.475, 7.94, 1.19), (284, 54, 0.580, 7.84, 1.03), (251, 21, 0.645, 7.74, 0.89),
    (389, 162, 0.680, 7.62, 0.78), (356, 127, 0.690, 7.47, 0.73), (454, 234, 0.690, 7.31, 0.71),
    (323, 93, 0.680, 7.14, 0.72), (361, 132, 0.660, 6.98, 0.76), (288, 58, 0.610, 6.82, 0.86),
    (397, 172, 0.550, 6.70, 0.97), (365, 136, 0.470, 6.61, 1.09), (379, 150, 0.380, 6.54, 1.20),
    (378, 149, 0.295, 6.495, 1.29), (400, 176, 0.205, 6.465, 1.35), (377, 148, 0.110, 6.452, 1.38),
    (152, 152, 0.0, 6.450, 1.39),
)  # fmt: skip
HIDDEN = ("socket", "mouth", "ear")  # parts of the skin that hold no landmark
IRISES = ((473, EYE_LEFT), (468, EYE_RIGHT))


class _Table:
    """Collects points on triangles, the left side's with their mirror images."""

    def __init__(self, mesh: HeadMesh, skin: np.ndarray):  # skin: [M] bool, triangles a landmark may lie on
        self.mesh = mesh
        self.rows = np.flatnonzero(skin)
        corners = mesh.triangles[self.rows]
        self.row_of = {tuple(sorted(t)): int(r) for t, r in zip(corners.tolist(), self.rows, strict=True)}
        self.points: dict[int, tuple[int, np.ndarray]] = {}

    def add(self, left: int, right: int, row: int, weights: np.ndarray) -> None:
        self.points[left] = (row, weights)
        if right == left:
            return
        corners = self.mesh.triangles[row]
        twin = self.mesh.mirror[corners]
        other = self.row_of[tuple(sorted(twin.tolist()))]
        order = [twin.tolist().index(v) for v in self.mesh.triangles[other].tolist()]
        self.points[right] = (other, weights[order])

    def on_edge(self, left: int, right: int, a: int, b: int, t: float) -> None:
        """The point a + t (b - a) on an edge, on that of its two triangles which looks more to the front."""
        triangles = self.mesh.triangles[self.rows]
        beside = self.rows[(triangles == a).any(1) & (triangles == b).any(1)]
        p = self.mesh.neutral[self.mesh.triangles[beside]]
        normals = np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
        row = int(beside[np.argmax(normals[:, 2] / np.linalg.norm(normals, axis=1))])
        corners = self.mesh.triangles[row]
        self.add(left, right, row, np.where(corners == a, 1 - t, np.where(corners == b, t, 0.0)))

    def along(self, chain: list[int], points: tuple[tuple[int, int, float], ...]) -> None:
        """Points at fractions of the x-distance from the chain's first vertex to its last."""
        x = self.mesh.neutral[chain, 0]
        progress = np.maximum.accumulate((x - x[0]) / (x[-1] - x[0]))
        for left, right, fraction in points:
            i = min(int(np.searchsorted(progress, fraction, side="right")) - 1, len(chain) - 2)
            step = max(progress[i + 1] - progress[i], 1e-9)
            self.on_edge(left, right, chain[i], chain[i + 1], float(np.clip((fraction - progress[i]) / step, 0, 1)))

    def nearest(self, left: int, right: int, target: np.ndarray) -> None:
        """The point of the skin nearest to ``target`` [3]; one without a twin lies on an edge of the middle line."""
        rows = self.rows
        middle = np.abs(self.mesh.neutral[self.mesh.triangles[rows], 0]) < 1e-9  # [R, 3]
        if left == right:
            rows, middle = rows[middle.sum(1) == 2], middle[middle.sum(1) == 2]
        corners = self.mesh.neutral[self.mesh.triangles[rows]]
        weights = closest_barycentric(corners, target)
        if left == right:
            weights = weights * middle + 1e-9 * middle  # a share for each, so that the sum is never zero
            weights /= weights.sum(1, keepdims=True)
        distance = np.linalg.norm(np.einsum("mk,mkc->mc", weights, corners) - target, axis=1)
        best = int(np.argmin(distance))
        self.add(left, right, int(rows[best]), weights[best])

    def frontmost(self, left: int, right: int, x: float, y: float) -> None:
        """Where a ray along -z first meets the skin."""
        corners = self.mesh.neutral[self.mesh.triangles[self.rows]]
        a, b, c = corners[:, 0, :2], corners[:, 1, :2], corners[:, 2, :2]
        area = _cross(b - a, c - a)
        area = np.where(np.abs(area) < 1e-12, np.inf, area)
        p = np.array([x, y])
        weights = np.stack([_cross(b - p, c - p), _cross(c - p, a - p), _cross(a - p, b - p)], 1) / area[:, None]
        depth = np.where((weights >= -1e-9).all(1) & np.isfinite(area), (weights * corners[:, :, 2]).sum(1), -np.inf)
        best = int(np.argmax(depth))
        self.add(left, right, int(self.rows[best]), np.clip(weights[best], 0, 1) / np.clip(weights[best], 0, 1).sum())


def build_landmarks(mesh: HeadMesh, region: np.ndarray, region_names: tuple[str, ...]) -> Landmarks:
    """The table of all groups that the condition image draws (see ``condition/``), for ``region`` [M]."""
    hidden = [region_names.index(n) for n in region_names if n.split("_")[0] in HIDDEN]
    skin = (mesh.groups == "body") & ~np.isin(region, hidden)
    table = _Table(mesh, skin)

    upper, lower = (chain[::-1] for chain in halves(mesh, mesh.loop(LID_MARGIN)))  # from the outer corner
    table.along(upper, ((*EYE_CORNERS[0], 0.0), *UPPER_LID, (*EYE_CORNERS[1], 1.0)))
    table.along(lower, LOWER_LID)
    for edge, corners, top, bottom in (
        (LIP_BORDER, LIP_CORNERS[0], LIP_OUTER_TOP, LIP_OUTER_BOTTOM),
        (LIP_LINE, LIP_CORNERS[1], LIP_INNER_TOP, LIP_INNER_BOTTOM),
    ):
        upper, lower = halves(mesh, mesh.loop(edge))
        upper, lower = ([v for v in chain if mesh.neutral[v, 0] > -1e-6] for chain in (upper, lower))
        table.along(upper, (*top, (*corners, 1.0)))
        table.along(lower, bottom)
    for left, right, x, y in BROWS:
        table.frontmost(left, right, x, y)
    for left, right, x, y, z in OVAL:
        table.nearest(left, right, np.array([x, y, z]))
    for index, group in IRISES:
        table.points[index] = _iris(mesh, group)

    indices = sorted(table.points)
    rows, weights = zip(*(table.points[i] for i in indices), strict=True)
    return Landmarks(np.array(indices, np.int32), np.array(rows, np.int32), np.array(weights, np.float32))


def closest_barycentric(corners: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [M, 3] of the point nearest to ``point`` [3] on each triangle ``corners`` [M, 3, 3]."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-30)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    plane = np.stack([1 - v - w, v, w], 1)
    offset = np.einsum("mk,mkc->mc", plane, corners) - point
    best, distance = plane, np.where((plane >= 0).all(1), (offset**2).sum(1), np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, j] - corners[:, i]
        t = np.clip(((point - corners[:, i]) * edge).sum(1) / np.maximum((edge**2).sum(1), 1e-30), 0, 1)
        far = ((corners[:, i] + t[:, None] * edge - point) ** 2).sum(1)
        weights = np.zeros_like(plane)
        weights[:, i], weights[:, j] = 1 - t, t
        closer = far < distance
        best, distance = np.where(closer[:, None], weights, best), np.where(closer, far, distance)
    return best


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _iris(mesh: HeadMesh, group: str) -> tuple[int, np.ndarray]:
    """The front pole of an eyeball."""
    rows = np.flatnonzero(mesh.groups == group)
    pole = rows[np.argmax(mesh.neutral[mesh.triangles[rows]][..., 2].max(1))]
    return int(pole), (np.arange(3) == np.argmax(mesh.neutral[mesh.triangles[pole], 2])).astype(float)
