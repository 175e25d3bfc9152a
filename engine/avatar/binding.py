"""Eq. 5 of the paper in torch: Gaussians that move, turn and grow with the triangle they are bound to.

World: metres. A triangle's frame has its origin in the triangle's centre, the axes (first edge, normal, their cross
product) as columns, and sqrt(area) as its unit of length.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..gaussians import Gaussians
from .posing import FLATNESS, MIN_AREA, MIN_LENGTH, PosedSplats
from .sh_rotation import rotate_sh


class TriangleFrames(NamedTuple):
    """Where triangles are, how they are turned and how large they are."""

    centre: Tensor  # [..., M, 3] metres
    rotation: Tensor  # [..., M, 3, 3] proper; columns are edge, normal, edge x normal
    area: Tensor  # [..., M] square metres, at least MIN_AREA
    radius: Tensor  # [..., M] metres, tau of Eq. 8: the largest distance from the centre to a corner


def triangle_frames(
    vertices: Tensor,  # [..., N, 3] metres
    triangles: Tensor,  # [M, 3] int
) -> TriangleFrames:
    """Frames of all triangles, differentiable in ``vertices``.

    A degenerate triangle (a point or a line) gets some proper rotation, ``MIN_AREA``, and a gradient of zero where it
    has none, so that a collapsed eyelid cannot spoil a training step.
    """
    a, b, c = (vertices.index_select(-2, triangles[:, corner].long()) for corner in range(3))
    centre = (a + b + c) / 3
    edge, side = b - a, c - a
    along, edge_length = _normalise(edge, MIN_LENGTH, torch.tensor([1.0, 0.0, 0.0]).to(vertices).expand_as(edge))
    across = torch.linalg.cross(along, side, dim=-1)
    # Below this height over its edge a triangle's normal is rounding error
    flat = MIN_LENGTH + FLATNESS * (edge_length + side.detach().norm(dim=-1))
    smallest = along.detach().abs().argmin(-1, keepdim=True)
    axis = torch.zeros_like(along).scatter_(-1, smallest, 1.0)
    fallback = torch.nn.functional.normalize(torch.linalg.cross(along, axis, dim=-1), dim=-1)
    normal, height = _normalise(across, flat, fallback)
    rotation = torch.stack([along, normal, torch.linalg.cross(along, normal, dim=-1)], -1)
    area = (0.5 * edge_length * height).clamp_min(MIN_AREA)
    corners = torch.stack([a, b, c], -2) - centre.unsqueeze(-2)
    radius = torch.linalg.vector_norm(corners, dim=-1).amax(-1)
    return TriangleFrames(centre, rotation, area, radius)


def _normalise(vector: Tensor, least: Tensor | float, fallback: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors and lengths of [..., 3]; at most ``least`` long: ``fallback`` and 0, without gradient."""
    squared = vector.square().sum(-1)
    good = squared.detach().sqrt() > least
    length = torch.where(good, squared, 1.0).sqrt()  # the dead branch must have a finite gradient too
    unit = torch.where(good.unsqueeze(-1), vector / length.unsqueeze(-1), fallback)
    return unit, torch.where(good, length, 0.0)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Unit quaternions [..., 4] wxyz of proper rotations [..., 3, 3].

    Each candidate row is the quaternion times four times one of its components; taking the longest row keeps the value
    and the gradient well conditioned for every rotation, half turns included.
    """
    (m00, m01, m02), (m10, m11, m12), (m20, m21, m22) = (row.unbind(-1) for row in rotation.unbind(-2))
    wx, wy, wz = m21 - m12, m02 - m20, m10 - m01
    xy, xz, yz = m01 + m10, m02 + m20, m12 + m21
    candidates = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, wx, wy, wz], -1),
            torch.stack([wx, 1 + m00 - m11 - m22, xy, xz], -1),
            torch.stack([wy, xy, 1 - m00 + m11 - m22, yz], -1),
            torch.stack([wz, xz, yz, 1 - m00 - m11 + m22], -1),
        ],
        -2,
    )  # [..., 4, 4]
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    row = candidates.gather(-2, best.expand(*best.shape[:-1], 4)).squeeze(-2)
    return torch.nn.functional.normalize(row, dim=-1)


def quaternion_product(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton product [..., 4] of wxyz quaternions: turn by ``right`` first, then by ``left``."""
    w, x, y, z = left.unbind(-1)
    rw, rx, ry, rz = right.unbind(-1)
    return torch.stack(
        [
            w * rw - x * rx - y * ry - z * rz,
            w * rx + x * rw + y * rz - z * ry,
            w * ry - x * rz + y * rw + z * rx,
            w * rz + x * ry - y * rx + z * rw,
        ],
        -1,
    )


def offsets_from(
    points: Tensor,  # [K, 3] metres
    triangle: Tensor,  # [K] int64
    frames: TriangleFrames,  # unbatched
) -> tuple[Tensor, Tensor]:
    """Eq. 5 inverted for places: the points' offsets [K, 3], in the sizes [K, 1] (sqrt(area), metres) of their
    triangles, which world scales are to be divided by."""
    size = frames.area.sqrt()[triangle].unsqueeze(-1)
    away = (points - frames.centre[triangle]).unsqueeze(-1)
    return (frames.rotation[triangle].transpose(1, 2) @ away).squeeze(-1) / size, size


def bind(
    frames: TriangleFrames,  # of one head: no leading dimensions
    triangle: Tensor,  # [K] int64
    offsets: Tensor,  # [K, 3] in the triangle's frame
    log_scales: Tensor,  # [K, 3]
    quats: Tensor,  # [K, 4] wxyz, in the triangle's frame
    opacity_logits: Tensor,  # [K]
    sh: Tensor,  # [K, C, 3] in the triangle's frame
) -> Gaussians:
    """Eq. 5: ``R' = R~ R``, ``mu' = sqrt(a) R~ mu + t``, ``s' = sqrt(a) s``; view-dependent colour turns with R~."""
    centre = frames.centre.index_select(0, triangle)
    rotation = frames.rotation.index_select(0, triangle)
    size = frames.area.sqrt().index_select(0, triangle).unsqueeze(-1)  # [K, 1]
    turn = matrix_to_quaternion(frames.rotation).index_select(0, triangle)
    return Gaussians(
        means=size * (rotation @ offsets.unsqueeze(-1)).squeeze(-1) + centre,
        quats=quaternion_product(turn, quats),
        scales=size * log_scales.exp(),
        opacities=opacity_logits.sigmoid(),
        sh=rotate_sh(sh, frames.rotation, triangle),
    )


def posed_arrays(gaussians: Gaussians) -> PosedSplats:
    """Posed Gaussians as float32 numpy arrays, for files; quaternions come out normalised."""

    def array(tensor: Tensor):
        return tensor.detach().cpu().float().numpy()

    return PosedSplats(
        means=array(gaussians.means),
        quats=array(torch.nn.functional.normalize(gaussians.quats, dim=-1)),
        scales=array(gaussians.scales),
        opacities=array(gaussians.opacities),
        sh=array(gaussians.sh),
    )
