"""Rotation of real spherical harmonics up to degree 3, on numpy arrays and torch tensors alike (numpy-only to import).

A splat's colour as seen from direction d is ``0.5 + sum_k Y_k(d) c_k``. Turning the splat by R must give
``f'(d) = f(R^T d)``. Harmonics of one degree l stay among themselves, so 2l + 1 sample directions p_i fix the turned
coefficients exactly: ``Y(p_i) c' = Y(R^T p_i) c``, hence ``c' = Y(P)^-1 Y(P R) c``.
"""

from __future__ import annotations

import functools
import math

import numpy as np

DEGREE_OF_COUNT = {1: 0, 4: 1, 9: 2, 16: 3}
SH_C0 = 0.5 / math.sqrt(math.pi)  # the constant harmonic, by which a plain colour becomes a coefficient

# Real, orthonormal, in the order m = -l .. l and with the Condon-Shortley sign of Gaussian splatting's files.
_C1 = math.sqrt(3 / (4 * math.pi))
_C2_XY = math.sqrt(15 / (4 * math.pi))
_C2_ZZ = math.sqrt(5 / (16 * math.pi))
_C2_XX = math.sqrt(15 / (16 * math.pi))
_C3_3 = math.sqrt(35 / (32 * math.pi))
_C3_2 = math.sqrt(105 / (4 * math.pi))
_C3_1 = math.sqrt(21 / (32 * math.pi))
_C3_0 = math.sqrt(7 / (16 * math.pi))
_C3_20 = math.sqrt(105 / (16 * math.pi))


def band(degree: int, x, y, z) -> list:
    """The 2 ``degree`` + 1 harmonics of one degree at unit directions given by components of any (array) type."""
    if degree == 1:
        return [-_C1 * y, _C1 * z, -_C1 * x]
    xx, yy, zz = x * x, y * y, z * z
    if degree == 2:
        return [
            _C2_XY * x * y,
            -_C2_XY * y * z,
            _C2_ZZ * (2 * zz - xx - yy),
            -_C2_XY * x * z,
            _C2_XX * (xx - yy),
        ]
    if degree == 3:
        return [
            -_C3_3 * y * (3 * xx - yy),
            _C3_2 * x * y * z,
            -_C3_1 * y * (4 * zz - xx - yy),
            _C3_0 * z * (2 * zz - 3 * xx - 3 * yy),
            -_C3_1 * x * (4 * zz - xx - yy),
            _C3_20 * z * (xx - yy),
            -_C3_3 * x * (xx - 3 * yy),
        ]
    raise ValueError(f"spherical harmonics of degree {degree}")


@functools.cache
def _samples(degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample directions P [2l+1, 3] and the inverse of Y(P) [2l+1, 2l+1]; float64."""
    count = 200
    index = np.arange(count) + 0.5
    height = 1 - index / count  # a golden-angle spiral over the upper half: Y is even or odd
    radius, angle = np.sqrt(1 - height**2), index * math.pi * (3 - math.sqrt(5))
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], -1)
    values = np.stack(band(degree, *points.T), -1)
    # Take directions greedily, each the least explained by those before: the inverse then amplifies rounding < 5 times
    chosen, rest = [], values.copy()
    for _ in range(2 * degree + 1):
        chosen.append(int((rest**2).sum(1).argmax()))
        axis = rest[chosen[-1]] / np.linalg.norm(rest[chosen[-1]])
        rest -= np.outer(rest @ axis, axis)
    return points[chosen], np.linalg.inv(values[chosen])


def sh_rotations(rotation, degree: int) -> list:
    """Matrices [..., 2l+1, 2l+1] for l = 1 .. ``degree`` that turn coefficients by ``rotation`` [..., 3, 3].

    ``rotation`` is a proper rotation, a numpy array or a torch tensor; the result is of the same kind and type.
    """
    if isinstance(rotation, np.ndarray):
        stack, like = np.stack, lambda array: array.astype(rotation.dtype)
    else:
        import torch

        stack, like = torch.stack, lambda array: torch.as_tensor(array).to(rotation)
    matrices = []
    for level in range(1, degree + 1):
        points, inverse = _samples(level)
        turned = like(points) @ rotation  # [..., 2l+1, 3], rows R^T p
        values = stack(band(level, turned[..., 0], turned[..., 1], turned[..., 2]), -1)
        matrices.append(like(inverse) @ values)
    return matrices


def rotate_sh(
    sh,  # [K, C, 3]
    rotation,  # [M, 3, 3] proper rotations
    index,  # [K] row of ``rotation`` for each splat
):
    """Coefficients [K, C, 3] of splats turned by their rotation; C in {1, 4, 9, 16}. The constant term stays."""
    degree = DEGREE_OF_COUNT[sh.shape[1]]
    if degree == 0:
        return sh
    parts = [sh[:, :1]]
    for level, matrix in enumerate(sh_rotations(rotation, degree), start=1):
        parts.append(matrix[index] @ sh[:, level**2 : (level + 1) ** 2])
    if isinstance(sh, np.ndarray):
        return np.concatenate(parts, 1)
    import torch

    return torch.cat(parts, 1)
