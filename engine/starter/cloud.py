"""Gaussians in the making: clouds on numpy arrays in the rest pose, before they are bound to the head's triangles."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch

from ..avatar.binding import TriangleFrames, matrix_to_quaternion, offsets_from, quaternion_product
from ..avatar.rigged import RiggedGaussians
from ..avatar.sh_rotation import SH_C0


@dataclass(frozen=True)
class Cloud:
    """K Gaussians in the rest pose. Metres; colours are sRGB in 0..1 and may leave it slightly."""

    points: np.ndarray  # [K, 3]
    axes: np.ndarray  # [K, 3, 3] proper rotations, axes as columns
    scales: np.ndarray  # [K, 3] standard deviations along the axes
    colours: np.ndarray  # [K, 3]
    opacities: np.ndarray  # [K]
    triangles: np.ndarray  # [K] int64: what they are bound to

    def __post_init__(self) -> None:
        k = len(self.points)
        assert self.points.shape == (k, 3), self.points.shape
        assert self.axes.shape == (k, 3, 3), self.axes.shape
        assert self.scales.shape == (k, 3), self.scales.shape
        assert self.colours.shape == (k, 3), self.colours.shape
        assert self.opacities.shape == (k,), self.opacities.shape
        assert self.triangles.shape == (k,), self.triangles.shape

    def __len__(self) -> int:
        return len(self.points)

    def pick(self, rows: np.ndarray) -> Cloud:
        return Cloud(*(getattr(self, field.name)[rows] for field in fields(Cloud)))


def joined(clouds: list[Cloud]) -> Cloud:
    return Cloud(*(np.concatenate([getattr(cloud, field.name) for cloud in clouds]) for field in fields(Cloud)))


def frames_along(directions: np.ndarray) -> np.ndarray:  # [K, 3] any length > 0 -> [K, 3, 3]
    """Proper rotations whose first axis has the given direction; the others are arbitrary."""
    first = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    helper = np.where(np.abs(first[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    second = np.cross(helper, first)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], -1)


def threads(points, directions, length, width, colours, triangles, opacity=0.9) -> Cloud:
    """Long thin Gaussians: ``length`` and ``width`` are standard deviations, one for all or [K]."""
    k = len(points)
    length, width = np.broadcast_to(length, k), np.broadcast_to(width, k)
    return Cloud(
        points,
        frames_along(directions),
        np.stack([length, width, width], 1),
        np.broadcast_to(colours, (k, 3)),
        np.broadcast_to(np.float64(opacity), k),
        np.broadcast_to(triangles, k),
    )


def discs(points, normals, radius, thickness, colours, triangles, opacity=0.9) -> Cloud:
    """Flat Gaussians that cover a surface: ``radius`` and ``thickness`` are standard deviations, one for all or [K]."""
    return threads(points, normals, thickness, radius, colours, triangles, opacity)


def bind_cloud(cloud: Cloud, frames: TriangleFrames) -> RiggedGaussians:
    """The cloud in the frames of its triangles (Eq. 5 inverted), ready to be posed."""
    triangle = torch.from_numpy(np.ascontiguousarray(cloud.triangles, np.int64))

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    offsets, size = offsets_from(tensor(cloud.points), triangle, frames)
    turn = matrix_to_quaternion(frames.rotation)[triangle] * torch.tensor([1.0, -1.0, -1.0, -1.0])
    return RiggedGaussians(
        triangle=triangle,
        offsets=offsets,
        log_scales=(tensor(cloud.scales) / size).log(),
        quats=quaternion_product(turn, matrix_to_quaternion(tensor(cloud.axes))),
        opacity_logits=tensor(cloud.opacities).logit(),
        sh=((tensor(cloud.colours) - 0.5) / SH_C0).unsqueeze(1),
    )
