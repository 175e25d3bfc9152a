"""Eq. 5 of the paper in numpy: the same arithmetic as ``binding.py`` where torch is not (Blender's half).

World: metres. A triangle's frame has its origin in the triangle's centre, the axes (first edge, normal, their cross
product) as columns, and sqrt(area) as its unit of length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sh_rotation import rotate_sh
from .splats import SplatArrays

MIN_AREA = 1e-12  # square metres: a splat on a collapsed triangle is a micrometre in size, not zero
MIN_LENGTH = 1e-9  # metres: a shorter edge has no direction
FLATNESS = 1e-6  # height over edge below which a triangle has no normal


@dataclass(frozen=True)
class PosedSplats:
    """K splats in world coordinates as float32 arrays: the twin of :class:`headstudio.gaussians.Gaussians`."""

    means: np.ndarray  # [K, 3] metres
    quats: np.ndarray  # [K, 4] wxyz, unit
    scales: np.ndarray  # [K, 3] standard deviations along the local axes, metres
    opacities: np.ndarray  # [K] in 0..1
    sh: np.ndarray  # [K, C, 3], C in {1, 4, 9, 16}

    def __len__(self) -> int:
        return len(self.means)


def triangle_frames(
    vertices: np.ndarray,  # [N, 3] metres
    triangles: np.ndarray,  # [M, 3]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres [M, 3], rotations [M, 3, 3] (columns edge, normal, edge x normal) and areas [M]; degenerate ones as in
    ``binding.triangle_frames``."""
    a, b, c = (np.take(vertices, triangles[:, corner], 0) for corner in range(3))
    edge, side = b - a, c - a
    along, edge_length = _normalise(edge, MIN_LENGTH, np.array([1, 0, 0], vertices.dtype))
    across = _cross(along, side)
    flat = MIN_LENGTH + FLATNESS * (edge_length + np.sqrt(_dot(side, side)))
    axis = np.eye(3, dtype=vertices.dtype)[np.abs(along).argmin(-1)]
    fallback, _ = _normalise(_cross(along, axis), 0.0, axis)
    normal, height = _normalise(across, flat, fallback)
    rotation = np.stack([along, normal, _cross(along, normal)], -1)
    return (a + b + c) / 3, rotation, np.maximum(0.5 * edge_length * height, MIN_AREA)


def matrix_to_quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternions [..., 4] wxyz of proper rotations [..., 3, 3]; the method of ``binding.py``."""
    m = np.moveaxis(rotation, (-2, -1), (0, 1))
    wx, wy, wz = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    xx, yy, zz = m[0, 0], m[1, 1], m[2, 2]
    candidates = np.stack(
        [
            np.stack([1 + xx + yy + zz, wx, wy, wz], -1),
            np.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            np.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            np.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    best = np.einsum("...ii->...i", candidates).argmax(-1)[..., None, None]
    row = np.take_along_axis(candidates, best, -2)[..., 0, :]
    return row / np.linalg.norm(row, axis=-1, keepdims=True)


def quaternion_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Hamilton product [..., 4] of wxyz quaternions: turn by ``right`` first, then by ``left``."""
    w, x, y, z = np.moveaxis(left, -1, 0)
    rw, rx, ry, rz = np.moveaxis(right, -1, 0)
    return np.stack(
        [
            w * rw - x * rx - y * ry - z * rz,
            w * rx + x * rw + y * rz - z * ry,
            w * ry - x * rz + y * rw + z * rx,
            w * rz + x * ry - y * rx + z * rw,
        ],
        -1,
    )


def pose_splats(
    splats: SplatArrays,
    vertices: np.ndarray,  # [N, 3] metres, posed
    triangles: np.ndarray,  # [M, 3]
) -> PosedSplats:
    """Eq. 5 for every splat: ``R' = R~ R``, ``mu' = sqrt(a) R~ mu + t``, ``s' = sqrt(a) s``.

    Computed in float64 if ``vertices`` are float64, else in float32. A triangle's axes follow from differences of its
    corners: float32 leaves them few digits where triangles are small (1e-4 at 0.2 mm) or far from the origin.
    """
    kind = np.float64 if np.asarray(vertices).dtype == np.float64 else np.float32
    centre, rotation, area = triangle_frames(np.asarray(vertices, kind), triangles)
    index = splats.triangle
    size = np.take(np.sqrt(area), index)[:, None]
    # sqrt(a) R~ per triangle first: there are fewer triangles than splats
    basis = np.take((np.sqrt(area)[:, None, None] * rotation).reshape(-1, 9), index, 0).reshape(-1, 3, 3)
    turn = np.take(matrix_to_quaternion(rotation), index, 0)
    unit = splats.rotation / np.sqrt(_dot(splats.rotation, splats.rotation))[:, None]
    return PosedSplats(
        means=(np.einsum("kij,kj->ki", basis, splats.offset) + np.take(centre, index, 0)).astype(np.float32),
        quats=quaternion_product(turn, unit).astype(np.float32),
        scales=(size * splats.scale).astype(np.float32),
        opacities=splats.opacity,
        sh=rotate_sh(splats.sh, rotation, index).astype(np.float32),
    )


def _dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", left, right)


def _cross(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cross products [..., 3]; several times faster than ``np.cross`` on long arrays."""
    x, y, z = np.moveaxis(left, -1, 0)
    u, v, w = np.moveaxis(right, -1, 0)
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], -1)


def _normalise(vector: np.ndarray, least, fallback: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors and lengths of [..., 3]; at most ``least`` long: ``fallback`` and 0."""
    length = np.sqrt(_dot(vector, vector))
    good = length > least
    unit = np.where(good[..., None], vector / np.where(good, length, 1)[..., None], fallback)
    return unit, np.where(good, length, 0)
