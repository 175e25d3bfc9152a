"""The default head in one person's shape: where things are, and the points on its skin that get painted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from ..heads.arrays import HeadArrays
from ..heads.skinning import rest_vertices

_COARSE = 3.0e-5  # square metres: skin triangles above this get four Gaussians instead of one

# Of each brow the landmarks of its upper and its lower edge, from the nose outwards, and of the eye's inner corner
_BROWS = (
    ((107, 66, 105, 63, 70), (55, 65, 52, 53, 46), 133),
    ((336, 296, 334, 293, 300), (285, 295, 282, 283, 276), 362),
)
_HALF_BROW = {"man": 0.0042, "woman": 0.003}  # metres


@dataclass(frozen=True)
class SkinPoints:
    """P small triangles that tile the head, four to a large triangle: the same for every identity."""

    triangles: np.ndarray  # [P] int64, the head's triangle
    corners: np.ndarray  # [P, 3, 3] barycentric coordinates of the small triangle's corners
    region: np.ndarray  # [P] index into region_names
    region_names: tuple[str, ...]

    def mask(self, *names: str) -> np.ndarray:
        """Which points [P] are in regions that start with one of these names."""
        return np.array([name.startswith(names) for name in self.region_names])[self.region]

    @staticmethod
    def of(arrays: HeadArrays) -> SkinPoints:
        a, b, c = (arrays.vertices[arrays.triangles[:, k]] for k in range(3))
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
        iris = np.array([name.startswith("iris") for name in arrays.region_names])[arrays.region]
        # The iris is as fine as the picture needs; nobody sees the neck's cap or the back of the eyeballs
        fine = (area < _COARSE) & ~iris
        eye, middles = np.eye(3), 0.5 * (np.eye(3) + np.roll(np.eye(3), -1, 0))
        children = [
            [eye[0], middles[0], middles[2]],
            [middles[0], eye[1], middles[1]],
            [middles[2], middles[1], eye[2]],
            middles,
        ]
        rows = np.concatenate([np.flatnonzero(fine), np.repeat(np.flatnonzero(~fine), 4)])
        corners = np.concatenate(
            [np.repeat(eye[None], fine.sum(), 0), np.tile(np.array(children), ((~fine).sum(), 1, 1))]
        )
        return SkinPoints(rows, corners, arrays.region[rows], arrays.region_names)


class Body:
    """A head at rest with one identity. Metres; y up, the face towards +z, the subject's left is +x."""

    def __init__(self, arrays: HeadArrays, skin: SkinPoints, identity: np.ndarray):
        self.arrays, self.skin = arrays, skin
        self.vertices = rest_vertices(arrays, identity).astype(np.float64)  # [N, 3]
        self.corners = self.vertices[arrays.triangles[skin.triangles]]  # [P, 3, 3]
        self.corners = np.einsum("pij,pjk->pik", skin.corners, self.corners)
        self.points = self.corners.mean(1)  # [P, 3]
        normals = np.cross(self.corners[:, 1] - self.corners[:, 0], self.corners[:, 2] - self.corners[:, 0])
        self.areas = 0.5 * np.linalg.norm(normals, axis=1)  # [P]
        self.normals = normals / np.maximum(2 * self.areas[:, None], 1e-12)

    def mask(self, *names: str) -> np.ndarray:
        """Which skin points [P] are in regions that start with one of these names."""
        return self.skin.mask(*names)

    @cached_property
    def landmarks(self) -> dict[int, np.ndarray]:
        table = self.arrays.landmarks
        corners = self.vertices[self.arrays.triangles[table.triangles]]
        return dict(zip(table.indices.tolist(), np.einsum("lk,lkj->lj", table.barycentric, corners), strict=True))

    @cached_property
    def eyes(self) -> np.ndarray:  # [2, 3] the fronts of the left and the right eye
        return np.stack([self.landmarks[473], self.landmarks[468]])

    def brow_strip(self, sex: str) -> np.ndarray:  # [P] in 0..1
        """How much of a brow grows on each skin point: a strip along the brow's landmarks above each eye, from the
        eye's inner corner outwards. What is between the brows stays bare."""
        strip = np.zeros(len(self.points))
        for upper, lower, corner in _BROWS:
            middle = np.array(
                [0.5 * (self.landmarks[a] + self.landmarks[b]) for a, b in zip(upper, lower, strict=True)]
            )
            side = np.sign(middle[-1, 0])
            along, inner, outer = side * self.points[:, 0], abs(self.landmarks[corner][0]), side * middle[-1, 0]
            height = np.interp(along, side * middle[:, 0], middle[:, 1])
            share = (along - inner) / (outer - inner)
            half = _HALF_BROW[sex] * np.interp(share, (0.0, 0.25, 0.6, 1.0), (0.7, 1.0, 0.85, 0.35))
            inside = (share > 0) & (share < 1) & (self.points[:, 2] > 0)
            strip += inside * np.exp(-0.5 * ((self.points[:, 1] - height) / half) ** 4)
        return strip

    @cached_property
    def nose_tip(self) -> np.ndarray:  # [3]
        nose = self.points[self.mask("nose")]
        return nose[nose[:, 2].argmax()]

    @cached_property
    def skull(self) -> np.ndarray:  # [3] middle of the skull
        scalp = self.points[self.mask("scalp")]
        low, high = scalp.min(0), scalp.max(0)
        return np.array([0.0, high[1] - 0.5 * (high[2] - low[2]), 0.5 * (high[2] + low[2])])

    @cached_property
    def skull_radii(self) -> np.ndarray:  # [3] half extents of the skull
        scalp = self.points[self.mask("scalp")]
        low, high = scalp.min(0), scalp.max(0)
        return np.array([high[0], high[1] - self.skull[1], 0.5 * (high[2] - low[2])])

    @cached_property
    def _steady(self) -> tuple[cKDTree, np.ndarray]:
        # What moves with the skull alone: bound elsewhere, a hat would follow the brows
        rows = np.flatnonzero(
            self.mask("scalp", "ear") | (self.mask("nose") & (self.points[:, 1] > self.eyes[0, 1] - 0.01))
        )
        return cKDTree(self.points[rows]), self.skin.triangles[rows]

    def anchor(self, points: np.ndarray) -> np.ndarray:  # [K, 3] -> [K]
        """The nearest triangle that moves with the skull, for things that are worn."""
        tree, triangles = self._steady
        return triangles[tree.query(points)[1]]

    def ring(self, height: float, margin: float) -> tuple[np.ndarray, np.ndarray]:
        """Centre [3] and half axes [2] (x, z) of an ellipse around the head at ``height``, ``margin`` outside it."""
        head = self.points[self.mask("scalp", "face", "brow")]
        band = head[np.abs(head[:, 1] - height) < 0.012]
        if len(band) < 8:  # above the crown
            return self.skull * [1, 0, 1] + [0, height, 0], np.full(2, 0.02 + margin)
        back, front, side = band[:, 2].min(), band[:, 2].max(), np.abs(band[:, 0]).max()
        centre = np.array([0.0, height, 0.5 * (back + front)])
        return centre, np.array([side, 0.5 * (front - back)]) + margin


def vector(x: float, y: float, z: float) -> np.ndarray:  # [3]
    return np.array([x, y, z], float)


def scatter(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` rows drawn evenly in proportion to ``weights`` [P] (areas): like dealing cards, not like dice."""
    edges = np.cumsum(weights)
    ticks = (np.arange(count) + rng.random(count)) / count * edges[-1]
    return np.minimum(np.searchsorted(edges, ticks), len(weights) - 1)


def points_in(corners: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # [K, 3, 3] -> [K, 3]
    """One random point in each triangle."""
    u = np.sqrt(rng.random((len(corners), 1)))
    v = rng.random((len(corners), 1))
    return (1 - u) * corners[:, 0] + u * (1 - v) * corners[:, 1] + u * v * corners[:, 2]
