"""Frames of a head's posed triangles as the GPU program reads them: the part of Eq. 5 that Blender's CPU does."""

from __future__ import annotations

import numpy as np

from ..engine.avatar.posing import FLATNESS, MIN_AREA, MIN_LENGTH, triangle_frames


class PosedTriangles:
    """Frames of M triangles, computed again for every pose in buffers that are kept.

    The same numbers as ``engine/avatar/posing.py: triangle_frames`` gives, several times faster, because a coordinate
    of all triangles lies together. What is not finite becomes a triangle of no size, on which nothing is drawn.
    """

    def __init__(self, count: int):
        self.count = count
        # [row, column, triangle]: rows 0-2 hold the rotation's row and a coordinate of the centre, row 3 sqrt(area)
        self.columns = np.zeros((4, 4, count), np.float32)
        self.low = self.high = np.zeros(3, np.float32)  # corners of the box around what is finite, world
        self._corners = np.empty((3, 3, count), np.float32)  # [corner, coordinate, triangle]

    @property
    def size(self) -> np.ndarray:  # [M] metres, 0: not drawn
        """sqrt(area), each triangle's unit of length."""
        return self.columns[3, 0]

    def pose(
        self,
        vertices: np.ndarray,  # [N, 3] metres
        triangles: np.ndarray,  # [M, 3]
        matrix: np.ndarray,  # [4, 4] from the vertices' space to the world
    ) -> None:
        """Follow the mesh."""
        if not self.count:
            return
        with np.errstate(all="ignore"):
            self._pose(vertices, triangles, matrix.astype(np.float32))

    def _pose(self, vertices: np.ndarray, triangles: np.ndarray, matrix: np.ndarray) -> None:
        # The move comes last: far from the origin float32 has no digits left for differences of corners
        turned = matrix[:3, :3] @ vertices.T
        for corner, into in enumerate(self._corners):
            np.take(turned, triangles[:, corner], 1, into, "clip")
        a, b, c = self._corners
        along, normal, third, centre = (self.columns[:3, column] for column in range(4))
        side = c - a
        np.subtract(b, a, out=along)
        edge_length = _length(along)
        along /= edge_length
        _cross(along, side, normal)
        height = _length(normal)
        normal /= height
        _cross(along, normal, third)
        np.add(a, b, out=centre)
        centre += c
        centre /= 3
        np.sqrt(np.maximum(0.5 * edge_length * height, MIN_AREA), out=self.size)
        sound = (edge_length > MIN_LENGTH) & (height > MIN_LENGTH + FLATNESS * (edge_length + _length(side)))
        sound &= np.isfinite(self.size) & np.isfinite(centre).all(0)
        if not sound.all():
            self._mend(np.flatnonzero(~sound))
        centre += matrix[:3, 3:]
        self.low, self.high = centre.min(1), centre.max(1)

    def _mend(self, rows: np.ndarray) -> None:
        """Collapsed triangles as the engine has them; triangles that are not finite where they do no harm."""
        corners = self._corners[:, :, rows]
        finite = np.isfinite(corners).all((0, 1))
        flat = rows[finite]
        if len(flat):
            points = corners[:, :, finite].transpose(2, 0, 1).reshape(-1, 3)
            centre, rotation, area = triangle_frames(points, np.arange(len(points)).reshape(-1, 3))
            self.columns[:3, :3, flat] = rotation.transpose(1, 2, 0)
            self.columns[:3, 3, flat] = centre.T
            self.size[flat] = np.sqrt(area)
            finite[finite] = np.isfinite(area) & np.isfinite(centre).all(1)
        lost = rows[~finite]
        if len(lost):
            self.columns[..., lost] = 0
            # Amid the others, so that the range of depths, and with it the sorting's steps, stays as it was
            others = np.delete(self.columns[:3, 3], lost, 1)
            if others.size:
                self.columns[:3, 3, lost] = others[:, :1]

    def depth_rows(self, direction: np.ndarray) -> np.ndarray:
        """Rows [M, 4] whose product with a splat's (offset, 1) is its distance along ``direction`` [3] of the world."""
        rows = np.tensordot(direction.astype(np.float32), self.columns[:3], 1)
        rows[:3] *= self.size
        return np.ascontiguousarray(rows.T)


def _length(vectors: np.ndarray) -> np.ndarray:
    """Lengths [M] of [3, M]."""
    return np.sqrt(np.einsum("im,im->m", vectors, vectors))


def _cross(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Cross products of [3, M], none of which is ``out``."""
    for x in range(3):
        y, z = (x + 1) % 3, (x + 2) % 3
        np.multiply(left[y], right[z], out=out[x])
        out[x] -= left[z] * right[y]
